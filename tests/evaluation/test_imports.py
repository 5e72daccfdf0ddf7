"""Prediction files of other programs, joined by id or by image and question."""

import gzip
import json
from dataclasses import replace

import pyarrow
import pytest
from pyarrow import parquet

from medical_vqa.data.formats.rows import read_json_rows
from medical_vqa.errors import ConfigError, DataError
from medical_vqa.evaluation.imports import matching
from medical_vqa.evaluation.imports.columns import parse_map
from medical_vqa.evaluation.imports.matching import image_names
from medical_vqa.evaluation.imports.tables import import_answers, read_mapped
from medical_vqa.schema.table_files import read_prediction_table


@pytest.fixture
def rows(examples):
    return [replace(e, id=f"slake/validation/{e.id}", image_id=f"slake/{e.image_id}") for e in examples]


def pairs(found):
    return [(p.id, p.answer, p.confidence) for p in found]


def test_a_csv_by_id(tmp_path, rows):
    path = tmp_path / "p.csv"
    path.write_text("\ufeffqid,text,p\n1, Lung ,0.5\nslake/validation/2,,nan\n9,x,2\n", encoding="utf-8")
    found = read_mapped(path, parse_map("id=qid,answer=text,confidence=p"), rows)
    assert pairs(found) == [("slake/validation/1", "Lung", 0.5), ("slake/validation/2", "", None), ("9", "x", None)]
    assert found[0].raw == " Lung "


@pytest.mark.parametrize(
    "image", ["slake/scan-1", "scan-1", "scan-1/source.jpg", "imgs\\scan-1\\source.jpg", "scan-1.png"]
)
def test_image_and_question_find_the_row_however_the_image_is_named(tmp_path, rows, image):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"img": image, "q": "which ORGAN is it", "out": {"text": "lung"}}) + "\n")
    found = read_mapped(path, parse_map("image=img,question=q,answer=out.text"), rows)
    assert pairs(found) == [("slake/validation/1", "lung", None)]


@pytest.mark.parametrize(
    "content",
    [
        [{"id": "1", "answer": "lung"}],
        {"model": "m", "results": [{"id": "1", "answer": "lung"}]},
        {"1": "lung"},
        {"1": {"answer": "lung"}},
        [{"id": 1, "answer": "lung"}],
    ],
)
def test_the_usual_shapes_of_json(tmp_path, rows, content):
    path = tmp_path / "p.json"
    path.write_text(json.dumps(content))
    found = read_mapped(path, parse_map("id=id,answer=answer"), rows)
    assert pairs(found) == [("slake/validation/1", "lung", None)]


def test_lists_and_truth_values_are_read_as_text(tmp_path, rows):
    path = tmp_path / "p.json"
    path.write_text(json.dumps([{"id": 1, "choices": [{"content": True}]}, {"id": 2, "choices": [{"content": None}]}]))
    found = read_mapped(path, parse_map("id=id,answer=choices.0.content"), rows)
    assert [p.answer for p in found] == ["yes", ""]


def test_rows_that_match_nothing_are_named_and_not_dropped(tmp_path, rows, score):
    path = tmp_path / "p.csv"
    path.write_text("image,question,pred\nscan-1,Which organ is it?,Lung\nscan-9,Which organ is it?,Lung\n")
    found = read_mapped(path, parse_map("image=image,question=question,answer=pred"), rows)
    results = score(rows, found)
    assert {part.reason: (part.n, part.ids[0]) for part in results.excluded} == {
        "no prediction": (5, "slake/validation/2"),
        "prediction for a question that is not in this split": (1, "scan-9: Which organ is it?"),
    }


