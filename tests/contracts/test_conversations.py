"""Rows with several turns and pictures: losses, gradients and answers are those of the whole conversation elsewhere."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medical_vqa.data.cache.features import FeatureStore
from medical_vqa.data.imaging.picture_statistics import NO_CONTEXT
from medical_vqa.data.imaging.preprocessing import prepare_picture
from medical_vqa.errors import ModelError
from medical_vqa.models.base import Query
from medical_vqa.models.hf.chat import ChatVlm
from medical_vqa.schema.bundle_card import BundleCard, Decoding
from medical_vqa.schema.records import Example, Turn
from medical_vqa.serving.engine.answers import EngineAnswer, EngineOptions
from medical_vqa.serving.engine.local import Engine

sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))
from cases import EXAMPLES, LORA, build
from plain import ANSWER_TURNS, Plain

FAMILIES = ["qwen2.5-vl", "qwen3-vl", "llava-1.5", "internvl3", "smolvlm", "gemma3"]
SYSTEM = "Be short."
TURNS = [("What is this?", "CT"), ("Which part?", "left lung"), ("Is  in  the heart there?", "no")]
PLACES = ((0, 0), (2, 3), (2, 7))
SHAPES = [(44, 60, 3), (60, 30, 3), (44, 60, 3)]


def pictures(model: Any) -> list[Any]:
    pixels = [np.random.default_rng(i).integers(0, 256, shape, dtype=np.uint8) for i, shape in enumerate(SHAPES)]
    return [prepare_picture(Image.fromarray(one), model.picture) for one in pixels]


def conversation(model: Any, *, system: str = SYSTEM, visuals: list[Any] | None = None) -> list[Query]:
    """The three questions of a conversation, as they come from a prepared dataset."""
    visuals = visuals or pictures(model)
    rows = []
    for number, (question, answer) in enumerate(TURNS):
        shown = sum(turn <= number for turn, _ in PLACES)
        places = PLACES[:shown] if shown > 1 else ()
        others = {"other_visuals": tuple(visuals[1:shown]), "other_images": tuple(f"image{i}" for i in range(1, shown))}
        before = {"turns": tuple(TURNS[:number]), "system": system, "image_places": places}
        rows.append(Query(f"q{number}", question, "image0", visuals[0], answer, **others, **before))
    return rows


def disturbed(model: Any) -> Any:
    with torch.no_grad():
        for number, p in enumerate(p for p in model.module.parameters() if p.requires_grad):
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(number)))
    return model


def messages(model: Any, system: str) -> list[dict[str, Any]]:
    """The conversation as other programs write it, in parts of text and images."""
    turns: list[dict[str, Any]] = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
    marked = ["#What is this?", "Which part?", "Is # in # the heart there?"]
    for question, (_, answer) in zip(marked, TURNS, strict=True):
        prompt = question + model.prompt.removeprefix("{question}")
        first, *others = prompt.split("#")
        content = [{"type": "text", "text": first}] if first else []
        for other in others:
            content += [{"type": "image"}, {"type": "text", "text": other}]
        turns.append({"role": "user", "content": content})
        turns.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return turns


class Whole:
    """The conversation by a model's own processor and template, with transformers and PEFT alone."""

    def __init__(self, model: Any, plain: Plain, system: str) -> None:
        self.plain = plain
        self.turns = messages(model, system)
        self.images = [Image.fromarray(picture) for picture in pictures(model)]

    def render(self, turns: list[dict[str, Any]], *, answer_follows: bool) -> str:
        template = self.plain.processor.chat_template
        text: str = self.plain.tokenizer.apply_chat_template(
            turns, chat_template=template, add_generation_prompt=answer_follows, tokenize=False
        )
        return text

    def encode(self, text: str) -> dict[str, Any]:
        processor, bos = self.plain.processor, self.plain.tokenizer.bos_token
        images = self.images[: text.count(processor.image_token)]
        special = not (bos is not None and text.startswith(bos))
        return dict(processor(text=[text], images=[images], return_tensors="pt", add_special_tokens=special))

    def prompt(self, question: int) -> str:
        """Everything up to the answer of a question."""
        end = [place for place, turn in enumerate(self.turns) if turn["role"] == "assistant"][question]
        return self.render(self.turns[:end], answer_follows=True)

    def answered(self, question: int) -> dict[str, Any]:
        """Input of the network up to the answer of a question, with labels for that answer."""
        start = self.encode(self.prompt(question))["input_ids"].shape[1]
        answer = ANSWER_TURNS[self.plain.name].format(TURNS[question][1])
        inputs = self.encode(self.prompt(question) + answer)
        labels = inputs["input_ids"].clone()
        labels[:, :start] = -100
        return inputs | {"labels": labels}

    def at_once(self) -> dict[str, Any]:
        """Input of the network with labels for every answer."""
        *parts, inputs = [self.answered(question) for question in range(len(TURNS))]
        labels = inputs["labels"]
        for part in parts:
            length = part["labels"].shape[1]
            assert torch.equal(inputs["input_ids"][:, :length], part["input_ids"])
            labels[:, :length] = torch.where(part["labels"] != -100, part["labels"], labels[:, :length])
        return inputs


