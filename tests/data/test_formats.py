"""Every reader on a small copy of the published layout: rows, answers, facts, images; and what it refuses.

Layouts: the files of the repositories that the readers' docstrings and docs/reference name, read in 2026.
"""

from __future__ import annotations

import base64
import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medical_vqa import registry
from medical_vqa.data.formats.coco_vqa import _names_by_number
from medical_vqa.data.formats.tables import Table
from medical_vqa.data.formats.vqa_med import accepted_answers
from medical_vqa.data.prepared.dataset import PreparedDataset
from medical_vqa.data.prepared.prepare import prepare
from medical_vqa.errors import ConfigError, DataError
from medical_vqa.evaluation.metrics.multiple_choice import choice_of, choices_of


def png(shade: int = 0) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (32, 32), (shade, 60, 60)).save(data, "PNG")
    return data.getvalue()


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def embedded(shade: int = 0) -> dict[str, Any]:
    return {"bytes": png(shade), "path": None}


def slake_row(**changes: Any) -> dict[str, Any]:
    return {
        "img_id": 1, "img_name": "xmlab1/source.jpg", "question": "What modality is used?", "answer": "MRI",
        "q_lang": "en", "location": "Abdomen", "modality": "MRI", "answer_type": "OPEN", "base_type": "vqa",
        "content_type": "Modality", "triple": ["vhead", "_", "_"], "qid": 0, **changes,
    }  # fmt: skip


def hub_slake(folder: Path) -> None:
    for name in ("train", "validation", "test"):
        write(folder / f"{name}.json", [slake_row()])
    with zipfile.ZipFile(folder / "imgs.zip", "w") as archive:
        archive.writestr("imgs/xmlab1/source.jpg", png())


def vqa_med_2019(folder: Path) -> None:
    train = folder / "ImageClef-2019-VQA-Med-Training"
    write(train / "All_QA_Pairs_train.txt", "synpic1|what modality is shown?|ct\nsynpic1|which plane?|axial\n")
    write(train / "QAPairsByCategory/C1_Modality_train.txt", "synpic1|what modality is shown?|ct\n")
    write(train / "Train_images/synpic1.jpg", png(1))
    test = folder / "VQAMed2019Test"
    questions = "synpic2|what is abnormal in the ct scan?\n"
    write(test / "VQAMed2019_Test_Questions.txt", questions)
    answers = "synpic2|abnormality|what is abnormal in the ct scan?|(large) mass#multi-cystic mass\n"
    write(test / "VQAMed2019_Test_Questions_w_Ref_Answers.txt", answers)
    write(test / "README-VQA-Med-2019-TestSet.txt", "a | b\n")
    with zipfile.ZipFile(test / "VQAMed2019_Test_Images.zip", "w") as archive:
        archive.writestr("VQAMed2019_Test_Images/synpic2.jpg", png(2))


def vqa_med_2021(folder: Path) -> None:
    train = folder / "VQA-Med-2020-Task1-VQAnswering-TrainVal-Sets/VQAnswering_2020_Train_QA_pairs.txt"
    write(train, "synpic1|is this image normal?|yes\n")
    write(folder / "train/synpic1.jpg", png(1))
    write(folder / "Task1-VQA-2021-TestSet/Task1-VQA-2021-TestSet-Questions.txt", "synpic3|what is abnormal?\n")
    write(folder / "Task1-VQA-2021-TestSet-ReferenceAnswers.txt", "synpic3|mass|tumor\n")
    write(folder / "test/synpic3.jpg", png(3))


def path_vqa(folder: Path) -> None:
    rows = [{"image": "test_0001", "question": "what is present?", "answer": "liver"}]
    write(folder / "qas/test/test_qa.pkl", pickle.dumps(rows))
    write(folder / "images/test/test_0001.jpg", png())


