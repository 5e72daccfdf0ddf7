"""Commands that answer questions: ask, serve and app."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medical_vqa.cli.dicom_outputs import DicomOutputs, dicom_output_options
from medical_vqa.cli.options import (
    Endpoint,
    NamedPath,
    device_option,
    endpoint_options,
    image_dependence_option,
)
from medical_vqa.cli.terminal import DISCLAIMER, answer_lines, answer_table, echo, series_lines, view_lines
from medical_vqa.errors import ConfigError, MedicalVqaError, MissingDependencyError
from medical_vqa.text import printable

if TYPE_CHECKING:
    from medical_vqa import api
    from medical_vqa.pipelines.ask import Answer
    from medical_vqa.pipelines.ask_series import SeriesAnswer

_MCP_PORT = 8001


@click.command()
@click.argument("image")
@click.argument("question")
@click.option(
    "--model",
    "models",
    multiple=True,
    help="A run folder, a bundle, shipped, hub:USER/NAME, openai:MODEL, vllm:MODEL, ollama:MODEL ..., or a name in "
    "models.yaml; several are shown in a table.  [default: the newest run, else shipped]",
)
@click.option("--all-models", is_flag=True, help="Ask the shipped model and every model in models.yaml.")
@device_option
@endpoint_options
@click.option(
    "--and",
    "others",
    multiple=True,
    type=NamedPath(path_type=Path),
    metavar="IMAGE",
    help="A further image that the question is about, for models that take several.",
)
@click.option(
    "--frame", type=int, help="Frame of DICOM, slice of NIfTI or page of TIFF, from 0.  [default: the middle one]"
)
@click.option(
    "--window", type=(float, float), metavar="CENTER WIDTH", help="Values to show, of more than 8 bits, e.g. 40 400."
)
@click.option("--slices", type=int, help="Slices of a series or volume that the model receives.  [default: 5]")
@click.option(
    "--plane", type=click.Choice(["axial", "coronal", "sagittal"]), help="Plane of them.  [default: as stored]"
)
@image_dependence_option
@dicom_output_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per question.")
def ask(
    image: str,
    question: str,
    models: tuple[str, ...],
    all_models: bool,
    device: str,
    endpoint: Endpoint,
    others: tuple[Path, ...],
    frame: int | None,
    window: tuple[float, float] | None,
    slices: int | None,
    plane: str | None,
    image_dependence: bool | None,
    as_json: bool,
    **dicom_options: Any,
) -> None:
    """Ask one question about one image or series.

    IMAGE is a JPEG, PNG, BMP, TIFF, WebP, DICOM or NIfTI file; or a series: a folder, a zip archive or a DICOMDIR of
    DICOM files, or, with --slices or --plane, a file of many slices; or dicomweb://HOST/PATH/studies/UID with
    /series/UID. Two questions in QUESTION get two answers.
    """
    from medical_vqa import api
    from medical_vqa.pipelines.dicomweb import local_files

    outputs = DicomOutputs(**dicom_options, address=image)
    names = [*models, *(_all_models() if all_models else [])]
    where: dict[str, Any] = {"device": device, "image_dependence": image_dependence, **endpoint}
    if len(names) > 1 and outputs:
        raise ConfigError("a DICOM report is of one model; name one --model")
    _check_image(image, question)
    with local_files(image) as path:
        if _is_series(path, names, frame, others, slices, plane):
            loaded = api.load(names[0] if names else None, **where)
            answers = _ask_series(loaded, path, image, question, slices, plane, window, as_json=as_json)
            outputs.write(loaded, answers, path)
            return
        if len(names) > 1:
            results = {name: _answers_of(name, path, question, where, frame, window, others) for name in names}
            if as_json:
                click.echo(json.dumps(_as_json(results), ensure_ascii=False))
            else:
                echo(answer_table(results))
            click.echo(DISCLAIMER, err=True)
            return
        loaded = api.load(names[0] if names else None, **where)
        _ask_image(loaded, path, image, question, frame, window, others, outputs, as_json=as_json)


def _check_image(image: str, question: str) -> None:
    """Say what to do where IMAGE is an address, or the arguments are exchanged."""
    if image.startswith(("http://", "https://")):
        raise ConfigError(f"{image}: expected a file, a folder or a dicomweb:// address; download the picture first")
    if not os.path.exists(image) and os.path.exists(question):  # noqa: PTH110 - Path.exists raises for a long text
        raise ConfigError(f'the image comes first: medical-vqa ask {question} "{image}"')


def _is_series(
    path: Path, names: list[str], frame: int | None, others: tuple[Path, ...], slices: int | None, plane: str | None
) -> bool:
    from medical_vqa.data.imaging.series.files import is_series

    series = slices is not None or plane is not None or is_series(path)
    if series and (frame is not None or others):
        raise ConfigError("--frame and --and are for one image, and this is a series; leave them out")
    if series and len(names) > 1:
        raise ConfigError("several models are for one image, and this is a series; name one --model")
    return series


def _ask_image(
    loaded: api.Model,
    path: Path,
    source: str,
    question: str,
    frame: int | None,
    window: tuple[float, float] | None,
    others: tuple[Path, ...],
    outputs: DicomOutputs,
    *,
    as_json: bool,
) -> None:
    """Print the answers about one image; `source` is what the user called it."""
    answers = loaded.ask_many(path, question, frame=frame, window=window, others=others)
    for answer in answers:
        if as_json:
            content = answer.to_dict()
            content["image"] = content["seen"]["file"] = source
            click.echo(json.dumps(content, ensure_ascii=False))
            continue
        first, *further_lines = answer_lines(answer)
        click.secho(printable(first), bold=not answer.abstained)
        for line in further_lines:
            echo(line)
    outputs.write(loaded, answers, path)
    if outputs.capture is not None:
        outputs.write_capture(loaded, loaded.attention_map(path, answers[0].question, frame=frame, window=window))
    if not as_json:
        views = [answers[0].seen, *answers[0].others_seen]
        for view in views:
            for line in view_lines(view, view.file.name if len(views) > 1 else ""):
                echo(line)
        for note in loaded.notes:
            echo(f"note: {note}", err=True)
        click.echo(f"{loaded.name}, {loaded.family}. {DISCLAIMER}", err=True)


def _ask_series(
    model: api.Model,
    series: Path,
    source: str,
    question: str,
    slices: int | None,
    plane: str | None,
    window: tuple[float, float] | None,
    *,
    as_json: bool,
) -> list[SeriesAnswer]:
    """Print the answers about a series; `source` is what the user called it."""
    from medical_vqa.models.questions.form import questions_in
    from medical_vqa.models.slices import DEFAULT_SLICES

    answers = []
    for text in questions_in(question):
        answer = model.ask_series(
            series, text, slices=DEFAULT_SLICES if slices is None else slices, plane=plane, window=window
        )
        answers.append(answer)
        if as_json:
            content = answer.to_dict()
            content["series"] = content["seen"]["file"] = source
            click.echo(json.dumps(content, ensure_ascii=False))
        else:
            echo("\n".join(series_lines(answer)))
    if not as_json:
        click.echo(f"{model.name}, {model.family}. {DISCLAIMER}", err=True)
    return answers


def _all_models() -> list[str]:
    from medical_vqa.models.remote.named_models import models_file, read_models

    path = models_file()
    if path is None:
        raise ConfigError(
            "there is no models.yaml here; write one (docs/how-to/remote-models.md), or name every --model"
        )
    return ["shipped", *read_models(path)]


def _answers_of(
    name: str,
    image: Path,
    question: str,
    where: Mapping[str, Any],
    frame: int | None,
    window: tuple[float, float] | None,
    others: tuple[Path, ...],
) -> list[Answer] | MedicalVqaError:
    """One model's answers, or why it gives none; an endpoint belongs to the remote models, a device to the others."""
    from medical_vqa import api
    from medical_vqa.models.remote.endpoint import split_name
    from medical_vqa.pipelines.load import remote_named

    own = {**where, "base_url": where["base_url"] if split_name(name) else None}
    try:
        if remote_named(name, {"base_url": own["base_url"]}) is None:
            own |= {"api_key_env": None, "allow_http": False}
        else:
            own["device"] = "auto"
        with api.load(name, **own) as loaded:
            return loaded.ask_many(image, question, frame=frame, window=window, others=others)
    except MedicalVqaError as error:
        return error