@pytest.mark.parametrize("name", FAMILIES)
def test_each_answer_is_trained_once_with_all_that_precedes_it(written, tmp_path, name):
    model = disturbed(build(name, written(name), dtype="fp32"))
    model.save(tmp_path)
    rows = conversation(model)
    model.module.train()
    batch = model.collate(rows)
    loss = model.module(batch)
    loss.backward()
    own = {n.removeprefix("peft_model."): p.grad for n, p in model.module.named_parameters() if p.requires_grad}

    plain = Plain(name, written(name), tmp_path)
    whole = Whole(model, plain, SYSTEM)
    # LLaVA-1.5's template writes no end token behind earlier answers, which training puts behind the last one
    parts = [whole.answered(n) for n in range(len(TURNS))] if name == "llava-1.5" else [whole.at_once()]
    expected, supervised = 0.0, 0
    for inputs in parts:
        tokens = int((inputs["labels"] != -100).sum())
        part = plain.model(**inputs).loss * tokens
        part.backward()
        expected, supervised = expected + part.item(), supervised + tokens
    gradients = {n: p.grad for n, p in plain.model.named_parameters() if p.requires_grad}
    assert batch["supervised"] == supervised
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert own.keys() == gradients.keys()
    assert all(torch.allclose(own[n], gradients[n], atol=1e-5, rtol=1e-4) for n in own)


@pytest.mark.parametrize("name", FAMILIES)
def test_answers_with_earlier_turns_and_cached_features_equal_those_of_transformers_and_peft(written, tmp_path, name):
    model = disturbed(build(name, written(name), dtype="fp32"))
    model.save(tmp_path / "bundle")
    whole = Whole(model, Plain(name, written(name), tmp_path / "bundle"), SYSTEM)
    store = FeatureStore(tmp_path / "features", model.vision.fingerprint)
    visuals = dict(zip(("image0", "image1", "image2"), pictures(model), strict=True))
    store.ensure(list(visuals), visuals.__getitem__, model.vision.encode)
    cached = conversation(model, visuals=[store.get(name) for name in visuals])
    loss, again = (model.module(model.collate(rows)).item() for rows in (conversation(model), cached))
    assert again == pytest.approx(loss, rel=1e-6)
    stops = list(model.end_tokens)
    for beams in (1, 3):
        decoding = Decoding(method="beam" if beams > 1 else "greedy", beams=max(2, beams), max_tokens=4, alternatives=0)
        found = [model.answer(rows, decoding) for rows in (conversation(model), cached)]
        assert [p.raw for p in found[0]] == [p.raw for p in found[1]]
        for question, prediction in enumerate(found[0]):
            inputs = whole.encode(whole.prompt(question))
            new = whole.plain.generate(inputs, stops=stops, tokens=4, beams=beams)
            assert prediction.raw == new


@pytest.mark.parametrize("name", ["qwen2.5-vl", "llava-1.5", "smolvlm"])
def test_rows_of_every_kind_share_a_batch_and_a_question_alone_is_what_it_was(written, name):
    model = disturbed(build(name, written(name)))
    model.module.eval()
    rows = conversation(model)
    single = dataclasses.replace(rows[0], id="single", system="")
    assert single.is_single
    rows.append(single)
    together = model.module(model.collate(rows)).item()
    assert together == pytest.approx(sum(model.module(model.collate([row])).item() for row in rows), rel=1e-4)
    as_conversation = dataclasses.replace(single, image_places=((0, 0),))
    assert not as_conversation.is_single
    batches = [model.collate([row]) for row in (single, as_conversation)]
    assert all(torch.equal(batches[0][key], batches[1][key]) for key in batches[0])
    for method in ("greedy", "rank"):
        decoding = Decoding(method=method, max_tokens=3, alternatives=1)
        at_once, alone = model.answer(rows, decoding), [model.answer([row], decoding)[0] for row in rows]
        assert [p.answer for p in at_once] == [p.answer for p in alone]


