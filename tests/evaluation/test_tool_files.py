"""Result files of other evaluation tools, in the layouts that their code writes."""

import gzip
import json
import zipfile
from dataclasses import replace

import pytest

from medical_vqa.errors import DataError
from medical_vqa.evaluation.imports.tables import import_answers
from medical_vqa.evaluation.joining import join
from medical_vqa.schema.records import Example


@pytest.fixture
def rows(examples):
    return [
        replace(e, id=f"slake/test/{10 + int(e.id)}", facts={**e.facts, "qid": str(10 + int(e.id))}) for e in examples
    ]


def lmms(rows):
    """lmms_eval/loggers/evaluation_tracker.py; the record is that of tasks/slake/utils.py."""
    lines = []
    for n, row in enumerate(rows):
        record = {"id": row.facts["qid"], "prediction": f"a{n}", "target": row.answers[0], "is_correct": False}
        prompt = f"{row.question}\nAnswer the question using a single word or phrase."
        line = {"doc_id": n, "target": row.answers[0], "filtered_resps": [f"a{n}"], "input": prompt}
        lines.append({**line, "doc_hash": "x", "slake_accuracy": record})
    return lines


def lm_harness(rows):
    """lm_eval/loggers/evaluation_tracker.py: the row of the dataset, and the prompt as the first argument."""
    return [
        {
            "doc_id": n,
            "doc": {"qid": int(row.facts["qid"]), "question": row.question, "answer": row.answers[0]},
            "target": row.answers[0],
            "arguments": {"gen_args_0": {"arg_0": f"<image>{row.question}\nAnswer:", "arg_1": {"until": ["\n"]}}},
            "resps": [[f"a{n}"]],
            "filtered_resps": [f"a{n}"],
            "filter": "none",
            "metrics": ["exact_match"],
            "exact_match": 0.0,
        }
        for n, row in enumerate(rows)
    ]


def llava(rows):
    return [
        {
            "question_id": int(row.facts["qid"]),
            "prompt": row.question,
            "text": f"a{n}",
            "answer_id": "x",
            "model_id": "m",
        }
        for n, row in enumerate(rows)
    ]


def medevalkit(rows):
    return [
        {"question": row.question, "prompt": f"{row.question} Answer:", "answer": row.answers[0], "response": f"a{n}"}
        for n, row in enumerate(rows)
    ]


def batch(rows):
    body = [{"choices": [{"message": {"role": "assistant", "content": f"a{n}"}}]} for n in range(len(rows))]
    return [
        {"id": f"batch_req_{n}", "custom_id": row.id, "response": {"status_code": 200, "body": body[n]}, "error": None}
        for n, row in enumerate(rows)
    ]


def responses_batch(rows):
    """The output of a batch of the Responses API, in which reasoning precedes the answer."""
    lines = batch(rows)
    for n, line in enumerate(lines):
        reasoning = {"type": "reasoning", "summary": []}
        message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": f"a{n}"}]}
        line["response"]["body"] = {"object": "response", "output": [reasoning, message]}
    return lines


def helm(rows):
    states = []
    for n, row in enumerate(rows):
        media = [{"content_type": "image/png", "location": "x"}, {"content_type": "text/plain", "text": row.question}]
        instance = {
            "id": f"id{n}",
            "input": {"text": "", "multimedia_content": {"media_objects": media}},
            "references": [{"output": {"text": row.answers[0]}, "tags": ["correct"]}],
        }
        states.append({"instance": instance, "result": {"completions": [{"text": f"a{n}"}]}})
    return {"adapter_spec": {}, "request_states": states}


def inspect_samples(rows):
    return [
        {
            "id": row.id,
            "input": [
                {"role": "user", "content": [{"type": "image", "image": "x"}, {"type": "text", "text": row.question}]}
            ],
            "target": row.answers[0],
            "output": {"choices": [{"message": {"content": f"a{n}"}}]},
        }
        for n, row in enumerate(rows)
    ]


def vlmevalkit(rows):
    return [
        {"index": n, "question": row.question, "answer": row.answers[0], "prediction": f"a{n}"}
        for n, row in enumerate(rows)
    ]


def lines(content):
    return "".join(json.dumps(row) + "\n" for row in content)