def rad_restruct(folder: Path) -> None:
    root = folder / "data/radrestruct"
    write(root / "id_to_img_mapping_frontal_reports.json", {"100": ["CXR100_IM-0002-1001"]})
    about = {"answer_type": "single_choice", "options": ["yes", "no"], "path": "lung_signs"}
    several = {"answer_type": "multi_choice", "options": ["left", "right"], "path": "lung_signs_location"}
    history = [["Are there any signs in the lung?", ["yes"]]]
    pairs = [["Are there any signs in the lung?", ["yes"], [], about], ["Where?", ["left", "right"], history, several]]
    write(root / "test_qa_pairs/100.json", pairs)
    for name in ("train_qa_pairs", "val_qa_pairs"):
        (root / name).mkdir()
    write(root / "images/CXR100_IM-0002-1001.png", png())


def pmc_vqa(folder: Path) -> None:
    header = "index,Figure_path,Caption,Question,Choice A,Choice B,Choice C,Choice D,Answer,split\n"
    row = '0,PMC1_Fig1.jpg,"A scan, axial",What is shown?, A:Lung, B:Liver, C:Heart, D:Brain,B,test\n'
    write(folder / "test_2.csv", header + row)
    with zipfile.ZipFile(folder / "images_2.zip", "w") as archive:
        archive.writestr("figures/PMC1_Fig1.jpg", png())


def omnimedvqa(folder: Path) -> None:
    row = {
        "dataset": "ACRIMA", "question_id": "acrima_1", "question_type": "Modality Recognition",
        "question": "What imaging technique?", "gt_answer": "Fundus imaging", "image_path": "Images/ACRIMA/1.png",
        "option_A": "Fundus imaging", "option_B": "CT", "modality_type": "Fundus Photography",
    }  # fmt: skip
    write(folder / "QA_information/Open-access/ACRIMA.json", [row])
    write(folder / "Images/ACRIMA/1.png", png())


def medxpertqa(folder: Path) -> None:
    row = {
        "id": "MM-26", "question": "What is the diagnosis?\nAnswer Choices: (A) x", "label": "B",
        "options": {"A": "Fracture", "B": "Tumor"}, "images": ["MM-26-a.jpeg", "MM-26-b.jpeg"],
        "medical_task": "Diagnosis", "body_system": "Skeletal", "question_type": "Reasoning",
    }  # fmt: skip
    write(folder / "MM/test.jsonl", json.dumps(row) + "\n")
    write(folder / "images/MM-26-a.jpeg", png(1))
    write(folder / "images/MM-26-b.jpeg", png(2))


def medframeqa(folder: Path) -> None:
    row = {
        "question": "Which frame?", "options": ["first", "second"], "correct_answer": "B", "system": "heart",
        "image_1": embedded(1), "image_2": embedded(2), "image_3": None, "image_4": None, "image_5": None,
    }  # fmt: skip
    parquet(folder / "data/test-00000-of-00001.parquet", [row])


def vlmevalkit(folder: Path) -> None:
    image = base64.b64encode(png() * 20).decode()  # longer than any path
    lines = [
        "index\timage\tquestion\tA\tB\tanswer\tcategory\tsplit",
        f"0\t{image}\tWhat is it?\tPolyp\tNormal\tA\tDisease\tval",
        "1\t0\tWhich organ?\tColon\tLung\tA\tOrgan\tval",
    ]
    write(folder / "GMAI-MMBench_VAL.tsv", "\n".join(lines) + "\n")


def coco_vqa(folder: Path) -> None:
    questions = [{"image_id": 42, "question": "Is there a fracture?", "question_id": 42000}]
    answers = [
        {"answer": text, "answer_confidence": "yes", "answer_id": n} for n, text in enumerate(["no", "yes", "no"])
    ]
    annotation = {
        "question_id": 42000,
        "image_id": 42,
        "answer_type": "yes/no",
        "question_type": "is",
        "answers": answers,
    }
    write(folder / "v2_OpenEnded_mscoco_val2014_questions.json", {"questions": questions})
    write(folder / "v2_mscoco_val2014_annotations.json", {"annotations": [annotation]})
    write(folder / "val2014/COCO_val2014_000000000042.jpg", png())