def test_an_id_given_twice_is_excluded(tmp_path, rows, score):
    path = tmp_path / "p.csv"
    path.write_text("id,answer\n1,Lung\n1,Liver\n2,Yes\n")
    found = read_mapped(path, parse_map("id=id,answer=answer"), rows)
    results = score(rows, found)
    assert "predicted more than once" in {part.reason for part in results.excluded}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id=a", "of the answer"),
        ("answer=a", "and of the id"),
        ("confidence=a,answer=b", "image and question"),
        ("id=a,answer=b,score=c", "'score'"),
        ("id=,answer=b", "name the column"),
    ],
)
def test_a_map_that_cannot_work_is_refused(text, words):
    with pytest.raises(ConfigError, match=words):
        parse_map(text)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("p.csv", "id,answer\n1,lung\n", "no 'qid' for id"),
        ("p.json", "{broken", "not JSON"),
        ("p.json", "3", "a list of objects"),
        ("p.csv.gz", "plain", "cannot be"),
        ("p.bin", "", "ending in .csv"),
        ("p.jsonl", "{broken\n", "not JSON"),
        ("none.csv", None, "no file at"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path, rows, name, text, words):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=words):
        read_mapped(tmp_path / name, parse_map("id=qid,answer=answer"), rows)


@pytest.mark.parametrize(
    "content", ["id,answer\n1,Lunge \xe4\n".encode("latin-1"), b"id,answer\n1,a\n2,\xff\xfea\x00\n"]
)
def test_a_csv_in_another_encoding_or_in_two_is_refused(tmp_path, rows, content):
    (tmp_path / "p.csv").write_bytes(content)
    with pytest.raises(DataError, match="UTF-8"):
        read_mapped(tmp_path / "p.csv", parse_map("id=id,answer=answer"), rows)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"id": "1", "answer": %s}' % ("9" * 5000), "more than 4,300 digits"),
    ],
)
@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p.jsonl.gz"])
def test_json_that_python_cannot_hold_is_refused_in_one_sentence(tmp_path, rows, line, reason, name):
    content = (line + "\n").encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with pytest.raises(DataError, match=reason):
        read_mapped(tmp_path / name, parse_map("id=id,answer=answer"), rows)
    if name == "p.jsonl":
        with pytest.raises(DataError, match=f":1: .*{reason}"):
            read_prediction_table(tmp_path / name)
    if name == "p.json":
        with pytest.raises(DataError, match=reason):
            read_json_rows(tmp_path / name)


def test_zero_bytes_that_an_interrupted_write_left_are_named(tmp_path, rows):
    (tmp_path / "p.jsonl").write_bytes(b'{"id": "1", "answer": "lung"}\n' + bytes(512))
    with pytest.raises(DataError, match=r"p\.jsonl:2: is not JSON \(only zero bytes"):
        read_mapped(tmp_path / "p.jsonl", parse_map("id=id,answer=answer"), rows)
    with pytest.raises(DataError, match=r"p\.jsonl:2: not JSON \(only zero bytes"):
        read_prediction_table(tmp_path / "p.jsonl")


def test_files_with_byte_order_marks_that_were_joined_are_read_or_refused(tmp_path, rows):
    lines = [json.dumps({"id": str(number), "answer": "lung"}) + "\n" for number in range(2)]
    (tmp_path / "p.jsonl").write_text("\ufeff" + "\ufeff".join(lines), encoding="utf-8")
    found = read_mapped(tmp_path / "p.jsonl", parse_map("id=id,answer=answer"), rows)
    assert [one.id for one in found] == ["0", "slake/validation/1"]
    assert list(read_prediction_table(tmp_path / "p.jsonl").ids) == ["0", "1"]
    (tmp_path / "p.csv").write_text("\ufeffid,answer\n1,lung\n\ufeffid,answer\n2,lung\n", encoding="utf-8")
    with pytest.raises(DataError, match="row 2: repeats the header, as where files were joined"):
        read_mapped(tmp_path / "p.csv", parse_map("id=id,answer=answer"), rows)


def test_binary_columns_of_parquet_are_text(tmp_path, rows):
    content = pyarrow.table({"id": [b"1", b"2"], "answer": ["Röntgen".encode(), b"\xff"]})
    parquet.write_table(content, tmp_path / "p.parquet")
    found = read_mapped(tmp_path / "p.parquet", parse_map("id=id,answer=answer"), rows)
    assert [(one.id, one.answer) for one in found] == [
        ("slake/validation/1", "Röntgen"),
        ("slake/validation/2", "\ufffd"),
    ]