@pytest.mark.parametrize(
    ("tool", "name", "text"),
    [
        ("lmms-eval", "20260801_samples_slake_en.jsonl", lambda rows: lines(lmms(rows))),
        ("lmms-eval", "samples_slake_2026-08-01.jsonl", lambda rows: lines(reversed(lm_harness(rows)))),
        ("llava", "answer-file.jsonl", lambda rows: lines(llava(rows))),
        ("medevalkit", "results.json", lambda rows: json.dumps(medevalkit(rows))),
        ("openai-batch", "batch_output.jsonl", lambda rows: lines(batch(rows))),
        ("openai-batch", "responses_output.jsonl", lambda rows: lines(responses_batch(rows))),
        ("helm", "scenario_state.json", lambda rows: json.dumps(helm(rows))),
        ("inspect", "log.json", lambda rows: json.dumps({"eval": {}, "samples": inspect_samples(rows)})),
        ("vlmevalkit", "m_slake.json", lambda rows: json.dumps(vlmevalkit(rows))),
    ],
)
def test_a_tool_s_file_is_recognized_and_joined(tmp_path, rows, tool, name, text):
    (tmp_path / name).write_text(text(rows), encoding="utf-8")
    found = import_answers(tmp_path / name, None, rows)
    assert found.tool == tool
    assert {p.id: p.answer for p in found.predictions} == {row.id: f"a{n}" for n, row in enumerate(rows)}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("samples.json", lambda rows: lines(lmms(rows)).encode()),
        ("scenario_state.json.gz", lambda rows: gzip.compress(json.dumps(helm(rows)).encode())),
        ("results.jsonl", lambda rows: json.dumps(medevalkit(rows), indent=2).encode("utf-16")),
    ],
)
def test_a_tool_s_file_is_recognized_by_its_content_and_not_by_its_ending(tmp_path, rows, name, text):
    (tmp_path / name).write_bytes(text(rows))
    found = import_answers(tmp_path / name, None, rows)
    assert {p.id: p.answer for p in found.predictions} == {row.id: f"a{n}" for n, row in enumerate(rows)}
    assert found.tool


def helm_trials(rows):
    """Two sets of examples in the prompt, and two seeds each: adapters/in_context_learning_adapter.py."""
    content = helm(rows)
    states = content["request_states"]
    content["request_states"] = [
        {
            **state,
            "train_trial_index": trial,
            "request": {"random": seed},
            "result": {"completions": [{"text": state["result"]["completions"][0]["text"] + suffix}]},
        }
        for trial, seed, suffix in ((0, None, ""), (0, "1", "b"), (1, None, "c"), (1, "1", "d"))
        for state in states
    ]
    return json.dumps(content)


def inspect_epochs(rows):
    samples = [
        {**sample, "epoch": epoch, "output": {"choices": [{"message": {"content": f"a{n}{suffix}"}}]}}
        for n, sample in enumerate(inspect_samples(rows))
        for epoch, suffix in ((1, ""), (2, "b"))
    ]
    return json.dumps({"eval": {}, "samples": samples})


def harness_filters(rows):
    content = lm_harness(rows)
    return lines([*content, *({**row, "filter": "flexible-extract", "filtered_resps": ["other"]} for row in content)])


def lmms_repeats(rows):
    """`repeats` with the filter ``take_first_k``, which the tracker writes as one list."""
    return lines(
        {**row, "filtered_resps": [*row["filtered_resps"], "other"], "slake_accuracy": 1} for row in lmms(rows)
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("scenario_state.json", helm_trials),
        ("log.json", inspect_epochs),
        ("samples_slake.jsonl", harness_filters),
        ("1_samples_slake.jsonl", lmms_repeats),
    ],
)
def test_of_several_answers_to_a_question_the_first_is_read_and_the_others_are_named(tmp_path, rows, name, text):
    (tmp_path / name).write_text(text(rows))
    found = import_answers(tmp_path / name, None, rows)
    assert {p.id: p.answer for p in found.predictions} == {row.id: f"a{n}" for n, row in enumerate(rows)}
    assert len(found.predictions) == len(rows)
    assert [(one.n, "the first answer is read" in one.reason) for one in found.warnings] == [(len(rows), True)]


