"""Sources that are not as published: read as meant, or refused in one sentence before anything is written."""

from __future__ import annotations

import base64
import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medical_vqa.data.cache.regions import FULL, RegionStore
from medical_vqa.data.prepared.dataset import PreparedDataset
from medical_vqa.errors import DataError, ImageError
from medical_vqa.pipelines.prepare import prepare_dataset
from medical_vqa.schema.records import Example, Split

Files = dict[str, Any]


def png(shade: int = 0) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (32, 32), (shade, 60, 60)).save(data, "PNG")
    return data.getvalue()


def content(value: Any, name: str) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if name.endswith(".jsonl"):
        return "".join(json.dumps(row) + "\n" for row in value).encode()
    if name.endswith(".pkl"):
        return pickle.dumps(value)
    if name.endswith(".parquet"):
        import pyarrow as pa
        from pyarrow import parquet

        out = io.BytesIO()
        parquet.write_table(pa.Table.from_pylist(value), out)
        return out.getvalue()
    return json.dumps(value).encode()


def prepared(layout: str, folder: Path, files: Files, **options: Any) -> PreparedDataset:
    for name, value in files.items():
        path = folder / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(value, name))
    return prepare_dataset(layout, source=folder / "source", root=folder / "root", partial=True, **options)


def rows_of(dataset: PreparedDataset, split: Split = "train") -> list[Example]:
    rows: list[Example] = dataset.examples(split)
    return rows


def refused(layout: str, folder: Path, files: Files, **options: Any) -> str:
    """The message, which is one line, of a preparation that writes nothing."""
    with pytest.raises(DataError) as error:
        prepared(layout, folder, files, **options)
    assert not list((folder / "root").rglob("*"))
    message = str(error.value)
    assert message.isprintable()
    assert "; " in message  # what is wrong, and what to do
    return message


SLAKE = {
    "img_id": 1, "img_name": "xmlab1/source.jpg", "question": "What modality is used?", "answer": "MRI",
    "q_lang": "en", "location": "Abdomen", "modality": "MRI", "answer_type": "OPEN", "base_type": "vqa",
    "content_type": "Modality", "triple": ["vhead", "_", "_"], "qid": 0,
}  # fmt: skip
VQA_RAD = {
    "qid": "0", "phrase_type": "freeform", "image_name": "synpic1.jpg", "image_organ": "HEAD",
    "question": "How many?", "question_type": "COUNT", "answer": "2", "answer_type": "OPEN",
}  # fmt: skip
MEVF = {**VQA_RAD, "qid": 1}
OMNI = {
    "dataset": "ACRIMA", "question_id": "acrima_1", "question_type": "Modality", "question": "What is it?",
    "gt_answer": "Fundus", "image_path": "Images/ACRIMA/1.png", "option_A": "Fundus", "option_B": "CT",
    "modality_type": "Fundus",
}  # fmt: skip
MEDXPERT = {
    "id": "MM-1", "question": "What is it?", "options": {"A": "Fracture", "B": "Tumor"}, "label": "B",
    "images": ["1.png"],
}  # fmt: skip
MEDFRAME = {
    "question": "Which frame?", "options": ["first", "second"], "correct_answer": "B",
    "image_1": {"bytes": png(1), "path": None}, "image_2": {"bytes": png(2), "path": None},
}  # fmt: skip
PMC_HEADER = "index,Figure_path,Caption,Question,Choice A,Choice B,Choice C,Choice D,Answer,split\n"
FLAT = {"image": "1.png", "question": "What is shown?", "answer": "lung"}
KVASIR = {"img_id": "1", "question": "What is shown?", "answer": "polyp"}
ABOUT = {"answer_type": "single_choice", "options": ["yes", "no"], "path": "lung_signs"}
MAPPING = "id_to_img_mapping_frontal_reports.json"
QUESTION = {"question_id": 1, "image_id": 1, "question": "What is shown?"}
ANNOTATION = {"question_id": 1, "image_id": 1, "answers": [{"answer": "lung"}]}


