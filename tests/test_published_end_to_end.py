"""Each published layout through all stages: train, predict, score, serve, a new picture, export, elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from PIL import Image

from medical_vqa.config import parse_recipe
from medical_vqa.data.imaging.preprocessing import prepare_picture
from medical_vqa.pipelines.ask import ask
from medical_vqa.pipelines.export import export
from medical_vqa.pipelines.load import load
from medical_vqa.pipelines.predict import predict
from medical_vqa.pipelines.score import score
from medical_vqa.pipelines.serve import build_engine
from medical_vqa.pipelines.train import train

sys.path.insert(0, str(Path(__file__).parent / "hub"))
sys.path.insert(0, str(Path(__file__).parent / "serving"))
import live
from layouts import LAYOUTS
from plain import Plain

QUESTION = "Which organ is the largest?"


@pytest.mark.slow
@pytest.mark.enable_socket
@pytest.mark.allow_hosts(["127.0.0.1", "localhost"])
@pytest.mark.parametrize("name", list(LAYOUTS))
def test_a_published_layout_gives_the_same_answer_at_every_stage(name, root, tmp_path, watcher, picture):
    layout = LAYOUTS[name]
    checkpoint = layout.write(tmp_path / "checkpoint")
    options: dict[str, Any] = {"family": layout.family, "checkpoint": str(checkpoint)}
    if layout.family != "vilt":
        options |= {"lora": {"rank": 4, "alpha": 64.0, "dropout": 0.0}}
    if layout.family == "chat":
        options |= {"side": 56, "prompt": "{question}\nBe short."}
    content = {
        "name": "published",
        "data": {"name": "slake-mini", "root": str(root), "where": {"content_type": "Size"}},
        "model": options,
        "training": {"epochs": 1, "batch_size": 16, "device": "cpu", "average": 0, "learning_rate": 1e-2},
        "decoding": {"max_tokens": 4, "alternatives": 0},
    }
    trained = train(parse_recipe(content, origin="test"), tmp_path / "run", watcher=watcher)
    loaded = load(trained.bundle, device="cpu")
    assert score(predict(loaded, split="validation").path).answered.predictions
    (asked,) = ask(loaded, picture, [QUESTION])

    settings = live.settings(model=trained.bundle, device="cpu")
    with live.serving(build_engine(settings), settings) as url:
        file = {"image_file": picture.read_bytes()}
        served = httpx2.post(f"{url}/ask", files=file, data={"question": QUESTION}, timeout=live.PATIENCE).json()
    assert served["confidence"] == pytest.approx(asked.confidence, abs=1e-4)

    exported = Path(export(trained.bundle, to=str(tmp_path / "exported")))
    assert str(checkpoint) not in (exported / "README.md").read_text(encoding="utf-8")
    plain = Plain(name, checkpoint, exported)
    model: Any = loaded.model
    with Image.open(picture) as image:
        pixels = Image.fromarray(prepare_picture(image.convert("RGB"), model.picture))
    if layout.family == "vilt":
        assert asked.text == vilt_answer(plain, pixels)
        return
    stops = list(model.end_tokens)
    prompt = model.prompt.replace("{question}", QUESTION)
    assert asked.raw == plain.answer(pixels, prompt, stops=stops, tokens=4)


@torch.inference_mode()
def vilt_answer(plain: Plain, image: Image.Image) -> str:
    inputs = plain.tokenizer(QUESTION, return_tensors="pt") | plain.images(images=[image], return_tensors="pt")
    inputs.pop("token_type_ids", None)
    best = int(plain.model(**inputs).logits.argmax())
    return plain.model.config.id2label[best]