@pytest.mark.parametrize("version", ["objects", "lists"])
def test_of_choices_whose_likelihoods_a_harness_compares_the_most_likely_is_the_answer(tmp_path, rows, version):
    """lm_eval/api/task.py, output_type multiple_choice: the target is a number, and no answer is written."""
    content = lm_harness(rows)
    for n, row in enumerate(content):
        choices = [" other", f" a{n}", f" {rows[n].answers[0]}"]
        if version == "objects":  # since 0.4.3, in which all are texts
            row["arguments"] = {f"gen_args_{k}": {"arg_0": "x", "arg_1": text} for k, text in enumerate(choices)}
            row["filtered_resps"] = [["-7.5", "True"], ["-0.25", "False"], ["-10.0", "False"]]
        else:
            row["arguments"] = [["x", text] for text in choices]
            row["filtered_resps"] = [[-7.5, True], [-0.25, False], [-10.0, False]]
        row |= {"resps": [[pair] for pair in row["filtered_resps"]], "target": 2}
    (tmp_path / "samples_slake.jsonl").write_text(lines(content))
    found = import_answers(tmp_path / "samples_slake.jsonl", None, rows)
    assert {p.id: p.answer for p in found.predictions} == {row.id: f"a{n}" for n, row in enumerate(rows)}
    assert not found.warnings


def test_one_of_several_targets_of_lmms_eval_is_the_reference(tmp_path, rows):
    content = [{**row, "target": [row["target"], "another word"]} for row in lmms(rows)]
    (tmp_path / "samples.jsonl").write_text(lines(content))
    found = import_answers(tmp_path / "samples.jsonl", None, rows)
    assert {p.id: p.answer for p in found.predictions} == {row.id: f"a{n}" for n, row in enumerate(rows)}


def helm_display(folder, rows, **fields):
    """display_predictions.json and instances.json of a run folder: presentation/run_display.py."""
    instances = [state["instance"] for state in helm(rows)["request_states"]]
    predictions = [
        {"instance_id": one["id"], "train_trial_index": 0, "predicted_text": f" a{n}", "stats": {"f1": 0.0}, **fields}
        for n, one in enumerate(instances)
    ]
    (folder / "instances.json").write_text(json.dumps(instances))
    (folder / "display_predictions.json").write_text(json.dumps(predictions))
    return folder / "display_predictions.json"


def test_displayed_predictions_of_helm_are_joined_by_the_instances_next_to_them(tmp_path, rows):
    path = helm_display(tmp_path, rows)
    found = import_answers(path, None, rows)
    assert found.tool == "helm"
    assert {p.id: p.answer for p in found.predictions} == {row.id: f"a{n}" for n, row in enumerate(rows)}


def test_displayed_predictions_of_helm_without_their_instances_are_refused(tmp_path, rows):
    path = helm_display(tmp_path, rows)
    (tmp_path / "instances.json").write_text(json.dumps([]))
    with pytest.raises(DataError, match=r"row 1: answers the instance id0, which .*instances.json does not have"):
        import_answers(path, None, rows)
    (tmp_path / "instances.json").unlink()
    with pytest.raises(DataError, match=r"without their questions; put instances.json of the same run folder next"):
        import_answers(path, None, rows)


def test_of_displayed_trials_of_helm_the_first_is_read(tmp_path, rows):
    path = helm_display(tmp_path, rows)
    first = json.loads(path.read_text())
    again = [{**row, "train_trial_index": 1, "predicted_text": "other"} for row in first]
    seeds = [{**row, "predicted_text": "another"} for row in first]
    perturbed = [{**row, "perturbation": {"name": "typos"}, "predicted_text": "typo"} for row in first]
    path.write_text(json.dumps([*first, *perturbed, *again, *seeds]))
    found = import_answers(path, None, rows)
    assert {p.id: p.answer for p in found.predictions} == {row.id: f"a{n}" for n, row in enumerate(rows)}
    assert [(one.n, "the first answer is read" in one.reason) for one in found.warnings] == [(len(rows), True)]