def slake(**changes: Any) -> Files:
    return {"train.json": [{**SLAKE, **changes}], "imgs/xmlab1/source.jpg": png()}


def one_row(layout: str, changes: dict[str, Any]) -> Files:
    """A source of one row with other values of its question and answer."""
    question, answer = changes.get("question", "What is shown?"), changes.get("answer", "lung")
    flat = {**FLAT, **changes}
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    pairs = [[question, answer, [], ABOUT]]
    sources: dict[str, Files] = {
        "vqa-rad-mevf": {"trainset.json": [{**MEVF, **changes}], "synpic1.jpg": png()},
        "path-vqa": {"train_qas.pkl": [{**flat, "image": "1"}], "1.png": png()},
        "kvasir-vqa-x1": {"x1-train.jsonl": [{**KVASIR, **changes}], "1.png": png()},
        "rad-restruct": {MAPPING: {"100": ["1"]}, "train_qa_pairs/100.json": pairs, "images/1.png": png()},
        "coco-vqa": {
            "train_questions.json": {"questions": [{**QUESTION, "question": question}]},
            "train_annotations.json": {"annotations": [{**ANNOTATION, "answers": [answer]}]},
            "1.png": png(),
        },
        "messages": {"train.jsonl": [{"messages": turns, "images": ["1.png"]}], "1.png": png()},
        "table": {"train.jsonl": [flat], "1.png": png()},
        "folder": {"questions.jsonl": [flat], "1.png": png()},
    }
    return sources[layout]


LAYOUTS = (
    "vqa-rad-mevf", "path-vqa", "kvasir-vqa-x1", "rad-restruct", "coco-vqa", "messages", "table", "folder",
)  # fmt: skip


# --- questions and answers of another type ----------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("answer", "text"), [(2, "2"), (2.0, "2"), (0.5, "0.5"), (True, "yes"), (False, "no")])
def test_a_number_is_an_answer_without_decimals_and_true_is_yes(
    layout: str, answer: Any, text: str, tmp_path: Path
) -> None:
    (row,) = rows_of(prepared(layout, tmp_path, one_row(layout, {"answer": answer})))
    assert row.answers == (text,)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_object_is_no_answer_unless_it_has_a_text(layout: str, tmp_path: Path) -> None:
    message = refused(layout, tmp_path, one_row(layout, {"answer": {"left": 1, "right": 2}}))
    assert "an object" in message
    assert "write it as text" in message


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("question", [None, " ", True, {"a": 1, "b": 2}, ["first?", "second?"]])
def test_what_is_no_text_is_no_question(layout: str, question: Any, tmp_path: Path) -> None:
    assert "question" in refused(layout, tmp_path, one_row(layout, {"question": question}))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_half_of_a_character_is_refused_before_anything_is_written(layout: str, tmp_path: Path) -> None:
    message = refused(layout, tmp_path, one_row(layout, {"answer": "lung \ud83d"}))
    assert r"'\ud83d', which is half of a character" in message


def test_half_of_a_character_in_the_name_of_an_image_is_refused(tmp_path: Path) -> None:
    message = refused("folder", tmp_path, {"questions.jsonl": [{**FLAT, "image": "\ud83d.png"}]})
    assert "has a character that no file name can have" in message


@pytest.mark.parametrize("value", [2.0, 2])
def test_a_whole_number_with_decimals_is_one_in_slake_and_vqa_rad(value: Any, tmp_path: Path) -> None:
    (row,) = rows_of(prepared("slake", tmp_path / "slake", slake(answer=value, qid=value)))
    assert (row.answers, row.id) == (("2",), "slake/train/2")
    files = {"VQA_RAD Dataset Public.json": [{**VQA_RAD, "answer": value}], "VQA_RAD Image Folder/synpic1.jpg": png()}
    (row,) = rows_of(prepared("vqa-rad", tmp_path / "rad", files))
    assert row.answers == ("2",)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [(2.5, "a number"), (None, "null"), (True, "true"), ({"a": 1}, "an object"), (["MRI"], "a list")],
)
def test_messages_name_a_type_as_json_does(answer: Any, kind: str, tmp_path: Path) -> None:
    assert f"field 'answer' is {kind}, expected text" in refused("slake", tmp_path, slake(answer=answer))


