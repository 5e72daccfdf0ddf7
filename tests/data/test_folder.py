from __future__ import annotations

import builtins
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.data
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

sys.path.insert(0, str(Path(__file__).parent))
from dicom_files import RAMP, made

from medical_vqa.data.formats.folder import Folder
from medical_vqa.data.formats.pseudonyms import KEY_NAME, Pseudonyms
from medical_vqa.data.imaging.decode import decode_image_file
from medical_vqa.data.imaging.raster import open_image_file
from medical_vqa.data.prepared.dataset import PreparedDataset
from medical_vqa.data.prepared.prepare import prepare
from medical_vqa.errors import DataError, ImageError, MissingDependencyError


def test_a_csv_without_a_split_column_is_all_train(own_folder: Any) -> None:
    folder = own_folder(
        'image,question,answer,organ\n1.png,"Is it, say, broken?",no,chest\n2.png,"Where?\nHere?",left,\n'
    )
    published = Folder().read(folder)
    first, second = published.examples["train"]
    image_id = f"mine/{Pseudonyms.local().of('image', '1.png')}"
    assert (first.id, first.image_id, first.group) == ("mine/train/1", image_id, image_id)
    assert (first.question, first.answers, first.facts) == ("Is it, say, broken?", ("no",), {"organ": "chest"})
    assert (second.question, second.facts) == ("Where?\nHere?", {})
    assert published.read_image(second.image_id).startswith(b"\x89PNG")
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
    folder = own_folder("image,question,answer,image_id\nscan.dcm,What is it?,MRI,scan\n1.png,And this?,X-ray,1\n")
    shutil.copy(Path(pydicom.data.__file__).parent / "test_files/MR_small.dcm", folder / "scan.dcm")
    assert b"CompressedSamples" in (folder / "scan.dcm").read_bytes()  # the patient's name
    manifest = prepare(Folder(), folder, tmp_path / "root", name="mine")
    scan, other = manifest.images["mine/scan"], manifest.images["mine/1"]
    assert (scan.width, scan.height, scan.file[-4:], other.file[-4:]) == (64, 64, ".png", ".png")
    kept = (tmp_path / "root/mine" / scan.file).read_bytes()
    assert kept.startswith(b"\x89PNG")
    assert b"CompressedSamples" not in kept
    picture = np.asarray(PreparedDataset.open("mine", tmp_path / "root").images.load("mine/scan"))
    assert np.array_equal(picture[:, :, 0], decode_image_file(folder / "scan.dcm").pixels[:, :, 0])


def test_rows_about_two_frames_and_windows_of_a_file_have_a_picture_each(own_folder: Any, tmp_path: Path) -> None:
    rows = "series.dcm,a?,yes,0,\nseries.dcm,b?,no,3,\nseries.dcm,c?,no,3,15 30\nseries.dcm,d?,no,3,\n"
    folder = own_folder("image,question,answer,frame,window\n" + rows)
    values = np.stack([np.arange(n, 256 + n, dtype=np.uint16).reshape(16, 16) for n in range(4)])
    (folder / "series.dcm").write_bytes(made(values))
    prepare(Folder(), folder, tmp_path / "root", name="mine")
    data = PreparedDataset.open("mine", tmp_path / "root")
    first, second, third, fourth = data.examples("train")
    assert len({first.image_id, second.image_id, third.image_id}) == 3
    assert second.image_id == fourth.image_id
    assert {"frame", "window"}.isdisjoint(first.facts)
    shown = decode_image_file(folder / "series.dcm", frame=3, window=(15, 30)).pixels[:, :, 0]
    assert np.array_equal(np.asarray(data.images.load(third.image_id))[:, :, 0], shown)
    assert {row.group for row in (first, second, third)} == {first.group}


def test_slices_of_one_patient_are_one_group_whose_name_is_not_the_patients(own_folder: Any) -> None:
    folder = own_folder("image,question,answer\na.dcm,a?,b\nb.dcm,a?,b\nc.dcm,a?,b\nd.dcm,a?,b\n")
    for name, patient in (("a", "PID-1"), ("b", "PID-1"), ("c", "PID-2"), ("d", None)):
        (folder / f"{name}.dcm").write_bytes(made(RAMP, PatientID=patient, StudyInstanceUID="1.2.840.99"))
    groups = [row.group for row in Folder().read(folder).examples["train"]]
    assert groups[0] == groups[1]
    assert len(set(groups)) == 3
    assert groups == [row.group for row in Folder().read(folder).examples["train"]]
    assert all("PID" not in group and "1.2.840.99" not in group for group in groups)