def test_a_letter_that_helm_maps_to_a_choice_is_read_as_the_choice(tmp_path, rows):
    """adaptation/adapters/multiple_choice_joint_adapter.py: metrics see the choice, and what is no letter as it is."""
    state = helm(rows)
    for n, one in enumerate(state["request_states"]):
        one |= {"output_mapping": {"A": f"a{n}", "B": "x"}, "result": {"completions": [{"text": " A"}]}}
    state["request_states"][0]["result"]["completions"][0]["text"] = "neither"
    (tmp_path / "scenario_state.json").write_text(json.dumps(state))
    answers = [p.answer for p in import_answers(tmp_path / "scenario_state.json", None, rows).predictions]
    assert answers == ["neither", *(f"a{n}" for n in range(1, len(rows)))]
    path = helm_display(tmp_path, rows, predicted_text="A", mapped_output="liver")
    assert {p.answer for p in import_answers(path, None, rows).predictions} == {"liver"}


def test_a_question_that_the_first_trial_lacks_has_the_answer_of_the_next(tmp_path, rows):
    content = json.loads(helm_trials(rows))
    del content["request_states"][0]
    (tmp_path / "scenario_state.json").write_text(json.dumps(content))
    found = import_answers(tmp_path / "scenario_state.json", None, rows)
    assert {p.id: p.answer for p in found.predictions}[rows[0].id] == "a0b"


def test_an_excel_file_of_vlmevalkit_and_a_binary_log_of_inspect(tmp_path, rows):
    import pandas

    pandas.DataFrame(vlmevalkit(rows)).to_excel(tmp_path / "m.xlsx", index=False)
    with zipfile.ZipFile(tmp_path / "log.eval", "w") as archive:
        for n, sample in enumerate(inspect_samples(rows)):
            archive.writestr(f"samples/{n}_epoch_1.json", json.dumps(sample))
    for name in ("m.xlsx", "log.eval"):
        assert [p.id for p in import_answers(tmp_path / name, None, rows).predictions] == [row.id for row in rows]


def test_row_numbers_as_ids_fall_back_to_what_the_file_says_of_its_rows(tmp_path, rows):
    numbered = [{**line, "question_id": n + 11} for n, line in enumerate(reversed(llava(rows)))]
    (tmp_path / "answers.jsonl").write_text(lines(numbered))
    with pytest.raises(DataError, match="to which it would be joined"):
        import_answers(tmp_path / "answers.jsonl", None, rows)
    medical = [{**line, "question_id": n} for n, line in enumerate(medevalkit(rows))]
    (tmp_path / "results.json").write_text(json.dumps(list(reversed(medical))))
    found = import_answers(tmp_path / "results.json", None, rows)
    assert {p.id: p.answer for p in found.predictions}[rows[0].id] == "a0"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("scenario_state.json", {"request_states": []}),
        ("log.json", {"eval": {}, "samples": []}),
        ("results.json", []),
        ("answers.csv", "id,answer\n"),
        ("answers.tsv", "id\tanswer\n"),
    ],
)
def test_a_file_without_a_row_is_refused(tmp_path, rows, name, content):
    (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DataError, match=f"{name}: has no answers; write one row per question"):
        import_answers(tmp_path / name, None, rows)


@pytest.mark.parametrize("row", [None, [1], "text"])
@pytest.mark.parametrize(("name", "key"), [("scenario_state.json", "request_states"), ("log.json", "samples")])
def test_a_row_that_is_no_object_is_named(tmp_path, rows, name, key, row):
    content = helm(rows) if key == "request_states" else {"eval": {}, key: inspect_samples(rows)}
    content[key].append(row)
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"{name} row {len(rows) + 1}: expected an object"):
        import_answers(tmp_path / name, None, rows)


def test_an_answer_of_inspect_that_is_a_list_of_texts_is_read(tmp_path, rows):
    samples = inspect_samples(rows)
    samples[0]["output"]["choices"][0]["message"]["content"] = ["lung", "liver"]
    samples[1]["input"] = ["text", None]
    (tmp_path / "log.json").write_text(json.dumps({"eval": {}, "samples": samples}))
    assert import_answers(tmp_path / "log.json", None, rows).predictions[0].answer == "lung, liver"


def test_a_failed_request_of_a_batch_is_named(tmp_path, rows):
    content = batch(rows)
    content[2] = {**content[2], "response": None, "error": {"message": "overloaded"}}
    (tmp_path / "b.jsonl").write_text(lines(content))
    found = import_answers(tmp_path / "b.jsonl", None, rows)
    assert (len(found.predictions), found.failed) == (5, (rows[2].id,))


