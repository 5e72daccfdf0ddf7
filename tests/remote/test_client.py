"""The client of remote models, against a fake endpoint on this machine that speaks the same protocol."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import math
import subprocess
import sys
import threading
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest
from fake_endpoint import questions
from PIL import Image

from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.errors import ConfigError, EndpointDownError, MissingDependencyError, ModelError
from medical_vqa.models.base import Query
from medical_vqa.models.remote.endpoint import Endpoint
from medical_vqa.models.remote.model import RemoteModel
from medical_vqa.models.remote.retries import seconds_before_retry
from medical_vqa.pipelines.load import load, remote, remote_named
from medical_vqa.pipelines.predict import predict
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.records import read_predictions
from medical_vqa.schema.selection import Selection

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_that_was_cut_off_is_counted_and_noted(connect, fake, streamed):
    model = connect(max_tokens=5, probe=True)
    fake.count_pictures().say("x", finish_reason="length")
    model.check()  # asks for one token, which cuts no answer off
    assert (model.usage.cut_off, model.notes) == (0, ())
    fake.answer = None
    fake.say("There is no", finish_reason="length")
    if streamed:
        fake.stream("There ", "is no")
        fake.events[-2] = fake.events[-2].replace('"stop"', '"length"')
    (query,) = questions(1, "Is it {}?")
    prediction = model.submit(query, (lambda _: None) if streamed else None).result()
    assert (prediction.answer, prediction.cut_off) == ("There is no", True)
    assert model.usage.cut_off == 1
    assert model.notes == ("1 answer was cut off after 5 tokens; raise max_tokens in models.yaml",)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (429, {"message": "You exceeded your current quota", "code": "insufficient_quota"}),
        (402, {"message": "Insufficient Balance", "code": "invalid_request_error"}),
    ],
)
def test_an_account_without_credit_is_named_and_not_asked_again(connect, fake, status, error):
    fake.answer = lambda _: (status, {"error": error})
    with pytest.raises(ModelError, match=rf"has no credit left for this key \(HTTP {status}: {error['message']}\)"):
        connect().answer(questions(1), Decoding())
    assert len(fake.asked) == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"concurrency": "8"}, "concurrency is '8'"),
        ({"concurrency": 1.5}, "concurrency is 1.5"),
        ({"api_key": 7}, "api_key: expected the key as text, got int"),
        ({"base_url": 7}, "--base-url 7: expected http"),
    ],
)
def test_a_setting_of_another_type_is_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        load("openai:m", **{"base_url": "http://127.0.0.1:1/v1", **settings})


def test_question_and_picture_are_sent_and_the_answer_comes_back(ask, fake):
    model, (answer,) = ask()
    assert (answer.id, answer.answer, answer.raw) == ("0", "Yes", " Yes\n")
    assert answer.confidence == pytest.approx(0.9048, abs=1e-4)
    (body,) = fake.asked
    picture, text = body["messages"][0]["content"]
    assert (body["model"], body["temperature"], body["logprobs"]) == ("m", 0, True)
    assert text["text"].endswith("Question: Is it 0?")
    picture_sent = Image.open(io.BytesIO(base64.b64decode(picture["image_url"]["url"].partition(",")[2])))
    assert (picture_sent.size, picture_sent.mode, picture_sent.getpixel((0, 0))) == ((6, 8), "L", 7)
    assert {k.lower(): v for k, v in fake.headers[0].items()}["authorization"] == "Bearer k"
    counts = {"requests": 1, "retries": 0, "prompt_tokens": 10, "completion_tokens": 2, "filtered": 0, "cut_off": 0}
    assert model.usage.to_json() == counts


def test_answers_keep_their_order_while_several_requests_run(ask, fake):
    _, answers = ask(n=30, concurrency=6)
    assert [answer.id for answer in answers] == [str(i) for i in range(30)]
    assert 1 < fake.most <= 6


def test_requests_that_fail_for_a_temporary_reason_are_repeated_and_counted(ask, fake):
    fake.failures = [429, 503]
    model, (answer,) = ask()
    assert answer.answer == "Yes"
    assert (model.usage.requests, model.usage.retries) == (1, 2)


def test_an_endpoint_that_stays_unavailable_is_given_up_with_what_to_do(connect, fake):
    fake.failures = [503] * 9
    model = connect()
    with pytest.raises(EndpointDownError, match=r"in 3 tries \(HTTP 503: no such luck\); start the engine"):
        model.answer(questions(1), Decoding())
    assert (len(fake.asked), model.usage.requests, model.usage.retries) == (3, 0, 2)


def test_no_endpoint_at_all(monkeypatch):
    monkeypatch.setattr("medical_vqa.models.remote.client.seconds_before_retry", lambda *_: 0.0)
    model = RemoteModel(Endpoint("m", "http://127.0.0.1:1/v1", tries=6))
    with pytest.raises(ModelError, match=r"did not answer in 2 tries \(no connection: Connection refused\)"):
        model.answer(questions(1), Decoding())
    model.close()


def test_without_the_client_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'medical-vqa\[remote\]'"):
        RemoteModel(Endpoint("m", "http://127.0.0.1:1/v1"))


def test_an_endpoint_that_needs_no_key_gets_none_of_the_users(fake, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    model = RemoteModel(Endpoint("m", fake.url), probe=False)
    model.answer(questions(1), Decoding())
    model.close()
    assert "authorization" not in {name.lower() for name in fake.headers[0]}


@pytest.mark.parametrize(("status", "advice"), [(401, "OPENAI_API_KEY"), (404, "--base-url"), (400, "--no-logprobs")])
def test_a_refused_request_is_not_repeated(ask, fake, status, advice):
    fake.failures = [status]
    with pytest.raises(ModelError, match=advice):
        ask()
    assert len(fake.asked) <= 2


@pytest.mark.parametrize("reply", [{}, {"choices": []}, {"choices": [{"message": None}]}, "<html>Welcome</html>"])
def test_a_reply_of_another_shape_is_refused(ask, fake, reply):
    fake.reply = reply
    with pytest.raises(ModelError, match="no OpenAI-compatible endpoint"):
        ask()


def test_an_empty_answer_is_an_answer_and_logprobs_can_be_left_out(ask, fake):
    fake.reply = {"choices": [{"message": {"content": None}}]}
    _, (answer,) = ask(logprobs=False)
    assert (answer.answer, answer.confidence) == ("", None)
    assert "logprobs" not in fake.asked[0]


@pytest.mark.parametrize(
    ("logprobs", "confidence"),
    [
        ([float("-inf"), None], None),
        ([0.001], 1.0),
        ([-0.1, None, -0.3], pytest.approx(0.8187, abs=1e-4)),
        ([], None),
    ],
)
def test_confidence_ignores_log_probabilities_that_are_no_finite_number(ask, fake, logprobs, confidence):
    fake.reply["choices"][0]["logprobs"] = {"content": [{"token": "Yes", "logprob": value} for value in logprobs]}
    _, (answer,) = ask(text="What is it {}?")
    assert answer.confidence == confidence


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": "", "base_url": "http://x/v1"}, "needs a name"),
        ({"model": "m", "base_url": "x/v1"}, "expected http"),
        ({"model": "m", "base_url": "ftp://x/v1"}, "expected http"),
        ({"model": "m", "base_url": "http://x:port/v1"}, "expected http"),
        ({"model": "m", "base_url": "http://[::1/v1"}, "expected http"),
        ({"model": "m", "base_url": "http://x y/v1"}, "expected http"),
        ({"model": "m", "base_url": "https://x/v1?api-version=1"}, "without"),
        ({"model": "m", "base_url": "http://x/v1", "prompt": "hello"}, "{question}"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        Endpoint(**settings)


def test_a_password_in_an_address_is_refused_and_not_shown():
    with pytest.raises(ConfigError, match=r"of host\.example:8000 holds a user or a password") as refused:
        Endpoint("m", "https://user:secret@host.example:8000/v1")
    assert "secret" not in str(refused.value)


def test_a_dataset_is_answered_resumed_and_counted(fake, root: Path, tmp_path: Path):
    selection = Selection(dataset="slake-mini", root=root, where={"modality": "MRI"})
    n, out = len(SelectedDataset.open(selection).rows("validation")), tmp_path / "run" / "predictions-validation.jsonl"
    fake.limit = 20
    loaded = remote(Endpoint("m", fake.url, tries=1), concurrency=2, probe=False)
    with pytest.raises(ModelError, match="what was saved is not asked again"):
        predict(loaded, split="validation", selection=selection, out=out)
    assert not out.exists()
    fake.limit, before = 10**9, len(fake.asked)
    usage = predict(loaded, split="validation", selection=selection, out=out).usage
    assert len(read_predictions(out)) == n
    assert len(fake.asked) - before < n
    assert usage.requests >= n
    assert json.loads(out.with_name("predictions-validation.usage.json").read_text())["requests"] == usage.requests
    assert usage.cost(per_million_in=1e6, per_million_out=0) == usage.prompt_tokens
    card = json.loads(out.with_name("predictions-validation.card.json").read_text())
    assert card["model"]["family"] == "openai"
    loaded.close()


def test_questions_about_other_images_make_a_baseline_of_the_remote_model(fake, root: Path, tmp_path: Path):
    from medical_vqa.pipelines.score import score

    selection, out = Selection(dataset="slake-mini", root=root, where={"modality": "MRI"}), tmp_path / "run"
    loaded = remote(Endpoint("m", fake.url, logprobs=False), probe=False)
    path = out / "predictions-validation.jsonl"
    predict(loaded, split="validation", selection=selection, out=path)
    shuffled_path = out / "shuffled-validation.jsonl"
    predict(loaded, split="validation", selection=selection, out=shuffled_path, shuffle_images=True)
    requests = [
        (text["text"], picture["image_url"]["url"])
        for picture, text in (b["messages"][0]["content"] for b in fake.asked)
    ]
    plain, shuffled = sorted(requests[: len(requests) // 2]), sorted(requests[len(requests) // 2 :])
    assert [text for text, _ in plain] == [text for text, _ in shuffled]
    assert plain != shuffled
    assert "image-shuffled" in score(path).baselines
    loaded.close()


# --- addresses and keys -----------------------------------------------------------------------------------------------


def test_an_address_without_its_version_is_tried_with_it_and_that_is_said(connect, fake):
    model = connect(base_url=fake.host)
    (answer,) = model.answer(questions(1), Decoding())
    assert answer.answer == "Yes"
    assert model.notes == (f"{fake.host} answers at {fake.url}; write --base-url with /v1",)


def test_a_key_is_not_sent_to_another_machine_without_encryption(monkeypatch):
    with pytest.raises(ConfigError, match=r"is not encrypted.*https.*--allow-http"):
        RemoteModel(Endpoint("m", "http://gpu.example.org/v1"), api_key="secret")
    RemoteModel(Endpoint("m", "http://gpu.example.org/v1", allow_http=True), api_key="secret").close()
    RemoteModel(Endpoint("m", "http://gpu.example.org/v1")).close()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "vllm.localhost"])
def test_this_machine_needs_no_encryption(host):
    assert Endpoint("m", f"http://{host}:8000/v1").is_local


@pytest.mark.parametrize(
    ("address", "proxy"),
    [("https://x.org/v1", "http://proxy:3128"), ("https://in.house:8443/v1", None), ("http://127.0.0.1:8000/v1", None)],
)
def test_the_proxy_of_the_environment_is_used_for_other_machines(monkeypatch, address, proxy):
    for name in ("https_proxy", "http_proxy"):
        monkeypatch.setenv(name, "http://proxy:3128")
    monkeypatch.setenv("no_proxy", ".house")
    assert Endpoint("m", address).proxy == proxy


@pytest.mark.parametrize("key", ["sk-first\nsk-second", "schlüssel"])
def test_a_key_that_no_header_can_carry_is_refused(key):
    with pytest.raises(ConfigError, match="MY_KEY has characters that no HTTP header can carry"):
        RemoteModel(Endpoint("m", "https://x/v1", api_key_env="MY_KEY"), api_key=key)


def test_a_key_is_not_sent_on_to_where_the_endpoint_redirects(ask, fake):
    fake.failures, fake.location = [307], "https://elsewhere.example.org/v1/chat/completions"
    with pytest.raises(ModelError, match=r"redirects to https://elsewhere\.example\.org/v1; write --base-url"):
        ask()
    assert len(fake.asked) == 1


def test_a_missing_model_names_those_that_are_there(ask, fake):
    fake.models, fake.error = ["medgemma-4b-it", "llava"], {"error": {"message": "The model `m` does not exist."}}
    fake.failures = [404]
    with pytest.raises(ModelError, match="has no model m; it has medgemma-4b-it, llava"):
        ask()


@pytest.mark.parametrize(
    "words",
    [
        "The model `m` does not exist.",  # vLLM
        "model 'm' not found",  # Ollama
        "Server is pinned to '/models/x'; requested 'm'.",  # transformers serve
        'Model "m" is not loaded. No models loaded',  # LM Studio
    ],
)
def test_engines_name_a_missing_model_in_words_of_their_own(ask, fake, words):
    fake.failures, fake.error, fake.models = [400], {"detail": words}, None
    with pytest.raises(ModelError, match="has no model m and lists none"):
        ask()


# --- what engines refuse ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "words", "sentence"),
    [
        (400, "This model's maximum context length is 2048 tokens. However, you requested 4000", "longer than m can"),
        (400, "the request exceeds the available context size", "longer than m can"),  # llama.cpp
        (400, "At most 1 image(s) may be provided in one request.", "takes at most 1 pictures"),  # vLLM
        (400, "m is not a multimodal model", "takes no pictures"),  # vLLM
        (500, "image input is not supported - hint: you may need to provide the mmproj", "takes no pictures"),
        (403, "invalid key", "refused the key"),
    ],
)
def test_a_refusal_is_one_sentence_with_what_to_do(ask, fake, status, words, sentence):
    fake.failures, fake.error = [status] * 3, {"error": {"message": words}}
    with pytest.raises(ModelError, match=sentence):
        ask()


@pytest.mark.parametrize("option", ["logprobs", "top_logprobs", "temperature"])
def test_an_option_that_the_endpoint_does_not_take_is_left_out_from_then_on(ask, fake, option):
    fake.answer = lambda body: (
        (400, {"error": {"message": f"'{option}' is not supported"}}) if option in body else (200, fake.reply)
    )
    model, answers = ask(n=3, concurrency=1)
    assert [answer.answer for answer in answers] == ["Yes"] * 3
    assert len(fake.asked) == 4
    assert option in model.notes[0]


def test_the_newer_name_of_max_tokens_is_used_where_the_old_one_is_refused(ask, fake):
    fake.answer = lambda body: (
        (400, {"error": {"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'"}})
        if "max_tokens" in body
        else (200, fake.reply)
    )
    ask()
    assert fake.asked[-1]["max_completion_tokens"] == 64


def test_a_content_filter_leaves_an_empty_answer_that_is_counted(ask, fake):
    fake.failures, fake.error = [400], {"error": {"message": "content management policy", "code": "content_filter"}}
    model, (answer,) = ask()
    assert (answer.answer, answer.confidence, model.usage.filtered) == ("", None, 1)


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_one_probe_picture_finds_a_model_that_does_not_see(connect, fake):
    with pytest.raises(ModelError, match="takes no pictures"):
        connect(probe=True).answer(questions(1), Decoding())
    assert len(fake.asked) == 2


def test_a_model_that_sees_is_probed_once(connect, fake):
    def answer(body):
        picture = any(part["type"] == "image_url" for part in body["messages"][0]["content"])
        return 200, fake.reply | {"usage": {"prompt_tokens": 10 + 256 * picture, "completion_tokens": 1}}

    fake.answer = answer
    model = connect(probe=True)
    model.answer(questions(3), Decoding())
    assert len(fake.asked) == 5
    assert model.usage.requests == 3


def test_several_pictures_and_the_conversation_are_sent_in_order(connect, fake):
    pictures = [np.full((4, 4, 3), value, np.uint8) for value in (1, 2)]
    query = Query("q", "And now?", "i", pictures[0], other_visuals=(pictures[1],), turns=(("Is it CT?", "Yes"),))
    connect().answer([query], Decoding())
    first, reply, last = fake.asked[0]["messages"]
    sent = [
        Image.open(io.BytesIO(base64.b64decode(p["image_url"]["url"].partition(",")[2]))) for p in first["content"][:2]
    ]
    assert [image.getpixel((0, 0)) for image in sent] == [1, 2]
    assert first["content"][2]["text"].endswith("Is it CT?")
    assert reply == {"role": "assistant", "content": "Yes"}
    assert last["content"][0]["text"].endswith("And now?")


def test_pictures_stand_where_the_row_has_them_and_the_system_message_is_first(connect, fake):
    pictures = [np.full((8, 8, 3), value, np.uint8) for value in (10, 200, 90)]
    model = connect(prompt="Q: {question}!", turns=1)
    turns = (("Old?", "Yes"), ("Is it CT?", "No"))
    query = Query(
        "q", "Is  like ?", "i", pictures[0], other_visuals=tuple(pictures[1:]), turns=turns, system="Be short.",
        image_places=((0, 0), (2, 3), (2, 9)),
    )  # fmt: skip
    model.answer([query], Decoding())
    system, first, answer, last = fake.asked[-1]["messages"]
    assert (system, answer) == ({"role": "system", "content": "Be short."}, {"role": "assistant", "content": "No"})
    assert [part["type"] for part in first["content"]] == ["image_url", "text"]
    words = [part.get("text", "#") for part in last["content"]]
    assert words == ["Q: Is ", "#", " like ", "#", "?!"]
    urls = [part["image_url"]["url"] for part in (*first["content"], *last["content"]) if part["type"] == "image_url"]
    assert len(set(urls)) == 3


def test_more_turns_and_pictures_than_the_model_takes(connect, fake):
    picture = np.zeros((4, 4, 3), np.uint8)
    model = connect(turns=2, max_pictures=1)
    model.answer([Query("q", "Now?", "i", picture, turns=tuple((f"Q{n}?", "A") for n in range(9)))], Decoding())
    assert len(fake.asked[0]["messages"]) == 5
    with pytest.raises(ModelError, match="takes at most 1 pictures in a question, got 2"):
        model.answer([Query("q", "Now?", "i", picture, other_visuals=(picture,))], Decoding())


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>It could be no.</think>\nYes", "Yes"),
        ("It could be no.</think>Yes", "Yes"),  # the template opened the thought in the prompt
        ("<unused94>thought\nhm<unused95>Pneumonia", "Pneumonia"),  # MedGemma
        ("<think>I wonder", ""),  # cut off before an answer
        ("<think>a<think>b</think>c</think>Yes", "Yes"),
        ("<think>a<think>b</think>c", ""),  # the outer thought is cut off
        ("Yes<think>That was right.</think>", "Yes"),
        ("hm</think>Yes<think>That was right.", "Yes"),
        ("[THINK]hm[/THINK]Yes", "Yes"),  # Magistral
        ("<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Yes", "Yes"),  # gpt-oss
        ("<think>hm</think><|begin_of_box|>Yes<|end_of_box|>", "Yes"),  # GLM-4.1V
        ("Ye\x00s\x1b[31m", "Yes[31m"),  # what a terminal or a file must not receive
        ("**Answer:** Yes", "Yes"),
        ("The final answer is: \\boxed{\\text{Left lung}}", "Left lung"),
        ("## Finding\n- `CT` of the **chest**", "Finding\nCT of the chest"),
        ("```\nCT\n```", "CT"),
        ("<answer>CT</answer>", "CT"),
        ("I'm sorry, I can't help with medical images.", "I'm sorry, I can't help with medical images."),
        ("2*3*4 mm", "2*3*4 mm"),
        ("", ""),
        (None, ""),
    ],
)
def test_what_is_shown_and_scored_is_the_answer(ask, fake, text, answer):
    fake.say(text)
    _, (prediction,) = ask()
    assert prediction.answer == answer
    assert prediction.raw == (text or "")


def test_an_endless_answer_is_bounded(ask, fake):
    fake.say("word " * 10_000)
    _, (prediction,) = ask()
    assert len(prediction.answer) <= 2_002
    assert prediction.answer.endswith("word …")
    assert len(prediction.raw) <= 20_000


def test_the_answer_after_a_thought_of_ten_thousand_tokens_is_not_lost(connect, fake):
    thought = "word " * 10_000
    fake.say(f"<think>{thought}</think>Left lung")
    (prediction,) = connect().answer(questions(1), Decoding())
    assert prediction.answer == "Left lung"
    assert prediction.raw.endswith("</think>Left lung")
    fake.stream("<think>", *[thought[:50]] * 1000, "</think>", "Left", " lung")
    shown: list[str] = []
    assert connect().submit(questions(1)[0], shown.append).result().answer == "Left lung"
    assert shown == ["Left", "Left lung"]


def test_a_long_answer_is_not_sent_again_with_every_token(connect, fake):
    fake.stream(*["word "] * 3000)
    shown: list[str] = []
    assert connect().submit(questions(1)[0], shown.append).result().answer.endswith("word …")
    assert len(shown) < 500


def test_a_refusal_in_a_field_of_its_own_is_no_answer(connect, fake):
    text = "I am not sure: my confidence is 40 %."
    fake.reply = {"choices": [{"message": {"content": None, "refusal": text}}]}
    model = connect()
    (question,) = questions(1)
    (whole,) = model.answer([question], Decoding())
    fake.events = [json.dumps({"choices": [{"delta": {"refusal": piece}}]}) for piece in (text[:9], text[9:])]
    streamed = model.submit(question, lambda _: None).result()
    for answer in (whole, streamed):
        assert (answer.answer, answer.raw) == ("", text)
        assert model.abstention_reason(question, answer).code == "model_declined"


def token(text, probability, **top):
    candidates = [{"token": name, "logprob": math.log(p)} for name, p in top.items()]
    return {"token": text, "logprob": math.log(probability), "top_logprobs": candidates}


def test_a_closed_question_compares_yes_and_no(ask, fake):
    fake.say("Yes", tokens=[token("Yes", 0.6, Yes=0.6, No=0.2, yes=0.0001)])
    _, (answer,) = ask(text="Is it {}?")
    assert answer.confidence == pytest.approx(0.75, abs=1e-3)
    assert answer.alternatives == (("No", pytest.approx(0.25, abs=1e-3)),)
    assert answer.confidence_basis == "probability"


def test_thoughts_do_not_count_for_the_confidence(ask, fake):
    fake.say("<think>no</think>Yes", tokens=[token("<think>no</think>", 0.001), token("Yes", 0.8, Yes=0.8, No=0.2)])
    _, (answer,) = ask()
    assert answer.confidence == pytest.approx(0.8)


def test_an_open_question_takes_the_mean_log_probability(ask, fake):
    fake.say("Left lung", tokens=[token("Left", 0.5), token(" lung", 0.5)])
    _, (answer,) = ask(text="Where is it {}?")
    assert (answer.confidence, answer.confidence_basis) == (pytest.approx(0.5), "probability")


def test_without_log_probabilities_several_answers_can_agree(ask, fake):
    texts = iter(["Yes", "Yes.", "No", "yes", "No"])
    fake.answer = lambda _: (200, {"choices": [{"message": {"content": next(texts)}}]})
    _, (answer,) = ask(samples=4, concurrency=1)
    assert (answer.answer, answer.confidence, answer.confidence_basis) == ("Yes", 0.5, "agreement")
    assert [body["temperature"] for body in fake.asked] == [0, 0.7, 0.7, 0.7, 0.7]


def test_without_either_there_is_no_confidence_and_no_basis(ask, fake):
    fake.say("Yes")
    _, (answer,) = ask()
    assert (answer.confidence, answer.confidence_basis) == (None, None)


# --- streams and cancellation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "7", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "3600"}, None),  # longer than anyone waits
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_a_repetition_waits_as_long_as_the_endpoint_says_or_longer_each_time(headers, seconds):
    waits = [seconds_before_retry(number, headers) for number in range(8)]
    if seconds is not None:
        assert waits == [seconds] * 8
        return
    longest = [0.5, 1, 2, 4, 8, 8, 8, 8]
    assert all(0.75 * most <= wait <= most for wait, most in zip(waits, longest, strict=True))


@pytest.mark.parametrize("last", ["[DONE]", ""])
def test_an_answer_is_shown_while_it_is_written_and_never_the_thought(connect, fake, last):
    fake.stream("<thi", "nk>hm</think>", "Left", " lung", last=last)
    shown: list[str] = []
    prediction = connect().submit(questions(1)[0], shown.append).result()
    assert shown == ["Left", "Left lung"]
    assert prediction.answer == "Left lung"


def test_an_endpoint_that_does_not_stream_answers_as_a_whole(connect, fake):
    assert connect().submit(questions(1)[0], [].append).result().answer == "Yes"


def test_a_stream_that_breaks_off_is_an_endpoint_that_is_down(connect, fake):
    fake.events = [json.dumps({"choices": [{"index": 0, "delta": {"content": "Le"}}]}), '{"error": "out of memory"}']
    with pytest.raises(EndpointDownError, match="broke off"):
        connect().submit(questions(1)[0], [].append).result()


def test_a_stream_of_something_else_is_an_endpoint_that_is_down(connect, fake):
    fake.events = ["<html>"]
    with pytest.raises(EndpointDownError, match="broke off"):
        connect().submit(questions(1)[0], [].append).result()


def test_canceling_closes_the_request(connect, fake):
    fake.stream("Left", endless=True)
    started = threading.Event()
    future = connect().submit(questions(1)[0], lambda _: started.set())
    assert started.wait(60)
    future.cancel()
    assert fake.left.wait(60)
    with pytest.raises(CancelledError):
        future.result()


# --- closing ----------------------------------------------------------------------------------------------------------


def test_a_model_can_be_closed_in_the_loop_that_has_asked_it(connect):
    model = connect()
    answers = []

    async def work():
        answers.append(await model.ask(questions(1)[0]))
        session = model._client._pools[asyncio.get_running_loop()].session
        model.close()
        while not session.closed:
            await asyncio.sleep(0.001)

    thread = threading.Thread(target=asyncio.run, args=(work(),), daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert answers[0].answer == "Yes"


def test_a_model_that_is_closed_says_so(connect):
    model = connect()
    model.close()
    model.close()
    with pytest.raises(ModelError, match=r"the connection to m was closed; load the model again"):
        model.answer(questions(1), Decoding())


def test_two_threads_may_close_a_model(connect, fake):
    model = connect()
    threads = [threading.Thread(target=model.close, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


def test_an_interpreter_ends_while_a_callback_keeps_the_client():
    script = (
        "import threading\n"
        "from medical_vqa.models.remote import client\n"
        "from medical_vqa.models.remote.endpoint import Endpoint\n"
        "from medical_vqa.models.remote.model import RemoteModel\n"
        "client._CLOSE_SECONDS = 0.5\n"
        "model, began = RemoteModel(Endpoint('m', 'http://127.0.0.1:1/v1')), threading.Event()\n"
        "async def callback():\n"
        "    began.set()\n"
        "    threading.Event().wait()\n"
        "model._client.submit(callback())\n"
        "began.wait()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def models_file(tmp_path, monkeypatch):
    path = tmp_path / "models.yaml"
    monkeypatch.setenv("MEDICAL_VQA_MODELS", str(path))
    return path


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("vllm:google/medgemma-4b-it", "http://localhost:8000/v1"),
        ("sglang:x", "http://localhost:30000/v1"),
        ("ollama:medgemma", "http://localhost:11434/v1"),
        ("lmstudio:x", "http://localhost:1234/v1"),
    ],
)
def test_programs_have_default_addresses(name, address):
    assert remote_named(name).endpoint.base_url == address
    assert remote_named(name, {"base_url": "http://gpu/v1"}).endpoint.base_url == "http://gpu/v1"


def test_a_hosted_model_needs_an_address():
    with pytest.raises(ConfigError, match="openai:m needs --base-url"):
        remote_named("openai:m")


def test_a_key_that_is_set_twice_in_the_file_of_models_is_refused(models_file):
    models_file.write_text("models:\n  m:\n    provider: vllm\n    model: a\n    model: b\n")
    with pytest.raises(ConfigError, match=r"models.yaml line 5: the key 'model' is set twice, first in line 4; keep"):
        remote_named("m")


def test_a_named_model_has_prompt_pictures_price_and_key(models_file):
    models_file.write_text(
        """