def _as_json(answers: Mapping[str, list[Answer] | MedicalVqaError]) -> dict[str, Any]:
    return {
        name: {"error": str(result)} if isinstance(result, MedicalVqaError) else [one.to_dict() for one in result]
        for name, result in answers.items()
    }


@click.command()
@click.option(
    "--model",
    help="A run folder, a bundle, hub:USER/NAME, openai:MODEL, vllm:MODEL ..., or a name in models.yaml.  "
    "[default: the one that ships]",
)
@endpoint_options
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="0 takes any free one.  [default: $PORT, or 8000]")
@click.option("--store", help="Where uploads live: memory://, a folder, s3://, gs://, redis://.  [default: memory://]")
@click.option("--workers", type=int, help="Processes, about one for each core; they need a --store.  [default: 1]")
@click.option("--device", help="cpu, cuda, mps or auto, for a local model.  [default: auto]")
@click.option("--new-key", is_flag=True, help="Print a key for a client and what to set for it, and serve nothing.")
def serve(
    model: str | None,
    endpoint: Endpoint,
    host: str | None,
    port: int | None,
    store: str | None,
    workers: int | None,
    device: str | None,
    new_key: bool,
) -> None:
    """Answer questions over HTTP: upload an image once, ask many questions about it.

    Everything else is set by MEDICAL_VQA_* variables; docs/how-to/serve.md lists them.
    """
    _require_serving()
    if new_key:
        from medical_vqa.serving.middleware.access import new_key as make_key

        key, digest = make_key()
        click.echo(f"for the client:  {key}\nfor the server:  MEDICAL_VQA_API_KEYS={digest}")
        return
    from medical_vqa.pipelines import serve as serve_stage
    from medical_vqa.pipelines.load import device_of_remote, remote_named
    from medical_vqa.serving.settings import read_settings

    settings = read_settings(
        model=model,
        base_url=endpoint["base_url"],
        api_key_env=endpoint["api_key_env"],
        allow_http=endpoint["allow_http"] or None,
        host=host,
        port=port,
        store=store,
        workers=workers,
        device=device,
    )
    remote = settings.model is not None and remote_named(settings.model, {"base_url": settings.base_url}) is not None
    if device not in (None, "auto") and remote and not settings.further_models:
        raise device_of_remote(settings.model or "")
    serve_stage.serve(settings)


