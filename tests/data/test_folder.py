from __future__ import annotations

import builtins
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.data
import pytest

from medical_vqa.data.formats.folder import Folder
from medical_vqa.data.imaging.decode import decode_image_file
from medical_vqa.data.prepared.dataset import PreparedDataset
from medical_vqa.data.prepared.prepare import prepare
from medical_vqa.errors import DataError, MissingDependencyError


def test_a_csv_without_a_split_column_is_all_train(own_folder: Any) -> None:
    folder = own_folder(
        'image,question,answer,organ\n1.png,"Is it, say, broken?",no,chest\n2.png,"Where?\nHere?",left,\n'
    )
    published = Folder().read(folder)
    first, second = published.examples["train"]
    assert (first.id, first.image_id, first.group) == ("mine/train/1", "mine/1.png", "mine/1.png")
    assert (first.question, first.answers, first.facts) == ("Is it, say, broken?", ("no",), {"organ": "chest"})
    assert (second.question, second.facts) == ("Where?\nHere?", {})
    assert published.read_image("mine/2.png").startswith(b"\x89PNG")
    assert Folder().bundled() is None


def test_columns_and_splits_are_known_by_their_usual_names(own_folder: Any) -> None:
    header = "\ufeffImage,Question,Answer,Split,Group,Id\n"
    published = Folder().read(
        own_folder(header + "1.png,a?,yes,Val,p1,q1\n2.png,b?,,test,,q2\n1.png,c?,no,train,p1,q3\n")
    )
    assert {split: [e.id for e in rows] for split, rows in published.examples.items()} == {
        "validation": ["q1"],
        "test": ["q2"],
        "train": ["q3"],
    }
    assert published.examples["validation"][0].group == "p1"
    assert published.examples["test"][0].answers == ()


def test_json_lines_may_have_several_accepted_answers(own_folder: Any) -> None:
    several = '{"image": "1.png", "question": "a?", "answer": ["X-ray", "radiograph"], "age": 61}'
    number = '{"image": "2.png", "question": "b?", "answer": 3}'
    first, second = Folder().read(own_folder(f"{several}\n\n{number}\n", "jsonl")).examples["train"]
    assert (first.answers, first.facts) == (("X-ray", "radiograph"), {"age": "61"})
    assert second.answers == ("3",)


def test_parquet_is_read_and_its_empty_cells_are_no_facts(own_folder: Any) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    folder = own_folder("", "csv")
    (folder / "questions.csv").unlink()
    table = pa.table(
        {
            "image": ["1.png", "2.png"],
            "question": ["a?", "b?"],
            "answer": [["yes"], ["no", "none"]],
            "dose": [1.5, float("nan")],
        }
    )
    parquet.write_table(table, folder / "questions.parquet")
    first, second = Folder().read(folder).examples["train"]
    assert (first.facts, second.answers, second.facts) == ({"dose": "1.5"}, ("no", "none"), {})
    (folder / "questions.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="is not a complete parquet file"):
        Folder().read(folder)


def test_parquet_without_pyarrow_says_what_to_install(own_folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = own_folder("", "parquet")
    whole = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return whole(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r"pip install 'medical-vqa\[parquet\]'"):
        Folder().read(folder)


def test_of_a_dicom_file_the_picture_is_prepared_and_not_the_header(own_folder: Any, tmp_path: Path) -> None:
    folder = own_folder("image,question,answer\nscan.dcm,What is it?,MRI\n1.png,And this?,X-ray\n")
    shutil.copy(Path(pydicom.data.__file__).parent / "test_files/MR_small.dcm", folder / "scan.dcm")
    assert b"CompressedSamples" in (folder / "scan.dcm").read_bytes()  # the patient's name
    manifest = prepare(Folder(), folder, tmp_path / "root", name="mine")
    scan, other = manifest.images["mine/scan.dcm"], manifest.images["mine/1.png"]
    assert (scan.width, scan.height, scan.file[-4:], other.file[-4:]) == (64, 64, ".png", ".png")
    kept = (tmp_path / "root/mine" / scan.file).read_bytes()
    assert kept.startswith(b"\x89PNG")
    assert b"CompressedSamples" not in kept
    picture = np.asarray(PreparedDataset.open("mine", tmp_path / "root").images.load("mine/scan.dcm"))
    assert np.array_equal(picture[:, :, 0], decode_image_file(folder / "scan.dcm").pixels[:, :, 0])


HEADER = "image,question,answer\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imge,question,answer\n1.png,a?,b\n", r"row 1: there is no column 'image' \(there is 'imge'\)"),
        ("image,question,anser\n1.png,a?,b\n", r"there is no column 'answer' \(there is 'anser'\)"),
        ("image,question,answer,answer\n1.png,a?,b,c\n", "column 'answer' occurs twice"),
        (HEADER + "1.png,a?\n", "row 1: has 2 cells, the header has 3"),
        (HEADER + "1.png,a?,b\n1.png,c?,\n", r"questions\.csv row 2: the answer is empty"),
        (HEADER + "1.png,,b\n", "row 1: question is empty"),
        (HEADER + "../1.png,a?,b\n", "leads out of the dataset's folder"),
        (HEADER + "C:/1.png,a?,b\n", "leads out of the dataset's folder"),
        (HEADER + '1.png,"a?,b\n', "is not proper CSV"),
        ("image,question,answer,split\n1.png,a?,b,holdout\n", "split is 'holdout'; write train, validation or test"),
        (
            "image,question,answer,id\n1.png,a?,b,x\n1.png,c?,b,x\n",
            r"row 2: id 'x' is already used by questions\.csv row 1",
        ),
    ],
)
def test_a_csv_that_cannot_be_right_is_refused(own_folder: Any, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Folder().read(own_folder(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"questions\.jsonl:1: is not JSON"),
        ("[]", "expected an object, got list"),
        ('{"image": "1.png", "question": "a?", "answer": {"a": 1}}', "answer is dict, expected text or a number"),
        ('{"image": "1.png", "question": "a?", "answer": []}', "the answer is empty"),
    ],
)
def test_json_lines_that_cannot_be_right_are_refused(own_folder: Any, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Folder().read(own_folder(text, "jsonl"))


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_text_that_is_not_utf8_is_refused(own_folder: Any, ending: str) -> None:
    folder = own_folder("", ending)
    (folder / f"questions.{ending}").write_bytes(b"image\xff")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        Folder().read(folder)


def test_no_questions_and_two_sets_of_questions_are_refused(own_folder: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none is there; write one with the columns image, question and answer"):
        Folder().read(tmp_path)
    own_folder("", "jsonl")
    with pytest.raises(DataError, match=r"has both questions\.csv and questions\.jsonl"):
        Folder().read(own_folder(""))
