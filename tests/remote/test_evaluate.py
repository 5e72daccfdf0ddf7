"""A remote model on the command line: its full evaluation, and one question to several models."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import medical_vqa.pipelines.score as pipelines_score

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


def test_one_command_evaluates_a_remote_model(call, fake, root: Path, tmp_path: Path, monkeypatch):
    scored: list[object] = []
    score = pipelines_score.score_answers
    monkeypatch.setattr(pipelines_score, "score_answers", lambda *of, **how: scored.append(of) or score(*of, **how))
    fake.count_pictures()
    command = ["evaluate", "openai:m", "--base-url", fake.url, "--dataset", "slake-mini", "--root", root]
    command += ["--where", "content_type=Size", "--out", tmp_path / "out", "--probe-images", 3]
    command += ["--price", 1e6, 0]
    status, out, err = call(*command)
    assert status == 0, err
    assert "squad_v2" in out
    assert "llava_med" in out
    assert len(scored) == 1  # the report shows the scores that are printed
    results = json.loads((tmp_path / "out" / "results-validation.json").read_text())
    assert "image-shuffled" in json.dumps(results)
    assert "Uses the image for" in out
    assert "Does it use the image?" in (tmp_path / "out" / "report-validation.html").read_text()
    questions = len((tmp_path / "out" / "predictions-validation.jsonl").read_text().splitlines())
    probed = len((tmp_path / "out" / "probe-validation.answers.jsonl").read_text().splitlines()) - 1
    assert probed > questions // 2
    assert f"{2 * questions + probed} requests" in out
    prompt_tokens = int(re.findall(r"([\d,]+) prompt tokens", out)[0].replace(",", ""))
    assert f"cost {prompt_tokens:.4f}" in out
    before = len(fake.asked)
    status, _, err = call(*command)
    assert status == 0, err
    assert len(fake.asked) - before <= 2 * questions + 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--probe-images", 0], "--probe-images (probe_images=) is 0: ask about at least one image"),
        (["--no-probe", "--probe-images", 3], "--probe-images (probe_images=) is 3: leave it out, since nothing is"),
        (["--concurrency", 0], "concurrency is 0; at least one request must run"),
        (["--price", -1, 2], "Invalid value for '--price': -1.0 is not in the range x>=0"),
    ],
)
def test_a_wrong_option_is_refused_before_a_model_is_asked(call, fake, root: Path, tmp_path: Path, options, message):
    command = ["evaluate", "openai:m", "--base-url", fake.url, "--dataset", "slake-mini", "--root", root]
    status, out, err = call(*command, "--out", tmp_path / "out", *options)
    assert (status, out) == (2, "")
    assert message in " ".join(err.split())
    assert not (tmp_path / "out").exists()


def test_one_question_to_several_models_is_a_table(call, fake, picture, tmp_path: Path, monkeypatch):
    (tmp_path / "models.yaml").write_text(
        f"models:\n  mine: {{model: m, base_url: '{fake.url}'}}\n"
        "  gone: {model: x, base_url: 'http://127.0.0.1:1/v1', tries: 1}\n"
    )
    fake.answer = lambda body: (
        200,
        fake.reply | {"usage": {"prompt_tokens": 10 * len(body["messages"][0]["content"]), "completion_tokens": 1}},
    )
    status, out, err = call("ask", picture, "Is this a CT?", "--all-models")
    assert status == 0, err
    head, shipped, mine, gone = out.strip().splitlines()
    assert head.split() == ["model", "question", "answer", "confidence"]
    assert shipped.startswith("shipped")
    assert mine.split()[-2:] == ["Yes", "90%"]
    assert "did not answer in 1 try" in gone