def test_a_failed_request_of_vlmevalkit_or_inspect_is_no_wrong_answer(tmp_path, rows):
    excel, log = vlmevalkit(rows), inspect_samples(rows)
    excel[2]["prediction"] = "Failed to obtain answer via API."
    log[2] |= {"output": {"model": "", "choices": [], "completion": ""}, "error": {"message": "timeout"}}
    (tmp_path / "a.json").write_text(json.dumps(excel))
    (tmp_path / "log.json").write_text(json.dumps({"eval": {}, "samples": log}))
    for name in ("a.json", "log.json"):
        found = import_answers(tmp_path / name, None, rows)
        assert (found.failed, len(found.predictions)) == ((rows[2].id,), len(rows) - 1)


def test_one_of_several_targets_of_inspect_is_the_reference(tmp_path, rows):
    log = [{**row, "target": [row["target"], "another word"]} for row in inspect_samples(rows)]
    (tmp_path / "log.json").write_text(json.dumps({"eval": {}, "samples": log}))
    found = import_answers(tmp_path / "log.json", None, rows)
    assert [(one.id, one.answer) for one in found.predictions] == [(row.id, f"a{n}") for n, row in enumerate(rows)]


@pytest.mark.parametrize("layout", [inspect_samples, lmms])
def test_several_answers_to_every_question_are_called_so(tmp_path, rows, layout):
    """Rows that nothing tells apart, as where a file was appended to itself."""
    content = layout(rows) * 3
    path = tmp_path / ("log.json" if layout is inspect_samples else "samples.jsonl")
    path.write_text(json.dumps({"eval": {}, "samples": content}) if path.name == "log.json" else lines(content))
    with pytest.raises(DataError, match=r"every question it answers has several predictions \(slake/test/11 has 3\)"):
        join(rows, import_answers(path, None, rows).predictions).require_scored()


def one_question_each(rows):
    return [replace(row, image_id=f"vqa-med-2020/synpic{n}") for n, row in enumerate(rows)]


def test_a_run_file_of_vqa_med_is_joined_by_image_in_any_order(tmp_path, rows):
    path = tmp_path / "run.txt"
    path.write_text("".join(f"synpic{n}|a{n}\n" for n in reversed(range(len(rows)))))
    imported = import_answers(path, None, one_question_each(rows))
    assert imported.tool == "vqa-med"
    assert {p.id: p.answer for p in imported.predictions} == {row.id: f"a{n}" for n, row in enumerate(rows)}


def test_a_run_file_about_images_with_several_questions_is_refused(tmp_path, rows):
    path = tmp_path / "run.txt"
    path.write_text(f"{rows[0].image_id}|a\n")
    asked_twice = [replace(row, image_id=rows[0].image_id) for row in rows]
    with pytest.raises(DataError, match=r"row 1: the image .* has 6 questions; name the column of the question too"):
        import_answers(path, None, asked_twice)


def test_images_of_a_run_file_that_the_split_does_not_have_are_unknown(tmp_path, rows):
    path = tmp_path / "run.txt"
    path.write_text("synpic0|a\nsynpic99|b\n")
    imported = import_answers(path, None, one_question_each(rows))
    assert [p.id for p in imported.predictions] == [rows[0].id, "synpic99"]


@pytest.mark.parametrize("bad", ["synpic2 a2", "synpic2|a|2", "|a2", "synpic2"])
def test_a_line_of_a_run_file_without_image_and_answer_is_named(tmp_path, rows, bad):
    path = tmp_path / "run.txt"
    path.write_text("".join(f"synpic{n}|a{n}\n" if n != 2 else f"\n{bad}\n" for n in range(len(rows))))
    with pytest.raises(DataError) as error:
        import_answers(path, None, one_question_each(rows))
    assert str(error.value) == (
        f"{path}:4: expected an image and an answer with one | between them, such as synpic1|mass, got {bad!r}; "
        "correct it"
    )


