"""A probe of a live remote model: whether its answers depend on the picture, and what it costs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from medical_vqa.schema.probe import read_probe

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


def reply_to(fake: Any, body: Any, *, sees: bool) -> Any:
    """An answer that follows from the picture's bytes, or always the same; tokens as a model that takes pictures."""
    content = body["messages"][0]["content"]
    pictures = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    digest = hashlib.sha256("".join(pictures).encode()).digest()[0]
    text = f"Answer {digest}" if sees else "Yes"
    choice = fake.reply["choices"][0] | {"message": {"role": "assistant", "content": text}, "logprobs": None}
    usage = {"prompt_tokens": 10 + 256 * len(pictures), "completion_tokens": 1}
    return 200, fake.reply | {"choices": [choice], "usage": usage}


@pytest.mark.parametrize("sees", [True, False])
def test_a_remote_model_is_probed_from_the_command_line(call, fake, root: Path, tmp_path: Path, sees: bool):
    fake.answer = lambda body: reply_to(fake, body, sees=sees)
    out = tmp_path / "probe.json"
    command = ["probe", "openai:m", "--base-url", fake.url, "--dataset", "slake-mini", "--root", root]
    command += ["--where", "content_type=Size", "--limit", "2", "--out", out, "--json"]
    status, printed, err = call(*command)
    assert status == 0, err
    probe = read_probe(out)
    assert json.loads(printed)["images"] == probe.images == 2
    everything = next(group for group in probe.groups if group.fact == "all")
    assert everything.uses_image.value == float(sees)
    assert out.with_suffix(".html").is_file()
    before = len(fake.asked)
    assert call(*command)[0] == 0
    assert len(fake.asked) == before  # every answer is kept