@pytest.mark.parametrize("name", ["1" * 20_000, "1" * 20_000 + ".", "a" * 20_000, "1" * 20_000 + ".jpg"])
def test_a_long_name_of_a_coco_image_takes_no_longer_than_others(name: str) -> None:
    """A number at the end of a name was searched in cubic time."""
    names = [name, "val2014/COCO_val2014_000000000042.jpg", "a.zip!b/0.png", "7.json"]
    expected = {"42": ["COCO_val2014_000000000042.jpg"], "0": ["0.png"]}
    if name.endswith(".jpg"):
        expected["1" * 20_000] = [name]
    assert _names_by_number(names) == expected


def test_coco_images_are_found_by_their_number_in_a_zip_archive(tmp_path: Path) -> None:
    coco_vqa(tmp_path)
    with zipfile.ZipFile(tmp_path / "val2014.zip", "w") as archive:
        archive.write(tmp_path / "val2014/COCO_val2014_000000000042.jpg", "val2014/COCO_val2014_000000000042.jpg")
    shutil.rmtree(tmp_path / "val2014")
    published = read("coco-vqa", tmp_path)
    assert published.read_image(published.examples["validation"][0].image_id) == png()


LLAVA = {
    "id": "7", "image": "7.png",
    "conversations": [
        {"from": "human", "value": "<image>\nIs it a CT?"}, {"from": "gpt", "value": "Yes"},
        {"from": "human", "value": "Which organ?"}, {"from": "gpt", "value": "Lung"},
    ],
}  # fmt: skip


def llava(folder: Path) -> None:
    write(folder / "llava_train.json", [LLAVA])
    write(folder / "images/7.png", png())


def sharegpt(folder: Path) -> None:
    turns = [{"role": "user", "content": "<image><image>Same?"}, {"role": "assistant", "content": "No"}]
    write(folder / "data_test.json", [{"messages": turns, "images": ["C:\\scans\\a.png", "/home/me/b.png"]}])
    write(folder / "scans/a.png", png(1))
    write(folder / "b.png", png(2))


def messages(folder: Path) -> None:
    url = {"url": "data:image/png;base64," + base64.b64encode(png() * 20).decode()}
    content = [{"type": "text", "text": "Is it a CT?"}, {"type": "image_url", "image_url": url}]
    turns = [
        {"role": "system", "content": "x"},
        {"role": "user", "content": content},
        {"role": "assistant", "content": "Yes"},
    ]
    write(folder / "train.jsonl", json.dumps({"messages": turns}) + "\n")


def hub_table(folder: Path) -> None:
    rows = [
        {"image": embedded(n), "question": f"What is {n}?", "answer": ["a", "b"], "plane": "axial"} for n in range(3)
    ]
    parquet(folder / "data/train-00000-of-00001.parquet", rows)
    parquet(folder / "data/validation-00000-of-00001.parquet", rows[:1])


def hub_rad(folder: Path) -> None:
    rows = [{"image": embedded(), "question": "is it a ct?", "answer": "yes"}]
    parquet(folder / "data/train-00000-of-00001-x.parquet", rows)
    parquet(folder / "data/test-00000-of-00001-y.parquet", rows)


def mevf_rad(folder: Path) -> None:
    row = {
        "qid": 1, "image_name": "synpic54610.jpg", "image_organ": "HEAD", "answer": 2, "answer_type": "CLOSED ",
        "question_type": "PRES", "question": "How many?", "phrase_type": "freeform",
    }  # fmt: skip
    write(folder / "data/trainset.json", [row])
    write(folder / "data/testset.json", [{**row, "phrase_type": "para"}])
    write(folder / "data/images/synpic54610.jpg", png())