@click.command()
@click.option("--model", help="As in `ask`.  [default: the newest run, else shipped]")
@device_option
@click.option(
    "--images",
    type=NamedPath(path_type=Path, exists=True, file_okay=False),
    default=".",
    show_default=True,
    help="Folder whose image files agents may name.",
)
@click.option("--http", is_flag=True, help="Listen on 127.0.0.1 instead of standard input and output.")
@click.option("--port", type=int, help=f"Port, with --http.  [default: {_MCP_PORT}]")
def mcp(model: str | None, device: str, images: Path, http: bool, port: int | None) -> None:
    """Offer a model to agents as tools (Model Context Protocol).

    Over standard input and output, as desktop agents start it, or over HTTP on this machine.
    """
    from medical_vqa import api
    from medical_vqa.serving.mcp_server import create_mcp_server

    if port is not None and not http:
        raise ConfigError(f"--port {port} is where --http listens; add --http, or leave the port out")
    server = create_mcp_server(api.load(model, device=device), images)
    if http:
        server.run("streamable-http", host="127.0.0.1", port=_MCP_PORT if port is None else port)
    else:
        server.run("stdio")


@click.command()
@click.argument("folder", type=NamedPath(path_type=Path))
def verify_audit_log(folder: Path) -> None:
    """Check that no line of a server's audit log was changed, removed or inserted.

    FOLDER is the one that MEDICAL_VQA_AUDIT_LOG names. Prints the newest line's number and hash.
    """
    _require_serving()
    from medical_vqa.serving.audit_log import verify

    end = verify(folder)
    click.echo(f"{end.count} lines, unchanged; the newest has the hash {end.hash}")