def test_image_names_go_from_the_most_exact_to_the_least():
    assert image_names("imgs/xmlab1/source.jpg") == [
        "imgs/xmlab1/source.jpg",
        "imgs/xmlab1/source",
        "xmlab1/source.jpg",
        "xmlab1/source",
        "xmlab1",
        "source.jpg",
        "source",
    ]


# --- the join is checked against all that is known --------------------------------------------------------------------


def table(tmp_path, rows, name="p.json"):
    path = tmp_path / name
    path.write_text(json.dumps(rows))
    return path


def test_row_numbers_that_are_ids_by_chance_are_refused_by_the_question_they_stand_with(tmp_path, rows):
    wrong = [{"id": n, "question": rows[n].question, "answer": "x"} for n in range(6)]
    for columns in ("id=id,answer=answer", "id=id,question=question,answer=answer"):
        with pytest.raises(DataError, match=r"to which it would be joined.*position=#"):
            read_mapped(table(tmp_path, wrong), parse_map(columns), rows)


def test_row_numbers_with_nothing_else_are_refused_where_only_some_are_ids(tmp_path, rows):
    numbers = [{"id": n, "answer": "x"} for n in range(6)]  # the ids are 1 to 6
    with pytest.raises(DataError, match=r"row numbers 0 to 5, of which 5 of 6 are also ids"):
        read_mapped(table(tmp_path, numbers), parse_map("id=id,answer=answer"), rows)


def test_a_reference_that_differs_is_refused_and_one_that_agrees_is_not(tmp_path, rows):
    right = [{"id": e.id, "gold": e.answers[0].lower(), "answer": "x"} for e in rows]
    read_mapped(table(tmp_path, right), parse_map("id=id,answer=answer,reference=gold"), rows)
    wrong = [{**row, "gold": "spleen"} for row in right[:1]] + right[1:]
    with pytest.raises(DataError, match=r"its reference \(gold\) is 'spleen'.*1 of 6 rows differ"):
        read_mapped(table(tmp_path, wrong), parse_map("id=id,answer=answer,reference=gold"), rows)


def test_a_prompt_that_contains_the_question_agrees(tmp_path, rows):
    asked = [{"id": "1", "question": "<image> Which organ is it? Answer briefly.", "answer": "lung"}]
    found = read_mapped(table(tmp_path, asked), parse_map("id=id,question=question,answer=answer"), rows)
    assert pairs(found) == [("slake/validation/1", "lung", None)]


@pytest.mark.parametrize("column", ["#", "index"])
@pytest.mark.parametrize("first", [0, 1])
def test_a_file_in_the_order_of_the_split_is_joined_by_position(tmp_path, rows, column, first):
    answers = [{"index": n + first, "answer": f"a{n}"} for n in range(6)]
    found = read_mapped(table(tmp_path, answers), parse_map(f"position={column},answer=answer"), rows)
    assert [(p.id[-1], p.answer) for p in found] == [(str(n + 1), f"a{n}") for n in range(6)]


@pytest.mark.parametrize(
    ("numbers", "ids"), [([0, 2], ["1", "3"]), ([4, 6], ["4", "6"]), ([0, 6], ["1", "row 2"]), ([1, 6], ["1", "6"])]
)
def test_row_numbers_of_a_part_begin_where_the_file_shows_it(tmp_path, rows, numbers, ids):
    answers = [{"index": number, "answer": "a"} for number in numbers]
    found = read_mapped(table(tmp_path, answers), parse_map("position=index,answer=answer"), rows)
    assert [p.id.removeprefix("slake/validation/") for p in found] == ids


def test_row_numbers_of_a_part_that_may_begin_at_0_or_1_are_refused_unless_the_questions_show_it(tmp_path, rows):
    answers = [{"index": n, "question": rows[n].question, "answer": "a"} for n in (1, 2, 3)]
    found = read_mapped(table(tmp_path, answers), parse_map("position=index,question=question,answer=answer"), rows)
    assert [p.id[-1] for p in found] == ["2", "3", "4"]
    for row in answers:
        del row["question"]
    with pytest.raises(DataError, match="its row numbers have neither 0 nor 6"):
        read_mapped(table(tmp_path, answers), parse_map("position=index,answer=answer"), rows)


