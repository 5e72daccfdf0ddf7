"""What every family of published checkpoints has to do, checked on small random models of its classes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medical_vqa.data.imaging.preprocessing import prepare_picture
from medical_vqa.errors import ModelError
from medical_vqa.models.base import Query
from medical_vqa.models.hf.blip2 import Blip2
from medical_vqa.models.hf.chat import ChatVlm
from medical_vqa.models.hf.vilt import Vilt
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.records import Example

sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))
import tiny_hub

ROWS = [
    ("What modality is used to take this image?", "CT"),
    ("Which part of the body does this image belong to?", "chest"),
    ("Is there any liver?", "no"),
    ("Is the lung left?", "yes"),
    ("What is this?", "MRI"),
    ("Which part?", "left lung"),
    ("Is the heart there?", "no"),
    ("What color is the liver?", "red"),
]
EXAMPLES = [Example(f"t/{i}", f"image{i % 3}", q, (a,), f"image{i % 3}") for i, (q, a) in enumerate(ROWS)]
LORA = {"rank": 2, "alpha": 8.0, "dropout": 0.0, "dora": False}
PROMPT = "Answer the following question based on the image: {question}"


def vilt(hub: Path, **options: Any) -> Any:
    return Vilt.build(EXAMPLES, checkpoint=str(hub), **options)


def blip2(hub: Path, targets: str, **options: Any) -> Any:
    return Blip2.build(EXAMPLES, checkpoint=str(hub), lora=LORA | {"targets": targets}, prompt=PROMPT, **options)


def chat(hub: Path, **options: Any) -> Any:
    lora = LORA | {"dora": options.pop("dora", False)}
    return ChatVlm.build(EXAMPLES, checkpoint=str(hub), lora=lora, prompt="{question}\nBe short.", side=84, **options)


FAMILIES: dict[str, tuple[Any, Any]] = {
    "vilt": (tiny_hub.vilt, vilt),
    "blip2-t5-language": (tiny_hub.blip2, lambda hub, **o: blip2(hub, "language", **o)),
    "blip2-t5-both": (tiny_hub.blip2, lambda hub, **o: blip2(hub, "both", **o)),
    "blip2-opt-qformer": (lambda hub: tiny_hub.blip2(hub, "opt"), lambda hub, **o: blip2(hub, "qformer", **o)),
    **{f"chat-{kind}": (lambda hub, kind=kind: tiny_hub.chat(hub, kind), chat) for kind in tiny_hub.CHAT},
}
CACHED = [name for name in FAMILIES if name != "vilt"]
ONE_OF_EACH = ["vilt", "blip2-t5-both", "blip2-opt-qformer", "chat-qwen2_5_vl"]


@pytest.fixture(scope="session")
def hubs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folders: dict[str, Path] = {}

    def hub(name: str) -> Path:
        if name not in folders:
            folders[name] = FAMILIES[name][0](tmp_path_factory.mktemp(name))
        return folders[name]

    return hub


@pytest.fixture
def build(hubs: Any) -> Any:
    def make(name: str, **options: Any) -> Any:
        torch.manual_seed(3)
        return FAMILIES[name][1](hubs(name), **options)

    return make


def every(*names: str) -> Any:
    return pytest.mark.parametrize("name", names or list(FAMILIES))


SHAPES = [(60, 80, 3), (80, 56, 3), (64, 64, 3)]


def queries(model: Any, *, learn: bool = False, features: bool = False) -> list[Query]:
    pixels = [np.random.default_rng(i).integers(0, 256, shape, dtype=np.uint8) for i, shape in enumerate(SHAPES)]
    visuals: list[Any] = [prepare_picture(Image.fromarray(p), model.picture) for p in pixels]
    if features:
        visuals = model.vision.encode(visuals)
    return [
        Query(e.id, e.question, e.image_id, visuals[i % 3], e.answers[0] if learn else None)
        for i, e in enumerate(EXAMPLES)
    ]


def disturb(model: Any) -> Any:
    """Give adapters, which begin at zero, an effect."""
    with torch.no_grad():
        for number, p in enumerate(p for p in model.module.parameters() if p.requires_grad):
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(number)))
    return model


@every()
def test_one_prediction_per_query_in_order(build, name):
    model = build(name)
    in_order = queries(model)
    for order in (in_order, in_order[::-1]):
        assert [p.id for p in model.answer(order, Decoding(max_tokens=2))] == [q.id for q in order]
    assert model.answer([], Decoding()) == []


@every()
@pytest.mark.parametrize("method", ["greedy", "beam", "rank"])
def test_a_batch_of_eight_equals_eight_batches_of_one(build, name, method):
    model = disturb(build(name))
    decoding = Decoding(method=method, max_tokens=3, beams=2, alternatives=2)
    together = model.answer(queries(model), decoding)
    alone = [model.answer([query], decoding)[0] for query in queries(model)]
    assert [p.answer for p in together] == [p.answer for p in alone]
    assert [p.confidence for p in together] == pytest.approx([p.confidence for p in alone], rel=1e-3)
    assert all(0 <= p.confidence <= 1 and p.answer not in dict(p.alternatives) for p in together)
    if method == "rank":
        assert all(len(p.alternatives) == 2 and p.answer in [a for _, a in ROWS] for p in together)


@every()
def test_what_was_saved_answers_the_same(build, name, tmp_path):
    model = disturb(build(name))
    model.save(tmp_path)
    again = type(model).load(tmp_path, device=torch.device("cpu"))
    decoding = Decoding(max_tokens=3)
    old, new = model.answer(queries(model), decoding), again.answer(queries(again), decoding)
    assert [p.answer for p in new] == [p.answer for p in old]
    assert [p.confidence for p in new] == pytest.approx([p.confidence for p in old], rel=1e-5)
    assert all(path.stat().st_size < 1_000_000 for path in tmp_path.iterdir())


@every()
def test_the_loss_is_summed_over_what_is_supervised(build, name):
    model = disturb(build(name))
    model.module.eval()
    rows = queries(model, learn=True)
    together, alone = model.collate(rows), [model.collate([row]) for row in rows]
    assert together["supervised"] == sum(batch["supervised"] for batch in alone)
    assert model.module(together).item() == pytest.approx(sum(model.module(b).item() for b in alone), rel=1e-4)


@every()
def test_the_loss_falls_on_two_examples(build, name):
    model = build(name)
    batch = model.collate(queries(model, learn=True)[:2])
    optimizer = torch.optim.Adam([p for p in model.module.parameters() if p.requires_grad], lr=3e-2)
    model.module.train()
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        losses.append(model.module(batch))
        losses[-1].backward()
        optimizer.step()
    # a Q-Former's adapters reach a frozen random language model through four tokens only
    assert losses[-1].item() < losses[0].item() * (1 - 1e-4 if name.endswith("qformer") else 0.97)


def loss_and_gradients(model: Any, rows: list[Query]) -> tuple[float, torch.Tensor]:
    model.module.zero_grad()
    model.module.train()
    loss = model.module(model.collate(rows))
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in model.module.parameters() if p.requires_grad])


@every(*CACHED)
def test_cached_features_give_the_loss_the_gradients_and_the_answers_of_pictures(build, name):
    model = disturb(build(name))
    plain, plain_gradients = loss_and_gradients(model, queries(model, learn=True))
    cached, cached_gradients = loss_and_gradients(model, queries(model, learn=True, features=True))
    assert cached == pytest.approx(plain, rel=1e-6)
    assert torch.allclose(cached_gradients, plain_gradients, atol=1e-5)
    decoding = Decoding(max_tokens=3)
    from_features = model.answer(queries(model, features=True), decoding)
    from_pictures = model.answer(queries(model), decoding)
    assert [p.answer for p in from_features] == [p.answer for p in from_pictures]
    assert [p.confidence for p in from_features] == pytest.approx([p.confidence for p in from_pictures], rel=1e-5)


@every(*CACHED)
def test_features_are_the_same_to_the_bit_after_a_step(build, name):
    model = build(name)
    pictures = [query.visual for query in queries(model)]
    before = model.vision.encode(pictures)
    optimizer = torch.optim.AdamW([p for p in model.module.parameters() if p.requires_grad], lr=0.1)
    loss_and_gradients(model, queries(model, learn=True))
    optimizer.step()
    for old, new in zip(before, model.vision.encode(pictures), strict=True):
        assert old.keys() == new.keys()
        assert all(torch.equal(old[key], new[key]) for key in old)


@every()
def test_questions_grouped_by_image_give_the_loss_and_the_gradients_of_questions_apart(build, name):
    model = disturb(build(name))
    rows = queries(model, learn=True)
    apart = [Query(q.id, q.question, f"{q.image}/{i}", q.visual, q.target) for i, q in enumerate(rows)]
    grouped_loss, grouped = loss_and_gradients(model, rows)
    apart_loss, separate = loss_and_gradients(model, apart)
    assert grouped_loss == pytest.approx(apart_loss, rel=1e-5)
    assert torch.allclose(grouped, separate, atol=1e-4)


@every(*CACHED)
def test_only_adapters_train_and_a_checkpoint_holds_nothing_else(build, name):
    model = build(name)
    trained = [n for n, p in model.module.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in n for n in trained)
    assert set(model.module.state_dict()) == set(trained)
    state = {k: torch.zeros_like(v) for k, v in model.module.state_dict().items()}
    assert model.module.load_state_dict(state, strict=True).missing_keys == []


@every(*ONE_OF_EACH)
def test_gradient_checkpointing_changes_memory_and_not_the_gradients(build, name):
    plain, sparing = disturb(build(name)), disturb(build(name, gradient_checkpointing=True))
    loss, gradients = loss_and_gradients(plain, queries(plain, learn=True))
    again, others = loss_and_gradients(sparing, queries(sparing, learn=True))
    assert again == pytest.approx(loss, rel=1e-6)
    assert torch.allclose(gradients, others, atol=1e-5)


@every(*ONE_OF_EACH)
@pytest.mark.parametrize("question", ["", "   ", "why " * 2500])
def test_an_impossible_question_is_refused(build, name, question):
    model = build(name)
    with pytest.raises(ModelError, match="question"):
        model.answer([Query("q", question, "image1", queries(model)[0].visual)], Decoding())


@every(*ONE_OF_EACH)
def test_a_row_without_an_answer_is_refused(build, name):
    model = build(name)
    with pytest.raises(ModelError, match="without an answer"):
        model.collate(queries(model))


@every(*ONE_OF_EACH)
def test_pictures_are_augmented_in_training_and_not_when_answering(build, name):
    augment = {"rotate": 10.0, "shift": 0.1, "scale": 0.1, "intensity": 0.1}
    options = {} if name == "vilt" else {"features": False}
    model = build(name, augment=augment, **options)
    rows = queries(model, learn=True)[:2]
    torch.manual_seed(0)
    assert model.module(model.collate(rows)).item() != model.module(model.collate(rows)).item()
    first, second = (model.answer(rows, Decoding(max_tokens=2)) for _ in range(2))
    assert [p.answer for p in first] == [p.answer for p in second]
    assert [p.confidence for p in first] == pytest.approx([p.confidence for p in second], rel=1e-5)


def test_dora_learns_magnitudes_too(build):
    model = build("chat-qwen2_5_vl", dora=True)
    assert any("magnitude" in name for name, p in model.module.named_parameters() if p.requires_grad)
    assert np.isfinite(loss_and_gradients(model, queries(model, learn=True))[0])