def test_several_bad_lines_of_a_run_file_are_counted(tmp_path, rows):
    path = tmp_path / "run.txt"
    path.write_text("synpic0|a\nsynpic1\nsynpic2|c\nsynpic3\nsynpic4|e\n")
    with pytest.raises(DataError, match=r"run\.txt:2: .*'synpic1' \(and 1 more like it\); correct it"):
        import_answers(path, None, one_question_each(rows))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_run_file_in_the_encodings_of_windows_is_read(tmp_path, rows, encoding, end):
    path = tmp_path / "run.txt"
    path.write_bytes("".join(f"synpic{n}|é\u2028{n}{end}" for n in range(len(rows))).encode(encoding))
    imported = import_answers(path, None, one_question_each(rows))
    assert {p.id: p.answer for p in imported.predictions} == {row.id: f"é\u2028{n}" for n, row in enumerate(rows)}


def test_a_table_with_bars_and_a_header_is_no_run_file(tmp_path, rows):
    path = tmp_path / "answers.txt"
    path.write_text("Question ID|text\n" + "".join(f"{row.id}|a{n}\n" for n, row in enumerate(rows)))
    imported = import_answers(path, None, rows)
    assert [(p.id, p.answer) for p in imported.predictions] == [(row.id, f"a{n}") for n, row in enumerate(rows)]


def asked_of_many_images():
    """One question with two references of twelve images, and one of its own."""
    references = ["CT", "MRI", "CT", "CT", "MRI", "MRI", "CT", "MRI", "MRI", "CT", "CT", "MRI"]
    asked = [("What modality is it?", reference) for reference in references]
    asked.insert(5, ("Which organ?", "Liver"))
    return [Example(f"slake/test/{n}", f"slake/i{n}", q, (a,), f"slake/i{n}") for n, (q, a) in enumerate(asked)]


def as_medevalkit(path, rows):
    content = [{"question": r.question, "prompt": r.question, "answer": r.answers[0], "response": r.id} for r in rows]
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(("first", "last"), [(0, 7), (3, 13)])
def test_a_part_of_a_split_in_its_order_is_joined_row_by_row(tmp_path, first, last):
    rows = asked_of_many_images()
    imported = import_answers(as_medevalkit(tmp_path / "part.json", rows[first:last]), None, rows)
    assert [(p.id, p.answer) for p in imported.predictions] == [(row.id, row.id) for row in rows[first:last]]


def test_a_file_with_further_rows_around_the_split_is_joined_row_by_row(tmp_path):
    rows = asked_of_many_images()
    further = [replace(row, id=f"slake/train/{n}") for n, row in enumerate(rows[:3])]
    imported = import_answers(as_medevalkit(tmp_path / "more.json", [*further, *rows, *further]), None, rows)
    assert [p.answer for p in imported.predictions if p.id.startswith("slake/test")] == [row.id for row in rows]


def test_one_row_never_answers_the_same_question_about_several_images(tmp_path):
    rows = asked_of_many_images()
    every_other = [*rows[::2], rows[5]]  # not a part in order, and fewer rows of each question than the split has
    with pytest.raises(
        DataError, match=r"only 1 of 8 rows can be joined by their question and reference: .* row 1 asks"
    ):
        import_answers(as_medevalkit(tmp_path / "some.json", every_other), None, rows)


def test_another_split_of_the_same_length_is_never_joined_by_the_order_of_a_batch(tmp_path, rows):
    other = [replace(row, id=row.id.replace("test", "train")) for row in rows]
    path = tmp_path / "batch.jsonl"
    path.write_text(lines(batch(other)))
    assert {p.id for p in import_answers(path, None, rows).predictions} == {row.id for row in other}