@pytest.mark.parametrize("lora", [{"projector": True}, {"vision": "lora"}], ids=["projector", "vision"])
def test_gradients_reach_the_projector_and_the_encoder_through_every_picture(written, lora):
    model = disturbed(build("qwen2.5-vl", written("qwen2.5-vl"), lora=lora))
    last = conversation(model)[-1]
    parts = []
    for visuals in (pictures(model), [*pictures(model)[:2], np.zeros_like(pictures(model)[2])]):
        model.module.zero_grad()
        model.module(model.collate([dataclasses.replace(last, other_visuals=tuple(visuals[1:]))])).backward()
        tower, projector = model.vision_parts(model.module.base)
        names = projector if "projector" in lora else tower
        own = [p.grad for n, p in model.module.base.named_parameters() if p.requires_grad and n.startswith(names)]
        parts.append(torch.cat([gradient.flatten() for gradient in own if gradient is not None]))
    assert parts[0].abs().sum() > 0
    assert not torch.allclose(parts[0], parts[1])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("paligemma2", {}, "no chat template, so that it cannot take several images, earlier turns or a system"),
        ("llava-onevision", {}, "computes a picture among several in another way than one alone"),
        (
            "qwen2.5-vl",
            {"question": "Is <|image_pad|> here?"},
            "a text holds '<.image_pad.>', which stands for an image",
        ),
        ("qwen2.5-vl", {"question": "why " * 2500}, "at most 8,000 are read"),
    ],
)
def test_what_a_model_cannot_take_is_one_sentence(written, name, change, message):
    model = build(name, written(name))
    row = dataclasses.replace(conversation(model)[-1], **change)
    with pytest.raises(ModelError, match=message):
        model.collate([row])


def test_a_template_without_a_system_message_says_so(written):
    model = build("qwen2.5-vl", written("qwen2.5-vl"))
    published = model.processor.chat_template
    model.processor.chat_template = published.replace(" in messages", " in messages if message['role'] != 'system'")
    with pytest.raises(ModelError, match="leaves the system message out"):
        model.collate(conversation(model))
    assert model.collate(conversation(model, system=""))
    refusal = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    model.processor.chat_template = refusal + published
    with pytest.raises(ModelError, match=r"the chat template cannot write such a question \(no system role\)"):
        model.collate(conversation(model))


def test_the_plan_counts_every_picture_and_the_turns_of_the_longest_row(written):
    name = "qwen2.5-vl"
    options = {"checkpoint": str(written(name)), "side": 56, "lora": LORA}
    turns = tuple(Turn(question, answer) for question, answer in TURNS[:2])
    longest = Example("t/9", "a", "Compare", ("no",), "a", {}, ("b", "c"), turns)
    (alone,), (several,) = (
        ChatVlm.memory_estimate(rows, **options).stacks for rows in (EXAMPLES, [*EXAMPLES, longest])
    )
    model = build(name, written(name))
    black = np.zeros((56, 56, 3), np.uint8)
    image = len(model.format.image(black).prefix)
    assert several.tokens - alone.tokens > 2 * image


@pytest.mark.parametrize(("name", "takes"), [
    *((name, (8, 8, True)) for name in FAMILIES),
    ("paligemma2", (1, 0, False)),  # no chat template
    ("llava-onevision", (1, 8, True)),  # computes several pictures in another way than one
])  # fmt: skip
def test_a_model_says_how_much_of_a_conversation_it_takes(written, name, takes):
    model = build(name, written(name))
    assert (model.max_pictures, model.max_turns, model.reads_system) == takes
    assert model.slices_together == 1


@pytest.mark.parametrize("name", ["qwen2.5-vl", "llava-1.5"])
def test_the_server_answers_a_conversation_as_the_model_does_and_one_question_in_the_same_batch(written, name):
    model = disturbed(build(name, written(name)))
    *_, query = conversation(model)
    single = Query("single", "Which part?", "image0", query.visual)
    decoding = Decoding(max_tokens=4)
    expected = [model.answer([one], decoding)[0] for one in (query, single)]
    engine = Engine(model, BundleCard(family="chat", name="tiny", decoding=decoding), EngineOptions(deadline=600.0))

    async def ask() -> list[EngineAnswer]:
        visuals = [await engine.encode(image, visual) for image, visual in query.pictures]
        conversing = engine.ask(
            "image0",
            visuals[0],
            query.question,
            others=[(*other, NO_CONTEXT) for other in zip(query.other_images, visuals[1:], strict=True)],
            turns=query.turns,
            system=query.system,
            places=query.image_places,
        )
        return await asyncio.gather(conversing, engine.ask("image0", visuals[0], single.question))

    engine.start()
    try:
        answers = [answer.answer.prediction for answer in asyncio.run(ask())]
    finally:
        engine.close()
    assert [one.answer for one in answers] == [one.answer for one in expected]
    assert [one.confidence for one in answers] == pytest.approx([one.confidence for one in expected], rel=1e-4)