def kvasir(folder: Path) -> None:
    row = {"image": embedded(), "source": "HyperKvasir", "question": "Is there text?", "answer": "No", "img_id": "cl8k"}
    parquet(folder / "data/raw-00000-of-00001.parquet", [row])


def kvasir_x1(folder: Path) -> None:
    row = {
        "img_id": "cl8k", "complexity": 1, "question": "Any text?", "answer": "None", "question_class": ["text"],
        "original": [{"q": "Is there text?", "a": "No"}],
    }  # fmt: skip
    write(folder / "Kvasir-VQA-x1-test.jsonl", json.dumps(row) + "\n")
    write(folder / "images/cl8k.jpg", png())


Expected = tuple[dict[str, int], str, tuple[str, ...]]
"""Rows by split, the last question, and its accepted answers."""
CASES: dict[str, tuple[Callable[[Path], None], Expected]] = {
    "slake": (hub_slake, ({"train": 1, "validation": 1, "test": 1}, "What modality is used?", ("MRI",))),
    "vqa-rad-hub": (hub_rad, ({"train": 1, "test": 1}, "is it a ct?", ("yes",))),
    "vqa-rad-mevf": (mevf_rad, ({"train": 1, "test": 1}, "How many?", ("2",))),
    "vqa-med-2019": (
        vqa_med_2019,
        ({"train": 2, "test": 1}, "what is abnormal in the ct scan?", ("large mass", "mass", "multi-cystic mass")),
    ),
    "vqa-med-2020": (vqa_med_2021, ({"train": 1, "test": 1}, "what is abnormal?", ("mass", "tumor"))),
    "vqa-med-2021": (vqa_med_2021, ({"train": 1, "test": 1}, "what is abnormal?", ("mass", "tumor"))),
    "path-vqa": (path_vqa, ({"test": 1}, "what is present?", ("liver",))),
    "kvasir-vqa": (kvasir, ({"train": 1}, "Is there text?", ("No",))),
    "kvasir-vqa-x1": (kvasir_x1, ({"test": 1}, "Any text?", ("None",))),
    "pmc-vqa": (pmc_vqa, ({"test": 1}, "What is shown?\nA. Lung\nB. Liver\nC. Heart\nD. Brain", ("Liver", "B"))),
    "omnimedvqa": (
        omnimedvqa,
        ({"test": 1}, "What imaging technique?\nA. Fundus imaging\nB. CT", ("Fundus imaging", "A")),
    ),
    "medxpertqa-mm": (medxpertqa, ({"test": 1}, "What is the diagnosis?\nA. Fracture\nB. Tumor", ("Tumor", "B"))),
    "medframeqa": (medframeqa, ({"test": 1}, "Which frame?\nA. first\nB. second", ("second", "B"))),
    "vlmevalkit": (vlmevalkit, ({"validation": 2}, "Which organ?\nA. Colon\nB. Lung", ("Colon", "A"))),
    "rad-restruct": (
        rad_restruct,
        ({"test": 2}, "Are there any signs in the lung? yes\nWhere?", ("left, right",)),
    ),
    "coco-vqa": (coco_vqa, ({"validation": 1}, "Is there a fracture?", ("no", "no", "yes"))),
    "llava-json": (llava, ({"train": 2}, "Which organ?", ("Lung",))),
    "sharegpt": (sharegpt, ({"test": 1}, "Same?", ("No",))),
    "messages": (messages, ({"train": 1}, "Is it a CT?", ("Yes",))),
    "table": (hub_table, ({"train": 3, "validation": 1}, "What is 0?", ("a", "b"))),
}


def test_every_dataset_has_a_case_here_or_tests_of_its_own() -> None:
    assert set(registry.names("datasets")) - set(CASES) == {"slake-mini", "vqa-rad", "folder", "chestx-ray14"}