def test_numbers_of_a_parquet_column_with_gaps_have_no_decimals(tmp_path: Path) -> None:
    rows = [{**FLAT, "id": 7.0, "group": 3.0, "answer": 2.0}, {**FLAT, "id": None, "group": None, "answer": 1.0}]
    first, second = rows_of(prepared("folder", tmp_path, {"questions.parquet": rows, "1.png": png()}))
    assert (first.id, first.group, first.answers) == ("7", "3", ("2",))
    assert second.answers == ("1",)


# --- multiple choice --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "files"),
    [
        ("pmc-vqa", {"test_2.csv": PMC_HEADER + "0,1.png,,,Lung,Liver,Heart,Brain,B,test\n", "1.png": png()}),
        ("omnimedvqa", {"a.json": [{**OMNI, "question": None}], "Images/ACRIMA/1.png": png()}),
        ("medxpertqa-mm", {"MM/test.jsonl": [{**MEDXPERT, "question": " "}], "1.png": png()}),
        ("medframeqa", {"test.parquet": [{**MEDFRAME, "question": ""}]}),
        ("vlmevalkit", {"x_TEST.tsv": "index\timage\tquestion\tA\tB\tanswer\n0\t1.png\t\ta\tb\tA\n", "1.png": png()}),
    ],
)
def test_choices_without_a_question_are_no_question(layout: str, files: Files, tmp_path: Path) -> None:
    assert "the question is empty" in refused(layout, tmp_path, files)


@pytest.mark.parametrize("options", [None, 3, True, "first or second"])
def test_choices_that_are_no_list_are_refused(options: Any, tmp_path: Path) -> None:
    files: Files = {"MM/test.jsonl": [{**MEDXPERT, "options": options}], "1.png": png()}
    assert "expected the choices as a list" in refused("medxpertqa-mm", tmp_path / "a", files)
    files = {"test.parquet": [{**MEDFRAME, "options": options}]}
    assert "expected the choices as a list" in refused("medframeqa", tmp_path / "b", files)


@pytest.mark.parametrize("options", [["first", "second"], {"A": "first", "B": "second"}, "['first', 'second']"])
def test_choices_are_read_from_lists_objects_and_lists_in_a_cell(options: Any, tmp_path: Path) -> None:
    (row,) = rows_of(prepared("medframeqa", tmp_path, {"test.parquet": [{**MEDFRAME, "options": options}]}), "test")
    assert (row.question, row.answers) == ("Which frame?\nA. first\nB. second", ("second", "B"))


def test_a_question_without_choices_is_refused(tmp_path: Path) -> None:
    files = {"MM/test.jsonl": [{**MEDXPERT, "options": {}}], "1.png": png()}
    assert "has no choices" in refused("medxpertqa-mm", tmp_path, files)


def test_one_name_in_place_of_a_list_of_images_is_that_image(tmp_path: Path) -> None:
    files = {"MM/test.jsonl": [{**MEDXPERT, "images": "1.png"}], "1.png": png()}
    (row,) = rows_of(prepared("medxpertqa-mm", tmp_path, files), "test")
    assert row.images == ("medxpertqa-mm/1.png",)


def test_a_frame_that_is_missing_before_another_is_refused(tmp_path: Path) -> None:
    files = {"test.parquet": [{**MEDFRAME, "image_1": None}]}
    assert "has image_2 without one before it" in refused("medframeqa", tmp_path, files)


def test_an_index_in_place_of_an_image_is_that_of_a_row_of_the_same_file(tmp_path: Path) -> None:
    header, image = "index\timage\tquestion\tanswer\n", base64.b64encode(png() * 20).decode()
    files = {"a_TEST.tsv": f"{header}0\t{image}\tWhat?\tlung\n", "b_VAL.tsv": f"{header}1\t0\tWhat?\tliver\n"}
    assert "b_VAL.tsv row 1: there is no image '0'" in refused("vlmevalkit", tmp_path, files)