@pytest.mark.parametrize(
    "image",
    [lambda name: {"bytes": b"\x89PNG", "path": name}, lambda name: {"bytes": b"\x89PNG", "path": None}, str.encode],
)
def test_a_parquet_file_of_the_hub_with_predictions_is_joined(tmp_path, rows, image):
    """Its images are joined by their names; without names by question and reference, or by ids."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    lines = [
        {
            "image": image(f"{row.image_id}.jpg"),
            "question": row.question,
            "answer": row.answers[0],
            "prediction": f"a{n}",
        }
        for n, row in enumerate(rows)
    ]
    with_ids = [{"id": row.id, **line} for row, line in zip(rows, lines, strict=True)]
    for content in (lines, with_ids):
        parquet.write_table(pa.Table.from_pylist(content), tmp_path / "test-00000-of-00001.parquet")
        found = import_answers(tmp_path / "test-00000-of-00001.parquet", None, rows)
        assert {p.id: p.answer for p in found.predictions} == {row.id: f"a{n}" for n, row in enumerate(rows)}


def test_a_table_that_pandas_wrote_by_column_is_read(tmp_path, rows):
    import pandas

    frame = pandas.DataFrame([{"id": row.id, "answer": f"a{n}"} for n, row in enumerate(rows)])
    frame.to_json(tmp_path / "answers.json")
    frame.to_excel(tmp_path / "answers.xlsx", index=False, startrow=2)
    for name in ("answers.json", "answers.xlsx"):
        found = import_answers(tmp_path / name, None, rows)
        assert {p.id: p.answer for p in found.predictions} == {row.id: f"a{n}" for n, row in enumerate(rows)}


ORIENTS = ["split", "records", "index", "columns", "table"]


@pytest.mark.parametrize("compressed", ["", ".gz"])
@pytest.mark.parametrize("orient", [*ORIENTS, "lines"])
@pytest.mark.parametrize("ids", ["column", "column of a part", "index"])
def test_every_layout_of_pandas_is_read(tmp_path, rows, orient, ids, compressed):
    import pandas

    frame = pandas.DataFrame([{"qid": row.facts["qid"], "answer": f"a{n}"} for n, row in enumerate(rows)])
    part = rows if ids == "column" else rows[1:]
    frame = frame if ids == "column" else frame[1:]
    path = tmp_path / f"a.json{compressed}"
    if ids == "index":
        frame = frame.set_index("qid")
        if orient in ("records", "lines"):  # these lose the index
            orient = "split"
    frame.to_json(path, **({"orient": "records", "lines": True} if orient == "lines" else {"orient": orient}))
    found = import_answers(path, None, rows)
    assert {p.id: p.answer for p in found.predictions} == {row.id: f"a{rows.index(row)}" for row in part}


@pytest.mark.parametrize("orient", ["split", "index", "table"])
def test_one_column_of_pandas_with_the_ids_as_its_index_is_read(tmp_path, rows, orient):
    import pandas

    pandas.Series([f"a{n}" for n in range(len(rows))], [row.id for row in rows], name="answer").to_json(
        tmp_path / "a.json", orient=orient
    )
    found = import_answers(tmp_path / "a.json", None, rows)
    assert {p.id: p.answer for p in found.predictions} == {row.id: f"a{n}" for n, row in enumerate(rows)}


def test_a_layout_of_pandas_without_the_names_of_its_columns_is_refused(tmp_path, rows):
    import pandas

    pandas.DataFrame({"id": [row.id for row in rows], "answer": "a"}).to_json(tmp_path / "a.json", orient="values")
    with pytest.raises(DataError, match=r"a.json row 1: expected an object, got a list; .*to_json\(orient=.records.\)"):
        import_answers(tmp_path / "a.json", None, rows)


def test_a_table_that_pandas_split_with_rows_of_another_length_is_refused(tmp_path, rows):
    (tmp_path / "a.json").write_text(json.dumps({"columns": ["id", "answer"], "data": [["1", "a"], ["2"]]}))
    with pytest.raises(DataError, match=r"a.json row 2: has 1 cells for 2 columns"):
        import_answers(tmp_path / "a.json", None, rows)
    (tmp_path / "a.json").write_text(json.dumps({"columns": ["id", "answer"], "index": [3], "data": [["1", "a"]] * 2}))
    with pytest.raises(DataError, match=r"a.json: has 1 entries of the index for 2 rows"):
        import_answers(tmp_path / "a.json", None, rows)


def test_a_table_that_pandas_wrote_by_row_number_is_read(tmp_path, rows):
    content = {str(n): {"question_id": row.facts["qid"], "answer": f"a{n}"} for n, row in enumerate(rows)}
    (tmp_path / "a.json").write_text(json.dumps(content))
    found = import_answers(tmp_path / "a.json", None, rows)
    assert [(one.id, one.answer) for one in found.predictions] == [(row.id, f"a{n}") for n, row in enumerate(rows)]
    assert found.columns["id"] == "question_id"
