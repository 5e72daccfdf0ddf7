"""ChestX-ray14: 112,120 frontal chest radiographs with findings from their reports (Wang et al. 2017), as questions.

The dataset has labels and no questions. Each radiograph is asked for every finding and whether it shows any, in the
words of SLAKE, so that models of SLAKE can learn from it too (``recipes/slake-radiographs.yaml``). Two files of it are
read in addition to the images::

    Image Index,Finding Labels,Follow-up #,Patient ID,...     Data_Entry_2017.csv or Data_Entry_2017_v2020.csv
    00000001_001.png,Cardiomegaly|Emphysema,1,1,...

    Image Index,Finding Label,Bbox [x,y,w,h],,,               BBox_List_2017.csv
    00013118_008.png,Atelectasis,225.08,547.02,86.78,79.19,,,

``test_list.txt`` names the test images. The labels were found in reports by rules, with errors of about 10 % (the
authors' estimate).

**SLAKE's radiographs are radiographs of this dataset**: in the 149 of its training and validation rows every box of a
finding is one of the 984 boxes here, to a pixel. So the fact ``box_patient`` says whether the patient of an image has
boxes, and ``where: {box_patient: "no"}`` leaves out all images of these 726 patients, and with them all of SLAKE's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from medical_vqa.data.formats.base import DatasetCard, Published
from medical_vqa.data.formats.building import DatasetBuilder, published_files
from medical_vqa.data.formats.table_files import open_text, table_rows
from medical_vqa.data.formats.values import as_text
from medical_vqa.errors import DataError
from medical_vqa.schema.records import Split
from medical_vqa.text import did_you_mean

FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis", "Hernia",
    "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
)  # fmt: skip
"""Labels of the dataset."""
_NOTHING = "No Finding"
_IMAGE, _LABELS, _PATIENT = "Image Index", "Finding Labels", "Patient ID"
_BOXES, _TEST = "BBox_List_2017.csv", "test_list.txt"
_QUESTIONS = 1 + len(FINDINGS)


@dataclass(frozen=True, slots=True)
class _Radiograph:
    """One row of the table of labels."""

    place: str
    image: str
    findings: frozenset[str]
    patient: str
    view: str


class ChestXray14:
    """The ``chestx-ray14`` dataset."""

    card = DatasetCard(
        name="chestx-ray14",
        title="ChestX-ray14 (2017)",
        license="no restrictions; name the NIH Clinical Center, its download page and the paper (the dataset's README)",
        citation="X. Wang, Y. Peng, L. Lu, Z. Lu, M. Bagheri, R. M. Summers: ChestX-ray8: hospital-scale chest X-ray "
        "database and benchmarks on weakly-supervised classification and localization of common thorax diseases. CVPR "
        "2017, arXiv:1705.02315",
        homepage="https://nihcc.app.box.com/v/ChestXray-NIHCC",
        rows={"train": 86524 * _QUESTIONS, "test": 25596 * _QUESTIONS},
        images=112120,
    )

    def read(self, source: Path) -> Published:
        """Parse the published files; raises `DataError` where a row is not as published.

        Images that are not there, as those of archives that were not downloaded, are left out and counted.
        """
        builder = DatasetBuilder(self.card.name, source)
        labels = _one_file(source, "Data_Entry_2017*.csv", "sample_labels.csv")
        if labels is None:
            raise DataError(f"{source}: expected Data_Entry_2017.csv; name the folder that holds it and the images")
        radiographs = list(_radiographs(builder, labels))
        boxes, tests = _images_with_boxes(builder, source), _test_images(builder, source)
        box_patients = {row.patient for row in radiographs if row.image in (boxes or ())}
        there = {path.rpartition("!")[2].rpartition("/")[2] for path in builder.files.paths()}
        present = [row for row in radiographs if row.image in there]
        if absent := len(radiographs) - len(present):
            builder.notes.append(
                f"{absent:,} of {len(radiographs):,} radiographs have no image here: they are left out"
            )
        for row in present:
            split: Split = "test" if tests is not None and row.image in tests else "train"
            box_patient = "" if boxes is None else "yes" if row.patient in box_patients else "no"
            _ask(builder, split, row, box_patient)
        return builder.published()

    def bundled(self) -> Path | None:
        """None: it does not ship with the package."""
        return None


def _ask(builder: DatasetBuilder, split: Split, row: _Radiograph, box_patient: str) -> None:
    """Add the questions about one radiograph."""
    image_id = builder.image(row.image, row.place)
    questions = {"": ("Are there abnormalities in this image?", bool(row.findings))}
    for finding in FINDINGS:
        name = finding.replace("_", " ").lower()
        questions[name] = (f"Can {name} be observed in this picture?", finding in row.findings)
    for name, (question, yes) in questions.items():
        facts = {
            "answer_type": "CLOSED",
            "content_type": "Abnormality",
            "modality": "X-Ray",
            "location": "Lung",
            "organ": "Chest",
            "language": "en",
            "finding": name,
            "view": row.view,
            "box_patient": box_patient,
        }
        builder.add(
            split,
            question,
            ["Yes" if yes else "No"],
            [image_id],
            row.place,
            number=f"{Path(row.image).stem}-{name.replace(' ', '-') or 'any'}",
            group=f"{builder.name}/patient-{row.patient}",
            facts=facts,
        )


def _radiographs(builder: DatasetBuilder, path: Path) -> Iterator[_Radiograph]:
    """The rows of the table of labels."""
    for place, row in builder.numbered(path, table_rows(path)):
        image, written, patient = (as_text(row.get(column)).strip() for column in (_IMAGE, _LABELS, _PATIENT))
        if not (image and written and patient):
            raise DataError(f"{place}: expected {_IMAGE}, {_LABELS} and {_PATIENT}; get the published file")
        labels = frozenset(written.split("|"))
        if unknown := labels - {*FINDINGS, _NOTHING}:
            advice = did_you_mean(min(unknown), FINDINGS, otherwise="get the published file")
            raise DataError(f"{place}: {min(unknown)!r} is no label of ChestX-ray14; {advice}")
        if _NOTHING in labels and len(labels) > 1:
            raise DataError(f"{place}: is labeled {written!r}, with findings and without; get the published file")
        yield _Radiograph(place, image, labels - {_NOTHING}, patient, as_text(row.get("View Position")))


def _images_with_boxes(builder: DatasetBuilder, source: Path) -> frozenset[str] | None:
    """The images with boxes; None where their list is missing."""
    lost = "no row has the fact box_patient, which says which patients are SLAKE's"
    path = _file_or_note(builder, source, _BOXES, lost)
    if path is None:
        return None
    return frozenset(as_text(row.get(_IMAGE)).strip() for _, row in builder.numbered(path, table_rows(path)))


def _test_images(builder: DatasetBuilder, source: Path) -> frozenset[str] | None:
    """The images of the official test part; None where their list is missing."""
    path = _file_or_note(builder, source, _TEST, "all rows are training rows")
    if path is None:
        return None
    with open_text(path, "a list of images") as lines:
        return frozenset(line.strip() for line in lines)


def _file_or_note(builder: DatasetBuilder, source: Path, name: str, consequence: str) -> Path | None:
    """The file of a name; None where it is missing, with a note of what follows."""
    path = _one_file(source, name)
    if path is None:
        builder.missing.append(name)
        builder.notes.append(f"without {name} {consequence}")
    return path


def _one_file(source: Path, *names: str) -> Path | None:
    """The file of one of these names; None where there is none; raises `DataError` where there are several."""
    paths = [path for name in names for path in published_files(source, name)]
    if len(paths) > 1:
        raise DataError(f"{source} has both {paths[0].name} and {paths[1].name}; keep one of them")
    return paths[0] if paths else None