@pytest.mark.parametrize("cell", ["[a, b", "[a, b]", "['1.png'"])
def test_a_list_of_images_that_is_cut_off_is_refused(cell: str, tmp_path: Path) -> None:
    files = {"x_TEST.tsv": f"index\timage\tquestion\tanswer\n0\t{cell}\tWhat?\tlung\n", "1.png": png()}
    assert "x_TEST.tsv row 1: there is no image" in refused("vlmevalkit", tmp_path, files)


# --- COCO -------------------------------------------------------------------------------------------------------------


def coco(**lists: Any) -> Files:
    """Files such as ``train_questions.json``, and an image for each split."""
    files: Files = {f"{name}.json": {name.rpartition("_")[2]: rows} for name, rows in lists.items()}
    return {**files, "COCO_train2014_0001.png": png(1), "COCO_val2014_0001.png": png(2)}


def test_splits_of_coco_may_count_from_the_same_number(tmp_path: Path) -> None:
    files = coco(
        train_questions=[QUESTION],
        val_questions=[QUESTION],
        train_annotations=[ANNOTATION],
        val_annotations=[{**ANNOTATION, "answers": ["liver"]}],
    )
    dataset = prepared("coco-vqa", tmp_path, files)
    (train,), (validation,) = rows_of(dataset), rows_of(dataset, "validation")
    assert (train.answers, validation.answers) == (("lung",), ("liver",))
    assert [row.image_id for row in (train, validation)] == [
        "coco-vqa/COCO_train2014_0001.png",
        "coco-vqa/COCO_val2014_0001.png",
    ]


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train_annotations": [{"image_id": 1, "answers": []}]}, "annotations 1: expected an object with question_id"),
        ({"train_annotations": [None]}, "annotations 1: expected an object with question_id"),
        ({"train_annotations": {"1": "lung"}}, "expected annotations as a list, got an object"),
        ({"train_annotations": [ANNOTATION, ANNOTATION]}, "question_id 1 occurs twice"),
        ({"train_annotations": [{**ANNOTATION, "image_id": 2}]}, "is about image 1, and its annotation about 2"),
        ({"train_images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]}, "id 1 occurs twice"),
        ({"train_questions": None}, "expected questions as a list, got null"),
    ],
)
def test_annotations_that_cannot_be_joined_are_refused(lists: Files, message: str, tmp_path: Path) -> None:
    assert message in refused("coco-vqa", tmp_path, coco(**{"train_questions": [QUESTION], **lists}))


def test_an_image_number_or_an_id_of_two_splits_is_not_guessed(tmp_path: Path) -> None:
    assert "2 images have its number" in refused("coco-vqa", tmp_path / "a", coco(my_questions=[QUESTION]))
    files = coco(my_questions=[QUESTION], train_annotations=[ANNOTATION], val_annotations=[ANNOTATION])
    assert "in the files of train and validation" in refused("coco-vqa", tmp_path / "b", files)


def test_annotations_and_files_that_are_left_out_are_noted(tmp_path: Path) -> None:
    files = coco(train_questions=[QUESTION], train_annotations=[ANNOTATION, {**ANNOTATION, "question_id": 9}])
    notes = prepared("coco-vqa", tmp_path, {**files, "val_answers.json": [ANNOTATION]}).manifest.notes
    assert notes == (
        "val_answers.json has no list of questions, annotations or images: it is not read",
        "1 annotations are of questions that are not there, such as 9: they are left out",
    )


@pytest.mark.parametrize(("answers", "text"), [("lung", "lung"), (2.0, "2")])
def test_one_answer_in_place_of_a_list_is_that_answer(answers: Any, text: str, tmp_path: Path) -> None:
    files = coco(train_questions=[QUESTION], train_annotations=[{**ANNOTATION, "answers": answers}])
    assert rows_of(prepared("coco-vqa", tmp_path, files))[0].answers == (text,)