def test_fewer_rows_than_questions_have_no_order_to_join_by(tmp_path, rows):
    with pytest.raises(DataError, match="has 1 rows and the split 6"):
        read_mapped(table(tmp_path, [{"answer": "x"}]), parse_map("position=#,answer=answer"), rows)


def test_questions_alone_join_a_file_in_the_same_order_and_a_question_that_is_asked_once(tmp_path, rows):
    columns = parse_map("question=q,answer=a")
    all_rows = [{"q": e.question, "a": str(n)} for n, e in enumerate(rows)]
    assert [p.id for p in read_mapped(table(tmp_path, all_rows), columns, rows)] == [e.id for e in rows]
    once = [{"q": "Where is the mass?", "a": "x"}, {"q": "Is it healthy?", "a": "y"}]
    assert [p.id for p in read_mapped(table(tmp_path, once), columns, rows)] == ["slake/validation/5", "Is it healthy?"]


def test_a_pair_that_is_asked_twice_takes_its_answers_in_order(tmp_path, rows):
    twice = [rows[0], replace(rows[0], id="slake/validation/7"), *rows[1:]]
    asked = [{"img": "scan-1", "q": rows[0].question, "a": answer} for answer in ("first", "second")]
    found = read_mapped(table(tmp_path, asked), parse_map("image=img,question=q,answer=a"), twice)
    assert [(p.id[-1], p.answer) for p in found] == [("1", "first"), ("7", "second")]


@pytest.mark.parametrize("image", ["chest/001.png", "001.png", "data\\chest\\001.png", "own/chest/001.png"])
def test_images_of_a_folder_are_found_by_any_end_of_their_path(tmp_path, rows, image):
    folder = [replace(e, image_id=f"own/chest/00{e.image_id[-1]}.png") for e in rows]
    asked = [{"img": image, "q": "Which organ is it?", "a": "lung"}]
    found = read_mapped(table(tmp_path, asked), parse_map("image=img,question=q,answer=a"), folder)
    assert [p.id for p in found] == ["slake/validation/1"]


def test_images_of_a_folder_that_are_named_by_hashes_are_found_by_their_path(tmp_path, rows, monkeypatch):
    from medical_vqa.data.formats.pseudonyms import Pseudonyms

    monkeypatch.setenv("MEDICAL_VQA_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    names = Pseudonyms.local()
    folder = [replace(e, image_id=f"own/{names.of('image', f'chest/00{e.image_id[-1]}.png')}") for e in rows]
    asked = [{"img": "/data/chest/001.png", "q": "Which organ is it?", "a": "lung"}]
    found = read_mapped(table(tmp_path, asked), parse_map("image=img,question=q,answer=a"), folder)
    assert [p.id for p in found] == ["slake/validation/1"]


def test_a_judge_s_column_is_a_protocol_of_its_own(tmp_path, rows, score):
    judged = [
        {"id": e.id, "answer": "x", "right": right}
        for e, right in zip(rows, [1, 0, "yes", "no", None, True], strict=True)
    ]
    found = read_mapped(table(tmp_path, judged), parse_map("id=id,answer=answer,right=right"), rows)
    by_metric = {one.metric: one.published for one in score(rows, found, published_protocols=["judge"]).protocols}
    assert (by_metric["overall"].value, by_metric["overall"].n) == (pytest.approx(3 / 5), 5)


def test_a_name_that_two_images_share_joins_neither(tmp_path, rows):
    folder = [replace(e, image_id=f"own/{e.image_id}/image.png") for e in rows]
    asked = [{"img": "image.png", "q": "Which organ is it?", "a": "lung"}]
    found = read_mapped(table(tmp_path, asked), parse_map("image=img,question=q,answer=a"), folder)
    assert [p.id for p in found] == ["image.png: Which organ is it?"]


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (["CT"], "CT"),
        (["Heart", "Liver"], "Heart, Liver"),
        ({"answer": "CT"}, "CT"),
        ([{"generated_text": "CT"}], "CT"),
        (3.0, "3"),
        (2, "2"),
        (0.5, "0.5"),
        (True, "yes"),
        (float("nan"), ""),
    ],
)
def test_an_answer_that_is_no_text_is_what_a_person_would_write(tmp_path, rows, value, text):
    found = read_mapped(table(tmp_path, [{"id": "1", "answer": value}]), parse_map("id=id,answer=answer"), rows)
    assert found[0].answer == text