@pytest.mark.parametrize("name", CASES)
def test_a_published_layout_is_read_and_prepared(name: str, tmp_path: Path) -> None:
    fill, (rows, question, answers) = CASES[name]
    (tmp_path / "source").mkdir()
    fill(tmp_path / "source")
    manifest = prepare(registry.create("datasets", name), tmp_path / "source", tmp_path / "root", partial=True)
    assert manifest.counts == rows
    prepared = PreparedDataset(tmp_path / "root" / name, manifest)
    last = prepared.examples(prepared.splits[-1])[-1]
    assert (last.question, last.answers) == (question, answers)
    assert last.id.startswith(f"{name}/")
    for image_id in (last.image_id, *last.other_image_ids):
        assert prepared.images.load(image_id).size == (32, 32)
    again = prepare(registry.create("datasets", name), tmp_path / "source", tmp_path / "root", partial=True)
    assert again == manifest


@pytest.mark.parametrize("name", CASES)
def test_every_card_states_license_citation_and_home(name: str) -> None:
    card = registry.create("datasets", name).card
    assert card.name == name
    assert all(len(text) > 5 for text in (card.license, card.citation, card.homepage, card.title))


def read(name: str, folder: Path, **options: Any) -> Any:
    return registry.create("datasets", name, **options).read(folder)


def test_choices_and_the_right_one_are_facts(tmp_path: Path) -> None:
    medframeqa(tmp_path)
    row = read("medframeqa", tmp_path).examples["test"][0]
    assert (choices_of(row), choice_of(row), row.facts["system"]) == ({"A": "first", "B": "second"}, "B", "heart")
    assert len(row.other_image_ids) == 1


@pytest.mark.parametrize("name", CASES)
def test_what_macos_adds_to_an_archive_is_no_part_of_a_dataset(name: str, tmp_path: Path) -> None:
    fill, (rows, _, _) = CASES[name]
    fill(tmp_path)
    for path in sorted(path for path in tmp_path.rglob("*") if path.is_file()):
        added = b"\0\5\x16\7Mac OS X"
        write(tmp_path / "__MACOSX" / path.relative_to(tmp_path).parent / f"._{path.name}", added)
        write(path.with_name(f"._{path.name}"), added)
    assert {split: len(found) for split, found in read(name, tmp_path).examples.items() if found} == rows


def test_the_text_part_of_medxpertqa_is_left_out_wherever_the_folder_is(tmp_path: Path) -> None:
    source = tmp_path / "my texts" / "MedXpertQA"
    medxpertqa(source)
    write(source / "Text/test.jsonl", json.dumps({"id": "Text-1", "question": "?", "options": {}, "label": "A"}) + "\n")
    assert [row.facts["medical_task"] for row in read("medxpertqa-mm", source).examples["test"]] == ["Diagnosis"]


def test_of_choices_with_equal_texts_the_first_is_the_right_one(tmp_path: Path) -> None:
    omnimedvqa(tmp_path)
    path = tmp_path / "QA_information/Open-access/ACRIMA.json"
    write(path, path.read_text().replace('"CT"', '"Fundus imaging"'))
    assert choice_of(read("omnimedvqa", tmp_path).examples["test"][0]) == "A"


def test_the_misspelled_column_of_pmc_vqa_is_known(tmp_path: Path) -> None:
    pmc_vqa(tmp_path)
    text = (tmp_path / "test_2.csv").read_text().replace("Answer", "Anwser").replace(",B,test", ", B:Liver,test")
    write(tmp_path / "test_2.csv", text)
    assert read("pmc-vqa", tmp_path).examples["test"][0].answers == ("Liver", "B")


def test_optional_parts_of_an_answer_may_be_left_out() -> None:
    assert accepted_answers("(angioinvasive aspergillosis with) septic emboli") == [
        "angioinvasive aspergillosis with septic emboli",
        "septic emboli",
    ]