models:
  medgemma:
    provider: vllm
    model: google/medgemma-4b-it
    api_key_env: VLLM_KEY
    prompt: "Radiology. {question}"
    picture: {side: 896, windows: [[0, 2048], [40, 350], [40, 80]], max_pictures: 85}
    price: {input: 0.1, output: 0.4}
    concurrency: 32
"""
    )
    named = remote_named("medgemma")
    assert (named.concurrency, named.price, named.endpoint.api_key_env) == (32, (0.1, 0.4), "VLLM_KEY")
    assert named.endpoint.windows == ((0, 2048), (40, 350), (40, 80))
    assert remote_named("medgemma", {"base_url": "http://gpu/v1"}).endpoint.base_url == "http://gpu/v1"
    assert remote_named("another") is None


def test_all_mistakes_of_a_models_file_are_named_at_once(models_file):
    models_file.write_text(
        """
models:
  a: {provider: vlm, model: x}
  b: {provider: openai, model: x}
  c: {provider: vllm, model: x, prompt: hello}
  d: {provider: vllm, picture: {sides: 3}, price: {input: -1}}
"""
    )
    with pytest.raises(ConfigError) as refused:
        remote_named("a")
    message = str(refused.value)
    for part in ("models.a.provider", "add base_url", "{question}", "models.d.model", "sides", "output", "input"):
        assert part in message


def test_a_models_file_that_is_no_yaml(models_file):
    models_file.write_text("models: [")
    with pytest.raises(ConfigError, match="cannot be read as YAML"):
        remote_named("a")


# --- calibration ------------------------------------------------------------------------------------------------------


def test_a_remote_model_is_calibrated_and_keeps_its_threshold(fake, root: Path, tmp_path: Path, monkeypatch):
    from medical_vqa.pipelines.calibrate import calibrate
    from medical_vqa.pipelines.load import load

    monkeypatch.chdir(tmp_path)
    answers = ("Yes", "No", "CT", "MRI", "Liver")
    fake.answer = lambda body: (200, reply_for(body["messages"][0]["content"][1]["text"]))

    def reply_for(text):
        number = sum(text.encode())
        tokens = [{"token": answers[number % 5], "logprob": -0.01 - (number % 7) / 4}]
        return {"choices": [{"message": {"content": answers[number % 5]}, "logprobs": {"content": tokens}}]}

    endpoint = Endpoint("m", fake.url)
    loaded = remote(endpoint, probe=False)
    selection = Selection(dataset="slake-mini", root=root)
    predictions = predict(loaded, split="validation", selection=selection)
    loaded.close()
    calibrate(predictions.path, risk=0.2)
    loaded = remote(endpoint, probe=False)
    assert loaded.card.calibration is not None
    assert loaded.bundle == Path("runs/m/bundle")
    loaded.close()
    other = remote(Endpoint("m", fake.url, prompt="Say: {question}"), probe=False)
    assert other.card.calibration is None
    other.close()
    from_bundle = load("runs/m")
    assert from_bundle.card.calibration is not None
    assert from_bundle.model.endpoint == endpoint
    from_bundle.close()


def test_the_guards_ask_a_remote_model_nothing_of_their_own(fake, picture):
    from medical_vqa.pipelines.ask import ask

    loaded = remote(Endpoint("m", fake.url), probe=False)
    (answer,) = ask(loaded, picture, ["Is the liver healthy?"])
    loaded.close()
    assert answer.text == "Yes"
    assert len(fake.asked) == 1
