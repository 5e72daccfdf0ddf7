"""`medical-vqa ask` of a model behind an endpoint."""

import json

import pytest
from PIL import Image

pytestmark = pytest.mark.enable_socket


def test_what_was_seen_is_said_of_every_picture_of_a_question(call, fake, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    Image.new("L", (8, 8), 90).save(tmp_path / "now.png")
    Image.new("RGB", (9, 10), (1, 2, 3)).save(tmp_path / "before.jpg")
    fake.count_pictures().say("Yes")
    command = ["ask", "now.png", "Has it grown?", "--and", "before.jpg", "--model", "openai:m", "--base-url", fake.url]
    code, out, err = call(*command)
    assert code == 0, err
    assert "seen of now.png: PNG, 8x8" in out
    assert "seen of before.jpg: JPEG, 9x10" in out
    answer = json.loads(call(*command, "--json")[1])
    assert (answer["seen"]["format"], [seen["format"] for seen in answer["others_seen"]]) == ("PNG", ["JPEG"])


def test_an_answer_that_declines_in_words_is_withheld(call, fake, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    Image.new("L", (8, 8), 90).save(tmp_path / "a.png")
    fake.count_pictures().say("I am unable to interpret medical images.")
    code, out, err = call("ask", "a.png", "Is it CT?", "--model", "openai:m", "--base-url", fake.url, "--json")
    assert code == 0, err
    assert json.loads(out)["reason_code"] == "model_declined"