def test_of_an_annotation_without_a_list_the_most_frequent_answer_is_read(tmp_path: Path) -> None:
    annotation = {**ANNOTATION, "answers": None, "multiple_choice_answer": "lung"}
    files = coco(train_questions=[QUESTION], train_annotations=[annotation])
    assert rows_of(prepared("coco-vqa", tmp_path, files))[0].answers == ("lung",)


# --- Rad-ReStruct and VQA-Med -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mapping", "pairs", "message"),
    [
        ([], [], "expected an object of report -> images, got a list"),
        ({"100": ["1"]}, None, "expected a JSON list of rows, got null"),
        ({"100": ["1"]}, [[None, ["yes"], [["Earlier?", ["no"]]], ABOUT]], "the question is empty"),
        ({"100": ["1"]}, [["Any?", ["yes"], None, ABOUT]], "expected the history as a list"),
        ({"100": ["1"]}, [["Any?", ["yes"], ["no list"], ABOUT]], "expected the history as a list"),
    ],
)
def test_a_report_that_is_not_as_published_is_refused(mapping: Any, pairs: Any, message: str, tmp_path: Path) -> None:
    files = {MAPPING: mapping, "train_qa_pairs/100.json": pairs, "images/1.png": png()}
    assert message in refused("rad-restruct", tmp_path, files)


def test_reports_without_an_image_are_noted(tmp_path: Path) -> None:
    pairs = [["Any?", ["yes"], [], ABOUT]]
    files = {
        MAPPING: {"100": "1"},
        "train_qa_pairs/100.json": pairs,
        "train_qa_pairs/101.json": pairs,
        "images/1.png": png(),
    }
    dataset = prepared("rad-restruct", tmp_path, files)
    assert [row.image_id for row in rows_of(dataset)] == ["rad-restruct/images/1.png"]
    assert dataset.manifest.notes == (
        f"1 reports have no image in {MAPPING}, such as train_qa_pairs/101.json: their questions are left out",
    )


TRAIN, TEST = "VQAnswering_2020_Train_QA_pairs.txt", "Task1-VQA-2021-TestSet-Questions.txt"
REFERENCES = "Task1-VQA-2021-TestSet-ReferenceAnswers.txt"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({TRAIN: "a damaged line\nsynpic1|what?|a\n"}, "row 1: has 1 cells; expected image|question|answer"),
        ({TEST: "synpic1|what?\n", REFERENCES: "synpic1|a\nsynpic1|b\n"}, "'synpic1' has other answers in another row"),
        (
            {TEST: "synpic1|what?\nsynpic1|where?\n", REFERENCES: "synpic1|a\n"},
            "row 2: 'synpic1' has a second question",
        ),
    ],
)
def test_lines_that_cannot_be_joined_are_refused(files: Files, message: str, tmp_path: Path) -> None:
    assert message in refused("vqa-med-2020", tmp_path, {**files, "synpic1.jpg": png()})


def test_reference_answers_without_a_question_are_noted(tmp_path: Path) -> None:
    files = {TEST: "synpic1|what?\n", REFERENCES: "synpic1|a\nsynpic9|b\n", "synpic1.jpg": png()}
    assert prepared("vqa-med-2020", tmp_path, files).manifest.notes == (
        "1 reference answers are of images without a question, such as synpic9: they are left out",
    )


def test_a_line_ends_where_the_file_says_so(tmp_path: Path) -> None:
    files = {TRAIN: "synpic1|is this\x0c a\u2028 ct?|yes\r\nsynpic1|which plane?|axial\r\n", "synpic1.jpg": png()}
    assert [row.answers for row in rows_of(prepared("vqa-med-2020", tmp_path, files))] == [("yes",), ("axial",)]


# --- conversations ----------------------------------------------------------------------------------------------------


def turns(*contents: Any, **fields: Any) -> Files:
    roles = ("user", "assistant") * len(contents)
    messages = [{"role": role, "content": one} for role, one in zip(roles, contents, strict=False)]
    return {"data.jsonl": [{"messages": messages, "images": ["1.png"], **fields}], "1.png": png()}


