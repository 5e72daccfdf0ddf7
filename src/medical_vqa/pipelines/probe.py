"""Probe a loaded model: ask a split with replaced pictures and in other words, and write what the answers depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np

from medical_vqa.data.cache.pictures import PictureCache
from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.errors import ConfigError
from medical_vqa.evaluation.predicting import image_batches
from medical_vqa.evaluation.probing.pictures import (
    BLACK,
    MIRRORED,
    NOISE,
    OTHER_MODALITY,
    REPLACED,
    SHUFFLED,
    black,
    mirrored,
    noise,
    other_images,
    sampled_images,
)
from medical_vqa.evaluation.probing.questions import Plan, ProbeQuestion, plan
from medical_vqa.evaluation.probing.scoring import contradictions_in, groups_of, mirrored_in, paraphrases_in
from medical_vqa.evaluation.reporting.probe_report import headline, write_probe_page
from medical_vqa.io import describe_disk_errors
from medical_vqa.models.base import Query
from medical_vqa.models.queries import NO_PICTURE
from medical_vqa.pipelines.inputs import learned_images, short_digest
from medical_vqa.pipelines.runs import require_outside_dataset
from medical_vqa.pipelines.score import dataset_ref
from medical_vqa.pipelines.usage_record import UsageRecord
from medical_vqa.runtime.environment import package_version
from medical_vqa.schema.prediction_card import AnsweringModel
from medical_vqa.schema.probe import Probe, probe_path, write_probe
from medical_vqa.schema.results import Bootstrap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medical_vqa.models.remote.usage import Usage
    from medical_vqa.pipelines.load import LoadedModel
    from medical_vqa.runtime import ProgressCallback
    from medical_vqa.schema.records import Split
    from medical_vqa.schema.selection import Selection


@dataclass(frozen=True, slots=True)
class WrittenProbe:
    """A written probe: its numbers, and the files that hold them."""

    probe: Probe
    """The numbers."""
    path: Path
    """The numbers as JSON, ``probe-SPLIT.json``; a report of predictions next to it shows them."""
    page: Path
    """The same as a self-contained HTML page."""
    answers: Path
    """Every answer; the same probe again asks only what is missing here."""
    usage: Usage | None = None
    """What a remote model spent on these answers, interrupted runs included; None for a local model."""

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"<medical_vqa.WrittenProbe {self.probe.headline!r}, in {str(self.path)!r}>"

    def __str__(self) -> str:
        return self.probe.headline


def probe(
    loaded: LoadedModel,
    *,
    split: Split,
    out: Path | None = None,
    selection: Selection | None = None,
    limit: int | None = None,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> WrittenProbe:
    """Ask a split with replaced pictures, in other words and in its opposites; an interrupted probe resumes.

    Args:
        loaded: The model.
        split: The split.
        out: File to write, ``….json``; by default ``probe-SPLIT.json`` in the run folder of the model.
        selection: Rows to ask; by default those of the dataset that the model was trained on.
        limit: Ask about so many images, drawn at random; all by default.
        seed: Seed of the replaced pictures and of the drawn images.
        progress: Receives the number of answers and the total.

    Raises:
        ConfigError: The model names no dataset and no `selection` is passed, or the limit is not positive.
        DataError: The dataset is not prepared, or has no such rows.
        ModelError: A remote model cannot be reached; answers so far are kept.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit (limit=) is {limit}; ask about at least one image")
    if selection is None:
        if loaded.card.data is None:
            raise ConfigError(f"{loaded.card.name} names no dataset of its own; pass one (--dataset) to ask about")
        selection = loaded.card.data.selection
    data = SelectedDataset.open(selection)
    path = out or probe_path(loaded.output / "predictions", split)
    if path.suffix == ".html":
        raise ConfigError(f"{path} is the name of the page, which is written next to the numbers; name a .json file")
    require_outside_dataset(path, data.dataset.folder)
    all_rows = data.rows(split)
    images = sampled_images(all_rows, limit, seed)
    rows = [row for row in all_rows if row.image_id in images]
    same, different = other_images(all_rows, seed)
    planned = plan(rows, same, different)
    with describe_disk_errors(path.parent, 0):
        path.parent.mkdir(parents=True, exist_ok=True)
    pictures = _Pictures(data, loaded, same, different, seed)
    pictures.prepare({question.image_id for question in planned.questions.values()})
    answers_file = path.with_suffix(".answers.jsonl")
    record = UsageRecord(answers_file, loaded.usage)
    try:
        key = _key(loaded, data, split, seed)
        answers = _answers(loaded, planned, pictures, answers_file, key, record.watched(progress))
    finally:
        spent = record.write()
    bootstrap = Bootstrap()
    sides, without_side = mirrored_in(planned, answers, bootstrap)
    groups = groups_of(planned, answers, bootstrap)
    result = Probe(
        headline=headline(groups),
        model=AnsweringModel.of_bundle(loaded.card, loaded.bundle.resolve() if loaded.bundle else None),
        dataset=dataset_ref(data, split),
        bootstrap=bootstrap,
        seed=seed,
        images=len(images),
        images_of=len({row.image_id for row in all_rows}),
        images_learned=_images_learned(loaded, data, images),
        questions=len(rows),
        answers=len(planned.questions),
        pictures=REPLACED,
        groups=groups,
        contradictions=contradictions_in(planned, answers, bootstrap),
        paraphrases=paraphrases_in(planned, answers, bootstrap),
        sides=sides,
        mirrored=without_side,
        version=package_version(),
    )
    write_probe(path, result)
    page = path.with_suffix(".html")
    write_probe_page(page, result)
    return WrittenProbe(result, path, page, answers_file, spent)


