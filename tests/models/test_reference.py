"""The divided networks against transformers' own forward pass on the same weights, and ranking against brute force."""

import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from medical_vqa.models.base import Query
from medical_vqa.models.hf.blip2 import Blip2
from medical_vqa.models.hf.chat import ChatVlm
from medical_vqa.models.hf.generation import read_generated, to_prediction
from medical_vqa.models.hf.vilt import Vilt
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.records import Example

sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))
import tiny_hub

ROWS = [("What modality is this?", "CT"), ("Which part?", "left lung"), ("Is the liver there?", "no")]
EXAMPLES = [Example(f"{i}", "image", q, (a,), "image") for i, (q, a) in enumerate(ROWS)]
LORA = {"targets": "language", "rank": 2, "alpha": 4.0, "dropout": 0.0, "dora": False}
PICTURE = np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)
BLACK = np.zeros((28, 28, 3), np.uint8)


def query(row=0, picture=PICTURE, target=None):
    question, answer = ROWS[row]
    return Query(str(row), question, "image" if picture is PICTURE else "black", picture, target or answer)


@pytest.mark.parametrize("targets", ["language", "qformer"])
@pytest.mark.parametrize("language", ["t5", "opt"])
def test_blip2_computes_what_transformers_does(tmp_path, language, targets):
    hub = tiny_hub.blip2(tmp_path, language)
    model = Blip2.build(EXAMPLES, checkpoint=str(hub), lora=LORA | {"targets": targets}, prompt="{question}")
    reference = transformers.Blip2ForConditionalGeneration.from_pretrained(hub)
    words, answer = model.tokenizer(ROWS[1][0]).input_ids, ROWS[1][1]
    ids = [reference.config.image_token_id] * reference.config.num_query_tokens + words
    if language == "t5":
        labels = model.tokenizer(text_target=answer).input_ids
    else:
        tail = [*model.tokenizer(f" {answer}", add_special_tokens=False).input_ids, model.tokenizer.eos_token_id]
        labels, ids = [-100] * len(ids) + tail, ids + tail
    pixels = model.processor.image_processor(images=[PICTURE], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = reference(pixel_values=pixels, input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
        batch = model.collate([query(1)])
        model.module.eval()
        actual = model.module(batch) / batch["supervised"]
    assert actual.item() == pytest.approx(expected.item(), rel=1e-5)


def test_vilt_computes_what_transformers_does_on_pictures_of_different_sizes(tmp_path):
    model = Vilt.build(EXAMPLES, checkpoint=str(tiny_hub.vilt(tmp_path / "hub")))
    model.save(tmp_path)
    reference = transformers.ViltForQuestionAnswering.from_pretrained(tmp_path).eval()
    pictures = [np.random.default_rng(i).integers(0, 256, shape, dtype=np.uint8) for i, shape in
                enumerate([(60, 80, 3), (80, 56, 3), (60, 80, 3)])]  # fmt: skip
    queries = [Query(str(i), ROWS[i][0], str(i % 2), pictures[i % 2], ROWS[i][1]) for i in range(3)]
    words = model.tokenizer([q.question for q in queries], padding=True, return_tensors="pt")
    pixels = model.processor(images=[q.visual for q in queries], return_tensors="pt", input_data_format="channels_last")
    assert pixels["pixel_mask"].min() == 0  # the smaller ones are filled up
    with torch.no_grad():
        expected = reference(**words, **pixels).logits
        model.module.eval()
        actual = model.module.logits(model.collate(queries))
    assert torch.allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize("kind", list(tiny_hub.CHAT))
def test_chat_models_compute_what_transformers_does_on_the_whole_conversation(tmp_path, kind):
    hub = tiny_hub.chat(tmp_path, kind)
    model = ChatVlm.build(EXAMPLES, checkpoint=str(hub), lora=LORA, prompt="{question}", side=28)
    reference = transformers.AutoModelForImageTextToText.from_pretrained(hub)
    question, answer = ROWS[1]
    token, processor = model.processor.image_token, model.processor
    if kind == "paligemma":
        inputs = processor(text=[f"{token}{question}"], images=[Image.fromarray(PICTURE)], suffix=[answer],
                           return_tensors="np")  # fmt: skip
        inputs = {key: torch.tensor(np.array(value)) for key, value in inputs.items() if key != "labels"}
    else:
        place = f"<|vision_start|>{token}<|vision_end|>" if "qwen" in kind else token
        text = f"<start>user\n{place}{question}<end>\n<start>assistant\n{answer}<end>"
        inputs = dict(processor(text=[text], images=[Image.fromarray(PICTURE)], return_tensors="pt"))
    count = len(model.format.answer(answer))
    labels = inputs["input_ids"].clone()
    labels[:, :-count] = -100
    inputs.pop("batch_num_images", None)
    with torch.no_grad():
        logits = reference(**inputs).logits[:, -count - 1 : -1]
        expected = torch.nn.functional.cross_entropy(logits[0].float(), labels[0, -count:], reduction="sum")
        model.module.eval()
        actual = model.module(model.collate([query(1)]))
    assert actual.item() == pytest.approx(expected.item(), rel=1e-5)


def models(tmp_path):
    lora = LORA | {"alpha": 8.0}
    for language in ("t5", "opt"):
        yield Blip2.build(
            EXAMPLES, checkpoint=str(tiny_hub.blip2(tmp_path / language, language)), lora=lora, prompt="{question}"
        )
    yield ChatVlm.build(
        EXAMPLES, checkpoint=str(tiny_hub.chat(tmp_path / "chat")), lora=lora, prompt="{question}", side=28
    )


def test_ranking_gives_the_likelihood_of_each_training_answer(tmp_path):
    for model in models(tmp_path):
        model.module.eval()
        for row in range(3):
            actual = model.answer([query(row)], Decoding(method="rank", alternatives=2))[0]
            batches = {a: model.collate([query(row, target=a)]) for _, a in ROWS}
            with torch.no_grad():
                losses = {answer: model.module(batch).item() for answer, batch in batches.items()}
            assert [actual.answer, *dict(actual.alternatives)] == sorted(losses, key=losses.__getitem__)
            mean = losses[actual.answer] / batches[actual.answer]["supervised"].item()
            assert actual.confidence == pytest.approx(math.exp(-mean), rel=1e-4)


def test_beams_give_alternatives_that_differ(tmp_path):
    for model in models(tmp_path):
        actual = model.answer([query(0)], Decoding(method="beam", beams=4, max_tokens=3, alternatives=3))[0]
        assert len({actual.answer, *dict(actual.alternatives)}) == 1 + len(actual.alternatives)


@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_an_answer_that_reaches_the_limit_of_tokens_is_cut_off(tmp_path, method):
    for model in models(tmp_path):
        decoding = Decoding(method=method, beams=2, max_tokens=2, alternatives=1)
        assert model.answer([query(0)], decoding)[0].cut_off


def test_only_an_answer_without_an_end_token_is_cut_off():
    end, padding = 1, 0
    tokens = torch.tensor([[5, 6, 7], [5, end, padding], [5, 6, end]])
    logits = tuple(torch.zeros(3, 9) for _ in range(3))
    output = SimpleNamespace(sequences=tokens, logits=logits)
    tokenizer = SimpleNamespace(batch_decode=lambda rows, **_: [" ".join(map(str, row)) for row in rows])
    answers = [answer for (answer,) in read_generated(output, tokenizer, [end], per_question=1)]
    assert [(answer.text, answer.cut_off) for answer in answers] == [("5 6 7", True), ("5", False), ("5 6", False)]
    predictions = [to_prediction("1", [answer], 0) for answer in answers]
    assert [one.cut_off for one in predictions] == [True, False, False]


def test_another_picture_is_another_likelihood(tmp_path):
    for model in models(tmp_path):
        model.module.eval()
        with torch.no_grad():
            loss, loss_of_black = (
                model.module(model.collate([query(1, picture)])).item() for picture in (PICTURE, BLACK)
            )
        assert loss != loss_of_black