def test_questions_that_end_a_conversation_are_counted(tmp_path: Path) -> None:
    dataset = prepared("messages", tmp_path, turns("<image>What?", "lung", "And what else?"))
    assert [row.question for row in rows_of(dataset)] == ["What?"]
    assert dataset.manifest.notes == ("1 questions end their conversation without an answer: they are left out",)


def test_a_split_that_is_none_is_not_train(tmp_path: Path) -> None:
    message = refused("messages", tmp_path, turns("<image>What?", "lung", split="held-out"))
    assert "row 1: split is 'held-out'; write train, validation or test" in message


def test_no_part_of_a_message_is_lost(tmp_path: Path) -> None:
    parts = ["Look: ", {"type": "image"}, "what is it?"]
    (row,) = rows_of(prepared("messages", tmp_path / "a", turns(parts, "lung")))
    assert row.question == "Look: what is it?"
    audio = [{"type": "image"}, {"type": "audio", "audio": "a.wav"}, {"type": "text", "text": "What?"}]
    message = refused("messages", tmp_path / "b", turns(audio, "lung"))
    assert "expected the parts of a turn to be text and images" in message


# --- tables -----------------------------------------------------------------------------------------------------------


def test_a_column_that_the_first_row_lacks_is_read(tmp_path: Path) -> None:
    rows = [{"image": "1.png", "question": "What?"}, FLAT]
    first, second = rows_of(prepared("table", tmp_path / "a", {"q.jsonl": rows, "1.png": png()}))
    assert (first.answers, second.answers) == ((), ("lung",))
    rows = [{"image": "1.png", "question": "What?"}, {"image": "1.png", "question": "What?", "gold": "lung"}]
    dataset = prepared("table", tmp_path / "b", {"q.jsonl": rows, "1.png": png()}, columns={"answer": "gold"})
    assert rows_of(dataset)[1].answers == ("lung",)


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("q.jsonl", [FLAT, {"image": "1.png"}], "q.jsonl row 2: there is no column 'question'; it has image"),
        ("q.jsonl", [FLAT, {}], "q.jsonl row 2: there is no column 'image'; it has none"),
        ("q.csv", "image,question,answer\n1.png,What?,lung\n1.png,Wh", "q.csv row 2: is cut off after 2 of 3 cells"),
        ("q.json", {"train": [FLAT], "test": [FLAT]}, "holds several lists of rows (train and test)"),
        ("q.json", json.dumps(FLAT, indent=1) + "\n" + json.dumps(FLAT), "name a file of JSON lines .jsonl"),
        ("q.json", [FLAT, None], "q.json row 2: expected an object, got null"),
        ("q.json", None, "expected a list of objects, one per row, got null"),
    ],
)
def test_a_table_that_is_not_whole_is_refused(name: str, rows: Any, message: str, tmp_path: Path) -> None:
    assert message in refused("table", tmp_path, {name: rows, "1.png": png()})


def test_empty_cells_at_the_end_of_a_row_may_be_left_out_as_excel_does(tmp_path: Path) -> None:
    files = {"q.csv": "image,question,answer,answer_type\n1.png,What?,lung\n1.png,Which?,liver,OPEN\n", "1.png": png()}
    assert [row.answers for row in rows_of(prepared("table", tmp_path, files))] == [("lung",), ("liver",)]


def test_a_column_that_no_row_has_is_refused(tmp_path: Path) -> None:
    message = refused("table", tmp_path, {"q.jsonl": [FLAT], "1.png": png()}, columns={"answer": "gold"})
    assert message.startswith("q.jsonl: --columns answer=gold: there is no such column")


def test_a_file_without_rows_is_noted(tmp_path: Path) -> None:
    files = {"train.jsonl": [FLAT], "test.jsonl": "\n", "1.png": png()}
    assert "test.jsonl has no rows" in prepared("table", tmp_path, files).manifest.notes


def test_a_message_of_another_library_is_one_line(tmp_path: Path) -> None:
    data = content([FLAT], "q.parquet")
    refused("table", tmp_path, {"q.parquet": data[:-12] + b"\n\x00\n\x0f" + data[-8:], "1.png": png()})