def test_one_failed_request_of_a_batch_does_not_stop_the_file(tmp_path, rows):
    body = {"choices": [{"message": {"content": "lung"}}]}
    lines = [
        {"custom_id": "1", "response": {"body": body}},
        {"custom_id": "2", "response": None, "error": {"code": 500}},
    ]
    columns = parse_map("id=custom_id,answer=response.body.choices.0.message.content")
    found = import_answers(table(tmp_path, lines), columns, rows)
    assert (pairs(found.predictions), found.failed) == ([("slake/validation/1", "lung", None)], ("slake/validation/2",))


# --- files ------------------------------------------------------------------------------------------------------------


def written(path, rows):
    import gzip

    import pandas

    frame = pandas.DataFrame(rows)
    text = frame.to_csv(index=False)
    writers = {
        "p.csv": lambda: path.write_text("\ufeff" + text, encoding="utf-8"),
        "u16.csv": lambda: path.write_text(text, encoding="utf-16"),
        "semicolons.csv": lambda: frame.to_csv(path, sep=";", index=False),
        "p.tsv": lambda: frame.to_csv(path, sep="\t", index=False),
        "p.csv.gz": lambda: path.write_bytes(gzip.compress(text.encode())),
        "p.xlsx": lambda: frame.to_excel(path, index=False),
        "p.parquet": lambda: frame.to_parquet(path, index=False),
        "p.jsonl": lambda: path.write_text("\ufeff" + frame.to_json(orient="records", lines=True), encoding="utf-8"),
    }
    writers[path.name]()


@pytest.mark.parametrize(
    "name", ["p.csv", "u16.csv", "semicolons.csv", "p.tsv", "p.csv.gz", "p.xlsx", "p.parquet", "p.jsonl"]
)
def test_every_kind_of_table_is_read_and_ids_may_have_decimals(tmp_path, rows, name):
    written(tmp_path / name, {"question_id": [1.0, 2.0], "response": ["Lung, left", "Yes"]})
    found = import_answers(tmp_path / name, None, rows)
    assert [(p.id[-1], p.answer) for p in found.predictions] == [("1", "Lung, left"), ("2", "Yes")]
    assert (found.columns, found.guessed) == ({"id": "question_id", "answer": "response"}, True)


@pytest.mark.parametrize("name", ["p.csv", "u16.csv", "semicolons.csv", "p.tsv", "p.xlsx", "p.parquet", "p.jsonl"])
def test_ids_that_lost_their_leading_zeros_are_joined(tmp_path, rows, name):
    numbered = [replace(row, id=f"d/test/{n:04d}", facts={}) for n, row in enumerate(rows)]
    written(tmp_path / name, {"id": list(range(len(rows))), "answer": [f"a{n}" for n in range(len(rows))]})
    found = import_answers(tmp_path / name, None, numbered)
    assert {p.id: p.answer for p in found.predictions} == {row.id: f"a{n}" for n, row in enumerate(numbered)}


def test_a_number_that_two_ids_are_is_joined_to_neither_but_exact_ids_are(tmp_path, rows):
    twice = [replace(rows[0], id="d/test/007", facts={}), replace(rows[1], id="d/test/0007", facts={})]
    (tmp_path / "p.csv").write_text("id,answer\n7,a\n007,b\n00007,c\n")
    found = import_answers(tmp_path / "p.csv", None, twice)
    assert pairs(found.predictions) == [("7", "a", None), ("d/test/007", "b", None), ("00007", "c", None)]


@pytest.mark.parametrize("extra", [{}, {"id": ["d/test/1", "d/test/2"]}])
def test_images_that_lost_their_leading_zeros_are_joined(tmp_path, rows, extra):
    named = [replace(row, id=f"d/test/{n}", image_id=f"d/00{n}.png") for n, row in enumerate(rows[:2], 1)]
    questions = [row.question for row in named]
    written(tmp_path / "p.csv", {**extra, "image": [1, 2], "question": questions, "answer": ["a", "b"]})
    found = import_answers(tmp_path / "p.csv", None, named)
    assert pairs(found.predictions) == [("d/test/1", "a", None), ("d/test/2", "b", None)]


