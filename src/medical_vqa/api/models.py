"""Load a model and ask it; export it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Self

from medical_vqa.api.arguments import (
    ImageInput,
    StrPath,
    as_count,
    as_frame,
    as_image,
    as_images,
    as_plane,
    as_questions,
    as_turns,
    as_window,
    optional_path,
)
from medical_vqa.api.calls import public
from medical_vqa.errors import ConfigError, ModelError
from medical_vqa.io import as_path

if TYPE_CHECKING:
    from medical_vqa.models.remote.usage import Usage
    from medical_vqa.pipelines.ask import Answer, AttentionMap
    from medical_vqa.pipelines.ask_series import SeriesAnswer
    from medical_vqa.pipelines.load import LoadedModel
    from medical_vqa.schema.bundle_card import BundleCard


_ADVICE_ON_MODEL = (
    'pass a name or path such as "shipped" or "runs/mine"; a model of your own is a family that a package adds'
)


class Model:
    """A loaded model, local or remote, that answers any number of questions; `load` returns it.

    It may be used in a ``with`` statement, which closes the connections of a remote model at the end.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded

    def __repr__(self) -> str:
        return f"<medical_vqa.Model {self.name!r}, family {self.family}>"

    def __reduce__(self) -> NoReturn:
        raise ModelError(
            "a loaded model cannot be copied or sent to another process: call medical_vqa.load in each process, or ask "
            "from several threads"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """Name of the model: that of its recipe, or of the remote model."""
        return self._loaded.card.name

    @property
    def family(self) -> str:
        """Model family: ``compact``, ``blip2``, ``openai`` ..."""
        return self._loaded.card.family

    @property
    def card(self) -> BundleCard:
        """What is known about the model: training data, scores, license, decoding, calibration."""
        return self._loaded.card

    @property
    def usage(self) -> Usage | None:
        """Requests and tokens that a remote model has spent since it was loaded; None for a local model."""
        return self._loaded.usage

    @property
    def notes(self) -> Sequence[str]:
        """What was changed to suit the endpoint of a remote model, one sentence each; empty for a local model."""
        return self._loaded.model.notes

    @public
    def ask(
        self,
        image: ImageInput,
        question: str,
        *,
        frame: int | None = None,
        window: tuple[float, float] | None = None,
        others: ImageInput | Sequence[ImageInput] = (),
        turns: Sequence[tuple[str, str]] = (),
    ) -> Answer:
        """Answer one question about one image.

        Args:
            image: A JPEG, PNG, BMP, TIFF, WebP, GIF, DICOM or NIfTI file: its path or its bytes; or a Pillow image.
            question: One question; `ask_many` splits a text that asks several.
            frame: Frame of a DICOM file, slice of a NIfTI volume or page of a TIFF, from 0; by default the middle one.
            window: Center and width of the values to show, of gray values of more than 8 bits; by default those of the
                header, else the 0.5th to the 99.5th percentile.
            others: A further image that the question is about, such as the prior examination, or several; for models
                that take several.
            turns: Earlier questions of the conversation with their answers; a model that does not remember ignores
                them.

        Returns:
            The answer. ``print(answer)`` shows its text, or the reason where the model abstains; ``answer.text`` is
            what the model answered in either case.

        Raises:
            MedicalVqaError: The file is not a usable image, has no such frame, the question is empty or too long, or
                the model takes fewer images.

        Examples:
            >>> answer = mv.load("shipped").ask("scan.png", "Is this a CT?")
            >>> answer.text, answer.confidence, answer.abstained
            ('Yes', 0.96, False)
        """
        return self.ask_many(image, [question], frame=frame, window=window, others=others, turns=turns)[0]

    @public
    def ask_many(
        self,
        image: ImageInput,
        questions: str | Sequence[str],
        *,
        frame: int | None = None,
        window: tuple[float, float] | None = None,
        others: ImageInput | Sequence[ImageInput] = (),
        turns: Sequence[tuple[str, str]] = (),
    ) -> list[Answer]:
        """Answer several questions about one image, which is decoded and encoded once.

        Args:
            image: An image, as `ask` takes it.
            questions: The questions: a list, or a text that asks several.
            frame: As in `ask`.
            window: As in `ask`.
            others: As in `ask`.
            turns: As in `ask`.

        Returns:
            One answer per question, in order; each has its `question`.

        Raises:
            MedicalVqaError: As in `ask`; then no question is answered.

        Examples:
            >>> [str(answer) for answer in model.ask_many("scan.png", ["Is this a CT?", "Which organ is shown?"])]
            ['Yes', 'Lung']
        """
        from medical_vqa.pipelines.ask import ask

        return ask(
            self._loaded,
            as_image(image),
            as_questions(questions),
            frame=as_frame(frame),
            window=as_window(window),
            others=as_images(others, "others"),
            turns=as_turns(turns),
        )

    @public
    def ask_series(
        self,
        source: StrPath,
        question: str,
        *,
        slices: int = 5,
        plane: str | None = None,
        window: tuple[float, float] | None = None,
    ) -> SeriesAnswer:
        """Answer one question about a series of slices.

        Args:
            source: A folder, a zip archive or a DICOMDIR with a DICOM series, or a NIfTI volume or an enhanced DICOM
                file.
            question: One question.
            slices: How many slices the model receives: those on which it localizes what the question names,
                else evenly spaced ones.
            plane: ``axial``, ``coronal`` or ``sagittal``; by default the plane of the stored slices.
            window: Center and width of the values to show; by default those of the header.

        Returns:
            The combined answer, with the answer about each slice.

        Raises:
            MedicalVqaError: There is no series, a file of it is damaged, or the question is empty or too long.

        Examples:
            >>> answer = model.ask_series("study/ct", "Is this a CT?")
            >>> answer.text, answer.slice_numbers
            ('Yes', (30, 90, 150, 210, 270))
        """
        from medical_vqa.pipelines.ask_series import ask_series

        (text,) = as_questions([question])
        return ask_series(
            self._loaded,
            as_path(source, "source"),
            [text],
            slices=as_count(slices, "slices"),
            plane=as_plane(plane),
            window=as_window(window),
        )[0]

    @public
    def attention_map(
        self,
        image: ImageInput,
        question: str,
        *,
        frame: int | None = None,
        window: tuple[float, float] | None = None,
    ) -> AttentionMap:
        """Where in the picture the answer to a question comes from.

        Args:
            image: An image, as `ask` takes it.
            question: The question.
            frame: As in `ask`.
            window: As in `ask`.

        Returns:
            A map whose `weights` (rows, columns) are non-negative and sum to 1.

        Raises:
            MedicalVqaError: As in `ask`, or the model has no attention maps.

        Examples:
            >>> model.attention_map("scan.png", "Where is the liver?").weights.shape
            (24, 24)
        """
        from medical_vqa.pipelines.ask import attention_map

        (text,) = as_questions([question])
        return attention_map(self._loaded, as_image(image), text, frame=as_frame(frame), window=as_window(window))

    def close(self) -> None:
        """Close the connections of a remote model; a local model needs no closing."""
        self._loaded.close()


@public
def load(
    model: StrPath | None = None,
    *,
    device: str = "auto",
    base_url: str | None = None,
    api_key: str | None = None,
    api_key_env: str | None = None,
    concurrency: int | None = None,
    logprobs: bool = True,
    allow_http: bool = False,
    image_dependence: bool | None = None,
) -> Model:
    """Load a model once, to ask it any number of questions.

    Args:
        model: ``"shipped"`` (the model in this package), a run folder, a bundle folder, ``"hub:USER/NAME"`` on the
            Hugging Face hub (``@REVISION`` may follow), a remote model as ``"openai:MODEL"``, ``"vllm:MODEL"``,
            ``"sglang:MODEL"``, ``"ollama:MODEL"`` or ``"lmstudio:MODEL"``, or a name in ``models.yaml``. By default
            the newest finished run under ``runs/``, else the shipped model. A folder called ``shipped`` is
            ``"./shipped"``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``, for a local model.
        base_url: Address of the endpoint of a remote model, up to and with ``/v1``; by default that at which its
            program listens on this machine.
        api_key: Key of the endpoint; by default the value of the environment variable `api_key_env`.
        api_key_env: Environment variable that holds the key; by default ``OPENAI_API_KEY``.
        concurrency: Requests to the endpoint that run at once; by default 8.
        logprobs: Whether to ask the endpoint for token probabilities, from which the confidence is computed.
        allow_http: Whether the key may be sent to another machine without encryption.
        image_dependence: Whether to measure how much the picture moves each answer, by answering about other pictures
            too. By default for models with a closed list of answers and reference pictures, for which it is cheap; a
            model that writes answers, or a remote one, takes three times as long or more.

    Returns:
        The model.

    Raises:
        MedicalVqaError: There is no such model, a file of it is damaged, its libraries or the device are not available,
            or the hub cannot be reached.

    Examples:
        >>> model = mv.load("shipped")
        >>> model = mv.load("openai:medgemma", base_url="http://localhost:8000/v1")
        >>> model = mv.load("ollama:medgemma")
    """
    from medical_vqa.pipelines.load import SHIPPED
    from medical_vqa.pipelines.load import load as load_model
    from medical_vqa.pipelines.runs import has_finished_run, newest_run

    if model is None:
        model = newest_run() if has_finished_run() else SHIPPED
    loaded = load_model(
        model if isinstance(model, str) else as_path(model, "model", _ADVICE_ON_MODEL),
        device=device,
        base_url=base_url,
        api_key=api_key,
        api_key_env=api_key_env,
        concurrency=None if concurrency is None else as_count(concurrency, "concurrency"),
        logprobs=logprobs,
        allow_http=allow_http,
        image_dependence=image_dependence,
    )
    return Model(loaded)


def loaded_model(model: StrPath | Model, **options: Any) -> Model:
    """The model itself, or what `load` loads by that name with these options.

    Raises:
        ConfigError: The model is loaded already and an option is set that would change something.
    """
    if not isinstance(model, Model):
        return load(model, **options)
    parameters = inspect.signature(load).parameters
    for name, value in options.items():
        if value != parameters[name].default and not (name == "device" and _runs_on(model, value)):
            raise ConfigError(f"{name}= is an argument of load, and {model.name} is loaded already; pass it to load")
    return model


def _runs_on(model: Model, device: object) -> bool:
    """Whether a local model runs on the device of this name."""
    if model.usage is not None:
        return False
    own = getattr(model._loaded.model, "device", "cpu")  # ONNX Runtime's: the processor
    return str(device) in (str(own), getattr(own, "type", own))


@dataclass(frozen=True, slots=True)
class Exported:
    """Where a model was exported to."""

    location: str
    """The folder, or the address of the page on the hub."""
    command: str | None = None
    """Command that serves it, where the engine needs one."""
    logit_difference: float | None = None
    """Largest difference of the exported model's logits on the shipped sample; None unless exported to ONNX."""


@public
def export(model: StrPath, target: StrPath | None = None, *, to: StrPath, public: bool = False) -> Exported:
    """Write a trained model with its model card for use elsewhere.

    Args:
        model: A run folder, a bundle folder, ``"shipped"`` or ``"hub:USER/NAME"``.
        target: With ``to="hub"`` the repository, ``"USER/NAME"``; otherwise the folder to write, by default next to the
            model.
        to: ``"hub"``; ``"onnx"``, which writes a bundle that answers without torch; ``"merged"``, the adapter merged
            into its base, for any engine; ``"vllm"``, the adapter with the command that serves it; ``"gguf"``, for
            llama.cpp, Ollama and LM Studio; or a new folder.
        public: Whether a new repository on the hub is public.

    Returns:
        Where it is.

    Raises:
        MedicalVqaError: The model is damaged, the folder exists, or the hub cannot be reached.

    Examples:
        >>> mv.export("runs/demo", to="exported").location
        'exported'
    """
    from medical_vqa.pipelines import export as stage
    from medical_vqa.pipelines.load import bundle_folder

    if public and to != "hub":
        raise ConfigError(f"--public (public=) is for a repository on the hub, and not for --to {to}; leave it out")
    if target is not None and to not in ("hub", "onnx", "merged", "vllm", "gguf"):
        raise ConfigError(f"--to {to} names the folder to write, and so does {target}; leave one of them out")
    bundle = bundle_folder(model if isinstance(model, str) else as_path(model, "model", "pass what load takes"))
    if to == "onnx":
        folder, difference = stage.export_onnx(bundle, optional_path(target, "target"))
        return Exported(str(folder), logit_difference=difference)
    engine_exports = {"merged": stage.export_merged, "vllm": stage.export_vllm, "gguf": stage.export_gguf}
    if isinstance(to, str) and to in engine_exports:
        out = optional_path(target, "target") or bundle.with_name(f"{bundle.name}-{to}")
        written = engine_exports[to](bundle, out)
        location, command = written if isinstance(written, tuple) else (written, None)
        return Exported(str(location), command=command)
    if to == "hub":
        repository = None if target is None else os.fspath(target)
        return Exported(stage.export(bundle, to="hub", repository=repository, public=public))
    return Exported(stage.export(bundle, to=str(as_path(to, "to"))))