def _images_learned(loaded: LoadedModel, data: SelectedDataset, images: Iterable[str]) -> int | None:
    """How many of these images the model was trained on; None where its card does not say."""
    learned = learned_images(loaded.card.data, data) if loaded.card.data else None
    return None if learned is None else sum(short_digest(data, image) in learned for image in images)


class _Pictures:
    """The pictures of a probe as a model receives them."""

    def __init__(
        self,
        data: SelectedDataset,
        loaded: LoadedModel,
        same: Mapping[str, Sequence[str]],
        different: Mapping[str, str],
        seed: int,
    ) -> None:
        spec = loaded.model.picture
        self._data, self._same, self._different, self._seed = data, same, different, seed
        self._cache = PictureCache(data.dataset.folder / "pictures", spec) if spec is not None else None

    def prepare(self, images: set[str]) -> None:
        """Decode the images, and those that replace them."""
        if self._cache is not None:
            others = {other for name in images for other in self._same.get(name, ())}
            others |= {self._different[name] for name in images if name in self._different}
            self._cache.ensure(self._data.dataset.images, sorted(images | others))

    def __getitem__(self, question: ProbeQuestion) -> NDArray[np.uint8]:
        if self._cache is None:
            return NO_PICTURE
        image_id = question.image_id
        if question.picture == SHUFFLED:
            image_id = self._same[image_id][question.number]
        if question.picture == OTHER_MODALITY:
            image_id = self._different[image_id]
        picture = self._cache.get(self._data.dataset.images.digest(image_id))
        if question.picture == BLACK:
            return black(picture)
        if question.picture == NOISE:
            return noise(picture, image_id, self._seed)
        return mirrored(picture) if question.picture == MIRRORED else picture


def _answers(
    loaded: LoadedModel,
    planned: Plan,
    pictures: _Pictures,
    file: Path,
    key: str,
    progress: ProgressCallback | None,
) -> dict[str, str]:
    """Id of a question -> its answer; answers that the file has already are not asked for again."""
    answers = _read_answers(file, key)
    missing = [question for question in planned.questions.values() if question.id not in answers]
    done, total = len(planned.questions) - len(missing), len(planned.questions)
    with file.open("a" if answers else "w", encoding="utf-8") as lines:
        if not answers:
            _write_line(lines, {"probe": key})
        batches = (
            [Query(question.id, question.question, _picture_name(question), pictures[question]) for question in batch]
            for batch in _batches(missing, loaded.batch_size)
        )
        for prediction in loaded.model.answer_batches(batches, loaded.card.decoding):
            answers[prediction.id] = prediction.answer
            _write_line(lines, {"id": prediction.id, "answer": prediction.answer, "confidence": prediction.confidence})
            lines.flush()
            done += 1
            if progress is not None:
                progress(done, total)
    return answers


def _batches(questions: Sequence[ProbeQuestion], size: int) -> Iterator[list[ProbeQuestion]]:
    """Batches in which the questions about one picture are together."""
    for batch in image_batches([_picture_name(question) for question in questions], range(len(questions)), size):
        yield [questions[index] for index in batch]


def _picture_name(question: ProbeQuestion) -> str:
    """A name of the picture that a question shows: the same name is the same picture."""
    return f"{question.picture} {question.number}|{question.image_id}"


def _write_line(file: TextIO, row: Mapping[str, object]) -> None:
    file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _read_answers(file: Path, key: str) -> dict[str, str]:
    """The answers of an earlier or interrupted probe of the same model, rows and seed; empty where there is none."""
    if not file.is_file():
        return {}
    text = file.read_text(encoding="utf-8")
    complete = text[: text.rfind("\n") + 1]  # an interrupted probe may end within a line
    try:
        first, *rows = [json.loads(line) for line in complete.splitlines()]
        if first != {"probe": key}:
            return {}
        answers = {row["id"]: row["answer"] for row in rows}
    except (ValueError, KeyError, TypeError):
        return {}
    if len(complete) < len(text):
        file.write_text(complete, encoding="utf-8")
    return answers


def _key(loaded: LoadedModel, data: SelectedDataset, split: Split, seed: int) -> str:
    """What answers depend on, as a digest: model, rows, split and seed."""
    card = loaded.card
    parts = {
        "model": card.name,
        "files": dict(card.files),
        "facts": card.facts.model_dump(mode="json"),
        "decoding": card.decoding.model_dump(mode="json"),
        "manifest": data.manifest.digest,
        "selection": data.selection.model_dump(mode="json", exclude={"root"}),
        "split": split,
        "seed": seed,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
