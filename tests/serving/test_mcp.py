"""Tools for agents, asked through the SDK's own client."""

from __future__ import annotations

import asyncio
import base64
from types import SimpleNamespace

import numpy as np
import pytest
from live import png

from medical_vqa.errors import ModelError
from medical_vqa.serving.mcp_server import create_mcp_server

mcp = pytest.importorskip("mcp")
DATA = f"data:image/png;base64,{base64.encodebytes(png()).decode()}"


class Answer:
    def __init__(self, image, question, frame):
        self.values = {
            "image": str(image),
            "answer": f"{question} {frame}",
            "abstained": True,
            "reason": "I am not sure",
        }

    def to_dict(self):
        return self.values


class Model:
    card = SimpleNamespace(model_dump=lambda mode: {"name": "tiny", "license": "none"})

    def ask(self, image, question, *, frame=None, window=None):
        assert image.is_file()
        if "refuse" in question:
            raise ModelError("this question is refused; ask another")
        return Answer(image, question, frame)

    def attention_map(self, image, question, *, frame=None, window=None):
        return SimpleNamespace(weights=np.array([[0.1, 0.2], [0.0, 0.7]], np.float32))


@pytest.fixture
def call(tmp_path):
    """Calls a tool of a server whose images are in a folder with one picture."""
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "scan.png").write_bytes(png())
    (tmp_path / "secret.png").write_bytes(png())
    server = create_mcp_server(Model(), folder)

    def run(name, **arguments):
        async def work():
            async with mcp.Client(server) as client:
                return await client.call_tool(name, arguments)

        return asyncio.run(work())

    return run


def test_a_question_has_an_answer_and_an_abstention_is_a_result(call):
    for image in ("scan.png", DATA):
        result = call("ask_image", image=image, question="Is it?", frame=3)
        assert not result.is_error
        assert result.structured_content == {"answer": "Is it? 3", "abstained": True, "reason": "I am not sure"}


def test_a_series_is_asked_frame_by_frame(call):
    answers = call("ask_series", image="scan.png", question="q", frames=[0, 5]).structured_content["answers"]
    assert [(answer["frame"], answer["answer"]) for answer in answers] == [(0, "q 0"), (5, "q 5")]


def test_facts_card_and_place_need_no_answer(call):
    facts = call("describe_image", image="scan.png").structured_content
    assert (facts["format"], facts["width"], facts["frames"]) == ("PNG", 16, 1)
    assert call("model_card").structured_content["name"] == "tiny"
    assert call("localize", image="scan.png", question="q").structured_content["strongest"] == {"x": 0.75, "y": 0.75}


@pytest.mark.parametrize(
    ("image", "question", "message"),
    [
        ("../secret.png", "q", "below the server's image folder"),
        ("/etc/passwd", "q", "below the server's image folder"),
        ("none.png", "q", "below the server's image folder"),
        ("data:image/png;base64,!!!", "q", "encode it again"),
        ("data:image/png,raw", "q", "encode it again"),
        ("scan.png", "refuse", "ask another"),
    ],
)
def test_an_error_is_one_sentence(call, image, question, message):
    result = call("ask_image", image=image, question=question)
    assert result.is_error and message in result.content[0].text
    assert "Traceback" not in result.content[0].text