def test_of_very_many_columns_a_message_names_the_first(tmp_path, rows):
    (tmp_path / "p.jsonl").write_text(json.dumps({f"q{n}": "lung" for n in range(1000)}) + "\n")
    with pytest.raises(DataError, match=r"its columns are q0, q1, .* and 980 more, and it is not clear"):
        import_answers(tmp_path / "p.jsonl", None, rows)


def test_columns_that_cannot_be_guessed_are_listed(tmp_path, rows):
    (tmp_path / "p.csv").write_text("key,value\n1,lung\n")
    with pytest.raises(DataError, match=r"its columns are key, value.*--map id="):
        import_answers(tmp_path / "p.csv", None, rows)


def test_a_cell_of_ten_megabytes_is_read(tmp_path, rows):
    (tmp_path / "p.csv").write_text("id,answer\n1," + "a" * 10_000_000 + "\n")
    assert len(read_mapped(tmp_path / "p.csv", parse_map("id=id,answer=answer"), rows)[0].answer) == 10_000_000


def test_a_part_that_fits_everywhere_is_not_compared_everywhere(tmp_path, rows, monkeypatch):
    """Rows that are all alike fit at every start, each of which takes as many comparisons as there are rows."""
    alike = [replace(rows[0], id=str(number)) for number in range(100)]
    path = tmp_path / "p.csv"
    line = f"{alike[0].question},{alike[0].answers[0]},lung\n"
    path.write_text("question,reference,pred\n" + line * 50)
    starts, occurs = [], matching._occurs
    monkeypatch.setattr(matching, "_occurs", lambda *of: starts.append(of[2]) or occurs(*of))
    with pytest.raises(DataError, match="only 0 of 50 rows can be joined by their question"):
        read_mapped(path, parse_map("question=question,reference=reference,answer=pred"), alike)
    assert starts == [0, 1]


def test_confidences_of_another_unit_are_all_ignored(tmp_path, rows):
    """In per cent two of six are numbers from 0 to 1 too, which would be taken for a hundred times as much."""
    content = [
        {"id": row.id, "answer": "a", "confidence": value}
        for row, value in zip(rows, (95, 80, 0.4, 77, 1, 60), strict=True)
    ]
    found = import_answers(table(tmp_path, content), None, rows)
    assert [one.confidence for one in found.predictions] == [None] * 6
    assert sorted(found.without_confidence) == sorted(row.id for row in rows)
    content[0]["confidence"], content[1]["confidence"] = 0.95, 0.8
    content[3]["confidence"] = 0.77
    found = import_answers(table(tmp_path, content), None, rows)
    assert [one.confidence for one in found.predictions] == [0.95, 0.8, 0.4, 0.77, 1.0, None]
    assert found.without_confidence == (rows[5].id,)


def test_a_judgment_that_is_neither_right_nor_wrong_is_named(tmp_path, rows):
    judged = ("1.0", "0.0", "maybe", "", "0.5", "correct")
    content = [{"id": row.id, "answer": "a", "right": value} for row, value in zip(rows, judged, strict=True)]
    found = import_answers(table(tmp_path, content), parse_map("id=id,answer=answer,right=right"), rows)
    assert [one.judged_right for one in found.predictions] == [True, False, None, None, None, True]
    assert found.without_judgment == (rows[2].id, rows[4].id)
    assert "judgment that is neither right nor wrong" in found.warnings[0].reason


def test_a_guessed_column_that_holds_the_references_is_called_so(tmp_path, rows):
    many = [replace(row, id=f"{row.id}/{n}") for n in range(4) for row in rows]
    content = [{"id": row.id, "answer": row.answers[0]} for row in many]
    found = import_answers(table(tmp_path, content), None, many)
    assert [(part.n, part.reason[:40]) for part in found.warnings] == [(24, "answer that is its reference to the lett")]
    assert not import_answers(table(tmp_path, content), parse_map("id=id,answer=answer"), many).warnings
    content[5]["answer"] = "other"
    assert not import_answers(table(tmp_path, content), None, many).warnings