def test_the_category_of_a_question_comes_from_the_files_by_category(tmp_path: Path) -> None:
    vqa_med_2019(tmp_path)
    rows = read("vqa-med-2019", tmp_path).examples
    assert [row.facts.get("category") for row in rows["train"]] == ["modality", None]
    assert rows["test"][0].facts["category"] == "abnormality"


def test_a_pickle_that_imports_something_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train_qas.pkl", b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(DataError, match=r"would import os\.system"):
        read("path-vqa", tmp_path)


def test_a_guess_of_columns_is_stated_and_can_be_changed(tmp_path: Path) -> None:
    write(tmp_path / "q.csv", "img;frage;antwort\na.png;Ist es ein CT?;ja\n")
    write(tmp_path / "a.png", png())
    with pytest.raises(DataError, match=r"no column is named like the question; it has img, frage, antwort"):
        Table().read(tmp_path)
    published = Table({"question": "frage", "answer": "antwort"}).read(tmp_path)
    assert published.examples["train"][0].answers == ("ja",)
    assert published.notes == ["q.csv: columns image=img, question=frage, answer=antwort; --columns changes them"]
    with pytest.raises(ConfigError, match="'frage' is unknown"):
        Table({"frage": "question"})


def test_a_saved_datasets_folder_is_read(tmp_path: Path) -> None:
    import pyarrow as pa

    table = pa.Table.from_pylist([{"image": embedded(), "question": "Is it a CT?", "answer": "yes"}])
    (tmp_path / "test").mkdir()
    path = str(tmp_path / "test/data-00000-of-00001.arrow")
    with pa.OSFile(path, "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    write(tmp_path / "dataset_dict.json", {"splits": ["test"]})
    assert Table().read(tmp_path).examples["train"][0].answers == ("yes",)


@pytest.mark.parametrize("ending", ["xlsx", "csv.gz", "tsv", "parquet"])
def test_a_table_of_any_kind_names_its_images(tmp_path: Path, ending: str) -> None:
    import pandas

    frame = pandas.DataFrame({"image": ["a.png"], "question": ["Is it a CT?"], "answer": ["no"], "split": ["dev"]})
    path = tmp_path / f"q.{ending}"
    writers = {
        "xlsx": lambda: frame.to_excel(path, index=False),
        "csv.gz": lambda: frame.to_csv(path, index=False, encoding="utf-16"),
        "tsv": lambda: frame.to_csv(path, index=False, sep="\t"),
        "parquet": lambda: frame.to_parquet(path),
    }
    writers[ending]()
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("deep/a.png", png())
    published = Table().read(tmp_path)
    assert published.examples["validation"][0].answers == ("no",)
    assert published.read_image(published.examples["validation"][0].image_id) == png()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": ["7.png"] * 3}, "1 image tokens and 3 images"),
        ({"image": None}, "has 1 image tokens and 0 images"),
        ({"conversations": "text"}, "has no list of turns"),
        ({"conversations": [{"from": "human", "value": "<image> Why?"}]}, "no question that is followed by an answer"),
        ({"conversations": ["<image> Why?"]}, "expected a turn as an object"),
    ],
)
def test_a_conversation_that_is_not_complete_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    llava(tmp_path)
    write(tmp_path / "llava_train.json", [{**LLAVA, **change}])
    with pytest.raises(DataError, match=message):
        read("llava-json", tmp_path)


def test_two_images_of_one_name_and_two_rows_of_one_id_are_refused(tmp_path: Path) -> None:
    llava(tmp_path)
    write(tmp_path / "other/7.png", png(9))
    with pytest.raises(DataError, match=r"2 images are called '7\.png'"):
        read("llava-json", tmp_path)
    (tmp_path / "other/7.png").unlink()
    write(tmp_path / "llava_train.json", [LLAVA, LLAVA])
    with pytest.raises(DataError, match=r"id 'llava-json/train/7\.1' is already used"):
        read("llava-json", tmp_path)