def _require_serving() -> None:
    import importlib.util

    needed = (
        "fastapi",
        "uvicorn",
        "structlog",
        "pydantic_settings",
        "limits",
        "prometheus_client",
        "cachetools",
        "safetensors",
    )
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise MissingDependencyError(f"serving needs {missing[0]}; run: pip install 'medical-vqa[serve]'")


@click.command()
@click.argument("model", required=False)
@click.option("--model", "named", help="The same as MODEL.")
@endpoint_options
@click.option("--store", help="Where pictures and conversations live, as in `serve`.  [default: a folder of yours]")
@click.option("--feedback", type=NamedPath(path_type=Path), help="Folder for ratings and corrections.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of the page.")
@click.option("--port", default=8501, show_default=True, envvar="PORT", help="Port of the page.")
@click.option("--streamlit", is_flag=True, help="The thin page for hosts that run Streamlit, such as Spaces.")
@click.option("--backend", metavar="URL", help="With the thin page: a server that runs already.")
@click.option("--compare", metavar="URL|MODEL", help="With the thin page: a second server, or model, to compare with.")
def app(
    model: str | None,
    named: str | None,
    endpoint: Endpoint,
    store: str | None,
    feedback: Path | None,
    host: str,
    port: int,
    streamlit: bool,
    backend: str | None,
    compare: str | None,
) -> None:
    """Open a page to upload images and ask questions about them.

    MODEL is what `serve --model` takes, by default the model that ships. The page and the server that answers are one
    process. `--backend` and `--compare` belong to the thin page.
    """
    if streamlit or backend or compare or os.environ.get("MEDICAL_VQA_BACKEND"):
        if store is not None:
            raise ConfigError(
                f"--store {store}: the thin page keeps nothing; set MEDICAL_VQA_STORE for the server, or leave it out"
            )
        _thin_page(
            model=model or named,
            endpoint=endpoint,
            backend=backend,
            compare=compare,
            feedback=feedback,
            host=host,
            port=port,
        )
        return
    _require_serving()
    from medical_vqa.pipelines import serve as serve_stage
    from medical_vqa.runtime.environment import home
    from medical_vqa.serving.settings import read_settings

    local = host in ("127.0.0.1", "localhost", "::1")
    settings = read_settings(
        model=model or named,
        base_url=endpoint["base_url"],
        api_key_env=endpoint["api_key_env"],
        allow_http=endpoint["allow_http"] or None,
        host=host,
        port=port,
        store=store or os.environ.get("MEDICAL_VQA_STORE") or str(home() / "page"),
        feedback=feedback or os.environ.get("MEDICAL_VQA_FEEDBACK") or (Path("feedback") if local else None),
        page=True,
    )
    serve_stage.serve(settings, announce=lambda address: click.echo(f"page: {address}/page"))


def _thin_page(
    *,
    model: str | None,
    endpoint: Endpoint,
    backend: str | None,
    compare: str | None,
    feedback: Path | None,
    host: str,
    port: int,
) -> None:
    """Run the Streamlit page, and the server behind it where none runs already."""
    from medical_vqa.app import launch

    processes = launch.plan(
        model=model,
        serve_options=launch.remote_options(**endpoint),
        backend=backend,
        compare=compare,
        feedback=feedback,
        host=host,
        port=port,
        environ=os.environ,
    )
    if len(processes) > 1:  # a backend is started too
        _require_serving()
    launch.require_free_port(host, port)
    click.echo(f"page: http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}")
    sys.exit(launch.run(processes))