def test_the_key_of_the_hashes_is_its_owners_alone_and_another_key_gives_other_names(
    own_folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDICAL_VQA_HOME", str(tmp_path / "home"))
    assert Pseudonyms.local().of("patient", "1") == Pseudonyms.local().of("patient", "1")
    assert (tmp_path / "home" / KEY_NAME).stat().st_mode & 0o777 == 0o600
    assert Pseudonyms.local().of("patient", "1") != Pseudonyms(b"another").of("patient", "1")


def test_terms_of_a_dicom_header_are_facts_where_the_table_has_no_others(own_folder: Any) -> None:
    folder = own_folder("image,question,answer,modality\na.dcm,a?,b,\na.dcm,c?,d,PET\n")
    header = {"BodyPartExamined": "CHEST", "ViewPosition": "PA", "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    (folder / "a.dcm").write_bytes(made(RAMP, **header))
    first, second = Folder().read(folder).examples["train"]
    assert first.facts == {"modality": "CT", "body_part": "CHEST", "view": "PA", "plane": "axial"}
    assert second.facts["modality"] == "PET"


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "rotated.jpg"])
def test_names_in_a_picture_or_its_path_do_not_reach_the_prepared_folder(
    own_folder: Any, tmp_path: Path, name: str
) -> None:
    folder = own_folder(f"image,question,answer\nDOE_JANE/{name},a?,b\n")
    (folder / "DOE_JANE").mkdir()
    exif, text = Image.Exif(), PngInfo()
    exif[0x010E], exif[0x0112] = "Doe^Jane 19700101", 6 if name == "rotated.jpg" else 1
    text.add_text("Patient", "Doe^Jane 19700101")
    picture = Image.linear_gradient("L").resize((40, 24)).convert("RGB")
    comment = {"comment": b"Doe^Jane"} if name.endswith("jpg") else {}
    options = {"tiffinfo": {270: "Doe^Jane"}} if name == "a.tif" else {"exif": exif, "pnginfo": text, **comment}
    picture.save(folder / "DOE_JANE" / name, **options)
    with (folder / "DOE_JANE" / name).open("ab") as file:
        file.write(b"Doe^Jane")
    manifest = prepare(Folder(), folder, tmp_path / "root", name="mine")
    files = [path for path in (tmp_path / "root").rglob("*") if path.is_file()]
    assert len(files) == 4
    for path in files:
        content = path.read_bytes()
        assert b"Doe^Jane" not in content
        assert b"DOE_JANE" not in content
        assert b"19700101" not in content
    (image_id,) = manifest.images
    prepared = np.asarray(PreparedDataset.open("mine", tmp_path / "root").images.load(image_id))
    assert np.array_equal(prepared, np.asarray(open_image_file(folder / "DOE_JANE" / name)))


def test_every_unreadable_image_is_listed_and_can_be_skipped(own_folder: Any, tmp_path: Path) -> None:
    rows = "1.png,a?,b\n2.png,c?,d\ngone.png,e?,f\n2.png,g?,h\n"
    folder = own_folder("image,question,answer\n" + rows)
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:60])
    with pytest.raises(ImageError, match=r"(?s)2 images cannot be read; .* 3 rows .*mine/train/2 .*2\.png.*gone\.png"):
        prepare(Folder(), folder, tmp_path / "root")
    assert not (tmp_path / "root").exists()
    manifest = prepare(Folder(), folder, tmp_path / "root", skip_unreadable=True)
    assert (manifest.counts, len(manifest.images)) == ({"train": 1}, 1)
    assert manifest.notes == (
        "images that cannot be read: 2, left out with 3 rows: mine/train/2, mine/train/3, mine/train/4",
    )
    assert prepare(Folder(), folder, tmp_path / "root", skip_unreadable=True) == manifest


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
        ("image,question,answer,frame\n1.png,a?,b,x\n", "row 1: frame is 'x'; write a whole number"),
        ("image,question,answer,window\n1.png,a?,b,40\n", "row 1: window is '40'; write a center and a width"),
        ("image,question,answer,window\n1.png,a?,b,40 0\n", "row 1: window is '40 0'; write a center and a width"),
        ("image,question,answer,image_id\n1.png,a?,b,x\n2.png,c?,d,x\n", "is that of another picture; choose another"),
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
        ("[]", "expected an object, got a list"),
        ('{"image": "1.png", "question": "a?", "answer": {"a": 1}}', "answer is an object, expected text or a number"),
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


def test_images_that_are_still_in_an_archive_are_to_be_unpacked(own_folder: Any) -> None:
    folder = own_folder("image,question,answer\nscans/9.png,a?,yes\n")
    shutil.make_archive(str(folder / "scans"), "zip", folder, "1.png")
    published = Folder().read(folder)
    with pytest.raises(
        ImageError,
        match=r"9\.png: expected a picture, but it does not exist; unpack scans\.zip there, or correct its path",
    ):
        published.read_image(published.examples["train"][0].image_id)


def test_no_questions_and_two_sets_of_questions_are_refused(own_folder: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none is there; write one with the columns image, question and answer"):
        Folder().read(tmp_path)
    own_folder("", "jsonl")
    with pytest.raises(DataError, match=r"has both questions\.csv and questions\.jsonl"):
        Folder().read(own_folder(""))