@pytest.mark.parametrize("data", [b"0.", b"h\x05.", b"(dp0\n(lp1\nI1\ns.", b"Pabc\n.", b"cnumpy\nndarray\n."])
def test_a_pickle_of_anything_else_is_refused(data: bytes, tmp_path: Path) -> None:
    assert "train_qas.pkl: " in refused("path-vqa", tmp_path, {"train_qas.pkl": data})


def test_a_folder_that_is_named_like_a_file_is_none(tmp_path: Path) -> None:
    (tmp_path / "source/test_qas.pkl").mkdir(parents=True)
    dataset = prepared("path-vqa", tmp_path, {"train_qas.pkl": [{**FLAT, "image": "1"}], "1.png": png()})
    assert dataset.splits == ("train",)


# --- images -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["table", "messages", "path-vqa", "kvasir-vqa-x1", "coco-vqa", "vqa-rad-mevf"])
def test_images_that_are_missing_are_listed_together_or_left_out_with_their_rows(layout: str, tmp_path: Path) -> None:
    files = one_row(layout, {})
    name = next(name for name in files if not isinstance(files[name], bytes))
    rows = files[name]["questions"] if layout == "coco-vqa" else files[name]
    changes: dict[str, tuple[dict[str, Any], ...]] = {
        "table": ({"image": "8.png"}, {"image": "9.png"}),
        "messages": ({"images": ["8.png"]}, {"images": ["9.png"]}),
        "path-vqa": ({"image": "8"}, {"image": "9"}),
        "kvasir-vqa-x1": ({"img_id": "8"}, {"img_id": "9"}),
        "coco-vqa": ({"image_id": 8, "question_id": 8}, {"image_id": 9, "question_id": 9}),
        "vqa-rad-mevf": ({"image_name": "8.jpg", "qid": 8}, {"image_name": "9.jpg", "qid": 9}),
    }
    rows += [{**rows[0], **change} for change in changes[layout]]
    with pytest.raises(ImageError, match="2 images cannot be read") as error:
        prepared(layout, tmp_path, files)
    assert len(str(error.value).splitlines()) == 3
    assert "row 2: there is no image '8" in str(error.value)
    assert not list((tmp_path / "root").rglob("*"))
    dataset = prepared(layout, tmp_path, files, skip_unreadable=True)
    assert len(rows_of(dataset)) == 1
    assert dataset.manifest.notes[-1].startswith("images that cannot be read: 2, left out with 2 rows")


def test_an_image_of_another_folder_is_not_read_for_one_that_is_missing(tmp_path: Path) -> None:
    rows = [OMNI, {**OMNI, "question_id": "other_1", "image_path": "Images/Other/1.png"}]
    for name, one in {"a": rows, "b": rows[::-1]}.items():
        message = refused("omnimedvqa", tmp_path / name, {"QA.json": one, "Images/ACRIMA/1.png": png()})
        assert "there is no image 'Images/Other/1.png'" in message


def test_images_that_are_found_in_another_folder_are_noted(tmp_path: Path) -> None:
    files = {"q.jsonl": [{**FLAT, "image": "/home/me/scans/1.png"}], "images/1.png": png()}
    notes = prepared("table", tmp_path, files).manifest.notes
    assert (
        "1 images are in another folder than the rows name, such as '/home/me/scans/1.png', which is read from "
        "images/1.png: check that they are the same"
    ) in notes


def test_of_images_that_differ_by_capitals_each_row_has_its_own(tmp_path: Path) -> None:
    files = {"q.jsonl": [FLAT | {"image": "a.png"}, FLAT | {"image": "A.png"}], "a.png": png(1), "A.png": png(2)}
    dataset = prepared("table", tmp_path, files)
    assert [row.image_id for row in rows_of(dataset)] == ["table/a.png", "table/A.png"]


