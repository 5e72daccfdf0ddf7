"""The conversation as a file."""

import json

from fake_backend import png

from medical_vqa.app.case import ask, open_case
from medical_vqa.app.client import Backend
from medical_vqa.app.i18n.texts import Texts
from medical_vqa.app.transcript import as_json, as_markdown


def test_a_conversation_is_written_as_text_and_as_data(backend):
    case = open_case(backend, "scan.png", png(96))
    for question in ("How wide?", "How is the weather?"):
        ask([backend], case, question, attention_map=True)
    text = as_markdown(case, Texts("en"))
    assert text.startswith("# Medical-VQA: scan.png\n\n> Research software.")
    assert "not for diagnosis" in text
    assert "\n\n**How wide?**\n\n- 96 pixels (Confidence 91%), fake-model\n" in text
    assert "- Not sure. This is not a question" in text
    assert text.endswith("Best guess: 96 pixels (Confidence 8%), fake-model\n")
    content = json.loads(as_json(case))
    assert [turn["answers"][0]["abstained"] for turn in content["turns"]] == [False, True]
    assert "attention_map" not in content["turns"][0]["answers"][0]


def test_a_reply_that_failed_is_written_as_its_failure(backend):
    case = open_case(backend, "scan.png", png(96))
    absent = Backend("http://127.0.0.1:9", attempts=1)
    ask([backend, absent], case, "How wide?", attention_map=False)
    assert f"- {Texts('en').failure('unreachable')}\n" in as_markdown(case, Texts("en"))
    assert json.loads(as_json(case))["turns"][0]["answers"][1] == {"error": "unreachable"}