def test_an_archive_that_was_unpacked_may_stay(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("images/1.png", png())
    files = {"q.jsonl": [FLAT], "images.zip": out.getvalue(), "images/1.png": png()}
    assert len(rows_of(prepared("table", tmp_path, files))) == 1


def test_the_number_of_an_image_is_its_name(tmp_path: Path) -> None:
    (row,) = rows_of(prepared("table", tmp_path, {"q.jsonl": [{**FLAT, "image": 1.0}], "1.png": png()}))
    assert row.image_id == "table/1.png"


@pytest.mark.parametrize(
    ("image", "received"), [(None, "null"), ("", "an empty text"), ({"x": 1, "y": 2}, "an object"), (True, "true")]
)
def test_what_is_no_image_is_named(image: Any, received: str, tmp_path: Path) -> None:
    message = refused("table", tmp_path, {"q.jsonl": [{**FLAT, "image": image}], "1.png": png()})
    assert f"expected an image as path, bytes or base64, got {received};" in message


@pytest.mark.parametrize("layout", ["folder", "vqa-rad"])
def test_a_name_that_no_file_can_have_is_refused(layout: str, tmp_path: Path) -> None:
    name = "a" * 1000 + ".png"
    files = {
        "questions.jsonl": [{**FLAT, "image": name}],
        "VQA_RAD Dataset Public.json": [{**VQA_RAD, "image_name": name}],
        "VQA_RAD Image Folder/synpic1.jpg": png(),
    }
    with pytest.raises(ImageError, match="cannot be read"):
        prepared(layout, tmp_path, files)


def test_two_files_that_would_be_one_image_are_refused(tmp_path: Path) -> None:
    rows = [SLAKE, {**SLAKE, "qid": 1, "img_name": "xmlab1/other.jpg"}]
    message = refused("slake", tmp_path / "slake", {**slake(), "train.json": rows, "imgs/xmlab1/other.jpg": png(1)})
    assert "image 'imgs/xmlab1/other.jpg' would be the same as 'imgs/xmlab1/source.jpg'" in message
    rad = [VQA_RAD, {**VQA_RAD, "qid": "1", "image_name": "synpic1.png"}]
    files = {"VQA_RAD Dataset Public.json": rad, "VQA_RAD Image Folder/synpic1.jpg": png()}
    assert "would be the same as" in refused("vqa-rad", tmp_path / "rad", files)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("imgs/xmlab1/mask.png", b"damaged", "expected a whole mask"),
        ("mask.txt", b"1:\xe9", "expected rows such as 70:Liver"),
        ("imgs/xmlab1/detection.json", b'[{"Liver": [NaN, 1, 2, 3]}]', "a number is not finite"),
    ],
)
def test_regions_that_are_damaged_are_refused(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    assert message in refused("slake", tmp_path, {**slake(), "mask.txt": "1:Liver\n", name: data})


def test_a_box_that_begins_outside_the_image_covers_its_part_inside(tmp_path: Path) -> None:
    boxes = '[{"Liver": [-8, -8, 24, 24]}]'
    files = {**slake(), "mask.txt": "1:Liver\n", "imgs/xmlab1/detection.json": boxes}
    dataset = prepared("slake", tmp_path, files)
    regions = RegionStore(dataset.folder)
    box = regions.get(dataset.images.digest("slake/xmlab1"))[regions.names.index("box: Liver")]
    assert (box[:20, :20].min(), box[20:].max(), box[:, 20:].max()) == (FULL, 0, 0)


def test_the_images_that_a_second_preparation_adds_have_their_regions(tmp_path: Path) -> None:
    files = {**slake(), "mask.txt": "1:Liver\n", "imgs/xmlab1/detection.json": '[{"Liver": [0, 0, 16, 16]}]'}
    prepared("slake", tmp_path, files)
    rows = [SLAKE, {**SLAKE, "qid": 1, "img_name": "xmlab2/source.jpg"}]
    more = {"imgs/xmlab2/source.jpg": png(2), "imgs/xmlab2/detection.json": '[{"Liver": [0, 0, 16, 16]}]'}
    dataset = prepared("slake", tmp_path, {"train.json": rows, **more})
    regions = RegionStore(dataset.folder)
    assert regions.get(dataset.images.digest("slake/xmlab2")).max() == FULL
