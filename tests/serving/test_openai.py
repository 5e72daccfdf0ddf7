"""OpenAI's protocol: its own client asks, streams and is refused as it expects."""

from __future__ import annotations

import base64
import dataclasses
import http.server
import json
import threading

import live
import numpy as np
import openai
import pytest
from echo_model import Echo, Remembering, make_engine
from live import png

from medical_vqa.errors import ContextLengthError
from medical_vqa.schema.bundle_card import BundleCard
from medical_vqa.serving.api.openai import image_urls
from medical_vqa.serving.api.openai.answering import message_of
from medical_vqa.serving.api.openai.chat_types import ImagePart, Message, TextPart
from medical_vqa.serving.api.openai.conversation import read_messages
from medical_vqa.serving.api.openai.parameters import End
from medical_vqa.serving.api.openai.structured import output_schema
from medical_vqa.serving.errors import ApiError
from medical_vqa.serving.middleware.access import hash_key
from medical_vqa.serving.remote_images import fetch_image, is_public
from medical_vqa.serving.schema.answers import Answer, ModelRef, Timings

DATA = f"data:image/png;base64,{base64.b64encode(png(60)).decode()}"


def messages(question="What is it?", url=DATA):
    return [{"role": "user", "content": [{"type": "text", "text": question}, image(url)]}]


def image(url=DATA):
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.fixture(scope="module")
def client():
    with (
        live.serving(make_engine()) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


def test_the_openai_client_asks_about_a_local_image(client):
    (model,) = client.models.list().data
    reply = client.chat.completions.create(model=model.id, messages=messages())
    assert reply.choices[0].message.content == "60 What is it?"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.medical_vqa["confidence"] == 0.8


def test_a_picture_counts_in_the_usage(client):
    text = [{"role": "user", "content": "What is it?"}]
    without, with_picture = (
        client.chat.completions.create(model="echo-1", messages=turns).usage.prompt_tokens
        for turns in (text, messages())
    )
    assert (without, with_picture) == (3, 4)


def test_the_usage_counts_what_the_model_reads(remembering, client):
    """Earlier turns and the system message are read by a model that remembers, and by no other."""
    conversation = [
        {"role": "system", "content": "Be brief."},
        user("What is it?", gray(40)),
        assistant("A CT scan"),
        user("And now?"),
    ]
    counted = [
        one.chat.completions.create(model="echo-1", messages=conversation).usage.prompt_tokens
        for one in (client, remembering[1])
    ]
    assert counted == [1 + 2, 1 + 2 + 2 + 3 + 3]


def parameters(client, **sent):
    return client.chat.completions.create(model="echo-1", messages=messages(), **sent)


def test_parameters_that_are_not_read_are_named(client):
    reply = parameters(
        client,
        temperature=0.7,
        top_p=0.5,
        presence_penalty=1,
        logit_bias={"1": 2},
        seed=3,
        user="x",
        extra_body={"top_k": 5, "n" * 99: 1},
    )
    assert sorted(reply.ignored) == ["logit_bias", "n" * 64, "presence_penalty", "temperature", "top_k", "top_p"]
    streamed = list(parameters(client, temperature=1, stream=True))
    assert streamed[-1].ignored == ["temperature"]


def test_parameters_that_ask_for_what_is_done_are_not_named(client):
    neutral = {"temperature": 0, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0, "logit_bias": {}}
    assert parameters(client, **neutral, store=False, modalities=["text"], tool_choice="none").ignored == []


def test_many_unknown_parameters_are_named_in_part(client):
    assert len(parameters(client, extra_body={f"p{n}": n for n in range(40)}).ignored) == 20


@pytest.mark.parametrize(
    ("sent", "text", "reason"),
    [
        ({"max_tokens": 2}, "60 What", "length"),
        ({"max_completion_tokens": 1, "max_tokens": 3}, "60", "length"),
        ({"max_tokens": 4}, "60 What is it?", "stop"),
        ({"stop": " is"}, "60 What", "stop"),
        ({"stop": ["absent", "it", "What"]}, "60 ", "stop"),
    ],
)
def test_an_answer_ends_where_the_client_says(client, sent, text, reason):
    choice = parameters(client, **sent).choices[0]
    assert (choice.message.content, choice.finish_reason) == (text, reason)
    chunks = [chunk.choices[0] for chunk in parameters(client, **sent, stream=True)]
    assert ("".join(chunk.delta.content or "" for chunk in chunks), chunks[-1].finish_reason) == (text, reason)


class CutOff(Echo):
    """Writes until its limit of tokens."""

    def answer(self, queries, decoding):
        return [dataclasses.replace(one, cut_off=True) for one in super().answer(queries, decoding)]


@pytest.fixture(scope="module")
def cut_off():
    with (
        live.serving(make_engine(CutOff())) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


@pytest.mark.parametrize(
    ("sent", "text", "reason"),
    [
        ({}, "60 What is it?", "length"),
        ({"max_tokens": 4}, "60 What is it?", "length"),
        ({"stop": "it"}, "60 What is ", "stop"),
    ],
)
def test_an_answer_that_reached_the_model_s_limit_of_tokens_ends_with_length(cut_off, sent, text, reason):
    reply = parameters(cut_off, **sent)
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == (text, reason)
    assert reply.medical_vqa["cut_off"]
    chunks = list(parameters(cut_off, **sent, stream=True))
    assert ("".join(c.choices[0].delta.content or "" for c in chunks), chunks[-1].choices[0].finish_reason) == (
        text,
        reason,
    )


class Short(Echo):
    """Reads no question that is called long."""

    def answer(self, queries, decoding):
        if any("long" in query.question for query in queries):
            raise ContextLengthError(
                "'Is it long?' takes 700 tokens", "the question takes 700 tokens; the model reads 512"
            )
        return super().answer(queries, decoding)


def test_a_conversation_that_is_too_long_is_refused_with_openai_s_code_and_the_numbers():
    with (
        live.serving(make_engine(Short())) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        for ask, param in (
            (lambda: client.chat.completions.create(model="echo-1", messages=messages("Is it long?")), "messages"),
            (
                lambda: client.chat.completions.create(model="echo-1", messages=messages("Is it long?"), stream=True),
                "messages",
            ),
            (lambda: client.responses.create(model="echo-1", input=items("Is it long?")), "input"),
        ):
            with pytest.raises(openai.BadRequestError) as refused:
                ask()
            error = refused.value
            assert (error.status_code, error.code, error.type, error.param) == (
                400, "context_length_exceeded", "invalid_request_error", param
            )  # fmt: skip
            assert error.body["message"] == "the question takes 700 tokens; the model reads 512"
        reply = live.request("POST", f"{url}/ask", files={"image_file": png(60)}, data={"question": "Is it long?"})
        assert (reply.status_code, reply.json()["detail"]["code"]) == (422, "invalid")
        assert parameters(client).choices[0].message.content == "60 What is it?"


def test_a_response_that_reached_the_model_s_limit_of_tokens_is_incomplete(cut_off):
    reply = cut_off.responses.create(model="echo-1", input=items())
    assert (reply.status, reply.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_the_own_routes_say_that_an_answer_was_cut_off(cut_off):
    address = str(cut_off.base_url).removesuffix("/v1/")
    reply = live.request("POST", f"{address}/ask", files={"image_file": png(60)}, data={"question": "What is it?"})
    assert reply.json()["cut_off"] is True


def test_what_was_cut_off_is_not_counted(client):
    assert parameters(client, max_tokens=2).usage.completion_tokens == 2


def test_a_stop_is_held_back_while_it_may_still_begin():
    end = End(stops=("lung",))
    assert [end.cut_unfinished(text) for text in ("Left", "Left lu", "Left lungs", "Left lu?")] == [
        "Left", "Left ", "Left ", "Left lu?"
    ]  # fmt: skip
    assert End(words=2).cut_unfinished("The left lung") == "The left"


def test_a_stream_has_the_same_answer(client):
    stream = client.chat.completions.create(
        model="echo-1", messages=messages(), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "60 What is it?"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage.total_tokens > 0


def test_log_probabilities_carry_the_confidence(client):
    reply = client.chat.completions.create(model="echo-1", messages=messages(), logprobs=True, top_logprobs=2)
    (token,) = reply.choices[0].logprobs.content
    assert round(2.718281828**token.logprob, 6) == 0.8
    assert [t.token for t in token.top_logprobs] == ["60 What is it?", "other"]


def test_the_last_question_is_asked_about_the_newest_image(client):
    earlier = [*messages("First?"), {"role": "assistant", "content": "60 First?"}]
    reply = client.chat.completions.create(
        model="echo-1", messages=[{"role": "system", "content": "x"}, *earlier, {"role": "user", "content": "And now?"}]
    )
    assert reply.choices[0].message.content == "60 And now?"


@pytest.fixture(scope="module")
def unsure():
    """A client of a model that always abstains."""
    card = BundleCard(
        family="echo",
        name="echo-1",
        calibration={"temperature": 1.0, "fitted_on": "nine answers", "threshold": 0.9, "risk": 0.1},
    )
    with live.serving(make_engine(card=card)) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="x") as client:
        yield client


def test_an_abstention_is_content_alone_and_the_same_when_streamed(unsure):
    reply = unsure.chat.completions.create(model="echo-1", messages=messages())
    message = reply.choices[0].message
    assert message.content.startswith("The model is not sure")
    assert message.content.endswith("My best guess: 60 What is it?.")
    assert message.refusal is None and reply.medical_vqa["abstained"]
    stream = unsure.chat.completions.create(model="echo-1", messages=messages(), stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in stream) == message.content


def json_schema(schema):
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


def in_json(client, schema, question="What is it?"):
    reply = client.chat.completions.create(
        model="echo-1", messages=messages(question), response_format=json_schema(schema)
    )
    message = reply.choices[0].message
    return message.refusal if message.content is None else json.loads(message.content)


OBJECT = {
    "type": "object",
    "properties": {
        "answer": {"anyOf": [{"$ref": "#/$defs/Kind"}, {"type": "null"}]},
        "confidence": {"type": "number"},
        "abstained": {"type": "boolean"},
    },
    "required": ["answer", "confidence", "abstained"],
    "$defs": {"Kind": {"enum": ["60 WHAT IS IT?", "x"], "type": "string"}},
}


def test_an_answer_fits_a_schema_of_values_a_text_or_an_object(client):
    assert in_json(client, {"enum": ["60 what is it?", "other"]}) == "60 what is it?"
    assert in_json(client, {"enum": ["Other", "x"]}) == "Other"  # an alternative
    assert in_json(client, {"type": "string"}) == "60 What is it?"
    assert in_json(client, OBJECT) == {"answer": "60 WHAT IS IT?", "confidence": 0.8, "abstained": False}
    assert in_json(client, OBJECT, "Else?") == {"answer": None, "confidence": 0.8, "abstained": False}
    reply = client.chat.completions.create(model="echo-1", messages=messages(), response_format={"type": "json_object"})
    assert json.loads(reply.choices[0].message.content)["answer"] == "60 What is it?"


@pytest.mark.parametrize(("word", "value"), [("Yes", True), ("no.", False)])
def test_yes_and_no_are_booleans(word, value):
    answer = Answer(
        question="q",
        answer=word,
        model=ModelRef(name="m", family="f", id="i"),
        timings=Timings(queue_ms=0, model_ms=0, total_ms=0, batch_size=1),
    )
    schema = {"type": "object", "properties": {"is_ct": {"type": "boolean"}}}
    assert json.loads(output_schema(schema, "x").text(answer)) == {"is_ct": value}


@pytest.mark.parametrize(
    "schema",
    [
        5, {}, {"enum": 5}, {"enum": []}, {"type": 5}, {"type": "array"}, {"anyOf": []}, {"$ref": "#/$defs/none"},
        {"anyOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}},
        {"type": "object", "properties": 5}, {"type": "object", "properties": {"answer": 5}},
        {"type": "object", "properties": {"answer": {"type": "object"}}},
    ],
)  # fmt: skip
def test_a_schema_that_no_answer_fits_is_refused_before_anything_is_asked(schema):
    with pytest.raises(ApiError) as error:
        output_schema(schema, "response_format")
    assert (error.value.status, error.value.param) == (400, "response_format")


def test_an_abstention_in_json_is_a_field_or_a_refusal_and_never_a_guess(unsure):
    assert in_json(unsure, OBJECT)["abstained"] is True
    assert in_json(unsure, {"type": "string"}).startswith("The model is not sure")
    stream = unsure.chat.completions.create(
        model="echo-1", messages=messages(), response_format=json_schema({"type": "string"}), stream=True
    )
    deltas = [chunk.choices[0].delta for chunk in stream]
    assert not any(delta.content for delta in deltas)
    assert "".join(delta.refusal or "" for delta in deltas).startswith("The model is not sure")


def test_a_conversation_without_an_image_is_answered_with_what_to_do(client):
    reply = client.chat.completions.create(model="echo-1", messages=[{"role": "user", "content": "Title, please"}])
    assert "Attach a medical image" in reply.choices[0].message.content


def test_base64_may_have_line_breaks(client):
    lines = base64.encodebytes(png(60)).decode()
    reply = client.chat.completions.create(
        model="echo-1", messages=messages(url=f"data:image/png;base64,{lines.replace(chr(10), chr(13) + chr(10))}")
    )
    assert reply.choices[0].message.content == "60 What is it?"


@pytest.mark.parametrize(
    "image_url",
    [
        {"url": DATA, "detail": "low"},
        DATA,
        {"url": DATA.replace("data:image/png;base64", "DATA:;BASE64")},
        {"url": DATA.rstrip("=")},
        {"url": f"data:image/png;base64,{base64.urlsafe_b64encode(png(60)).decode()}"},
        {"url": DATA.replace("+", "%2B").replace("=", "%3D")},
    ],
)
def test_the_address_of_an_image_may_have_each_form_that_clients_send(client, image_url):
    content = [{"type": "image_url", "image_url": image_url}, {"type": "text", "text": "What is it?"}]
    reply = client.chat.completions.create(model="echo-1", messages=[{"role": "user", "content": content}])
    assert reply.choices[0].message.content == "60 What is it?"


def test_what_the_model_does_not_read_is_named(client):
    turns = [
        *messages("First?"),
        {"role": "assistant", "content": "60 First?"},
        {"role": "user", "content": "And now?"},
    ]
    reply = client.chat.completions.create(model="echo-1", messages=[{"role": "system", "content": "Be brief"}, *turns])
    assert reply.ignored == ["system prompt", "earlier turns"]


@pytest.fixture(scope="module")
def remembering():
    model = Remembering()
    with live.serving(make_engine(model)) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="x") as client:
        yield model, client


def gray(level):
    return image(f"data:image/png;base64,{base64.b64encode(png(level)).decode()}")


def user(*parts):
    return {"role": "user", "content": [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]}


def assistant(text):
    return {"role": "assistant", "content": text}


def means(query):
    return [round(visual["mean"].item()) for _, visual in query.pictures]


def test_each_part_of_a_message_is_divided_into_words_once():
    """A long text before 63 parts was divided again with each of them, while nobody else had a turn."""
    divided = []

    class Text(str):
        def split(self, *options):
            divided.append(len(self))
            return super().split(*options)

    image = ImagePart(type="image_url", image_url="data:,")
    texts = [Text("  a  " * 100), Text(""), Text("b c")]
    parts = [image, *(TextPart.model_construct(type="text", text=text) for text in texts), image]
    messages = [Message.model_construct(role="user", content=parts, refusal=None)]
    assert read_messages(messages, most_pictures=2).places == [(0, 0), (0, 203)]
    assert divided == [500, 0, 3]


def test_a_model_that_remembers_reads_the_system_message_the_turns_and_every_picture_at_its_place(remembering):
    model, client = remembering
    conversation = [
        {"role": "system", "content": "Be brief."},
        user("What is it?", gray(40)),
        assistant("CT"),
        user("Compare ", gray(80), "with", gray(120), " it."),
    ]
    reply = client.chat.completions.create(model="echo-1", messages=conversation)
    query = model.last
    assert (query.system, query.turns, query.question) == ("Be brief.", (("What is it?", "CT"),), "Compare with it.")
    assert means(query) == [40, 80, 120]
    assert query.image_places == ((0, 0), (1, len("Compare")), (1, len("Compare with")))
    assert (reply.ignored, reply.medical_vqa["turns_read"]) == ([], 1)


def test_the_same_question_in_another_conversation_is_another_question(remembering):
    model, client = remembering
    for system, earlier in (("A", "CT"), ("A", "MRI"), ("B", "MRI")):
        turns = [{"role": "system", "content": system}, user(gray(41), "What?"), assistant(earlier), user("And now?")]
        client.chat.completions.create(model="echo-1", messages=turns)
        assert (model.last.system, model.last.turns) == (system, (("What?", earlier),))
    asked = len(model.batches)
    client.chat.completions.create(model="echo-1", messages=turns)
    assert len(model.batches) == asked


def test_images_behind_the_words_of_their_message_stand_before_them_as_in_training(remembering):
    model, client = remembering
    client.chat.completions.create(model="echo-1", messages=[user("What is it?", gray(42))])
    assert model.last.is_single
    client.chat.completions.create(model="echo-1", messages=[user("Compare.", gray(42), gray(43))])
    assert (means(model.last), model.last.image_places) == ([42, 43], ())


def test_what_exceeds_a_model_that_remembers_is_named_and_the_rest_keeps_its_place(remembering):
    model, client = remembering
    conversation = [user(gray(10), gray(20), "First?"), assistant("a"), user(gray(30), "Second?"), assistant("b")]
    conversation += [user("Third?"), assistant("c"), user("never answered"), user("x", gray(50), "Last?")]
    reply = client.chat.completions.create(model="echo-1", messages=conversation)
    query = model.last
    assert reply.ignored == ["oldest turns", "oldest images", "questions without an answer"]
    assert query.turns == (("Second?", "b"), ("Third?", "c"))
    assert (means(query), query.image_places) == ([20, 30, 50], ((0, 0), (0, 0), (2, 1)))


def test_a_picture_of_a_message_without_an_answer_stands_before_the_question(remembering):
    model, client = remembering
    client.chat.completions.create(model="echo-1", messages=[user("Here: ", gray(44), "."), user("What is it?")])
    assert model.last.is_single and model.last.question == "What is it?"


def test_more_pictures_in_one_message_than_a_model_takes_are_refused(remembering):
    _, client = remembering
    with pytest.raises(openai.BadRequestError, match="takes at most 3 images in one question, got 4"):
        client.chat.completions.create(model="echo-1", messages=[user("What?", *map(gray, (1, 2, 3, 4)))])


def test_a_system_message_of_a_book_is_refused(remembering):
    _, client = remembering
    turns = [{"role": "system", "content": "word " * 4_000}, user(gray(45), "What?")]
    with pytest.raises(openai.UnprocessableEntityError, match="the system message has more than 16,000 characters"):
        client.chat.completions.create(model="echo-1", messages=turns)


@pytest.mark.parametrize(
    "refused",
    [
        {"role": "assistant", "content": None, "refusal": "I am not sure."},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "I am not sure."}]},
    ],
)
def test_an_earlier_refusal_is_the_answer_of_its_turn(remembering, refused):
    model, client = remembering
    client.chat.completions.create(model="echo-1", messages=[user(gray(46), "What?"), refused, user("And now?")])
    assert model.last.turns == (("What?", "I am not sure."),)


def test_an_abstention_without_an_answer_names_no_guess():
    answer = Answer.model_construct(answer="", abstained=True, reason="The model gave no answer.")
    assert message_of(answer, None).content == "The model gave no answer."


def test_responses_read_instructions_and_turns(remembering):
    model, client = remembering
    turns = [*items("First?"), {"role": "assistant", "content": "60"}, {"role": "user", "content": "And now?"}]
    reply = client.responses.create(model="echo-1", instructions="Be brief.", input=turns)
    assert (model.last.system, model.last.turns, reply.ignored) == ("Be brief.", (("First?", "60"),), [])


def test_a_frame_is_chosen_by_the_extension(client):
    with pytest.raises(openai.BadRequestError, match="frame"):
        client.chat.completions.create(model="echo-1", messages=messages(), extra_body={"medical_vqa": {"frame": 7}})


def test_one_model_is_described_and_another_is_404(client):
    assert client.models.retrieve("echo-1").id == "echo-1"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-5")


# --- the responses protocol -------------------------------------------------------------------------------------------


def items(question="What is it?", url=DATA):
    return [
        {
            "role": "user",
            "content": [{"type": "input_text", "text": question}, {"type": "input_image", "image_url": url}],
        }
    ]


def test_a_response_has_the_answer_and_its_stream_has_the_same(client):
    reply = client.responses.create(model="echo-1", input=items(), instructions="Be brief")
    assert (reply.output_text, reply.status, reply.ignored) == ("60 What is it?", "completed", ["system prompt"])
    assert reply.usage.total_tokens == reply.usage.input_tokens + reply.usage.output_tokens
    with client.responses.stream(model="echo-1", input=items()) as stream:
        events = list(stream)
    assert events[-1].type == "response.completed" and events[-1].response.output_text == "60 What is it?"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "60 What is it?"


def test_a_response_fits_a_schema_or_is_a_refusal(client, unsure):
    text = {"format": {"type": "json_schema", "name": "answer", "schema": OBJECT}}
    assert (
        json.loads(client.responses.create(model="echo-1", input=items(), text=text).output_text)["confidence"] == 0.8
    )
    text = {"format": {"type": "json_schema", "name": "answer", "schema": {"type": "string"}}}
    (message,) = unsure.responses.create(model="echo-1", input=items(), text=text).output
    assert message.content[0].refusal.startswith("The model is not sure")


def test_a_response_that_is_cut_off_says_so(client):
    asked = {"model": "echo-1", "input": items(), "max_output_tokens": 2, "temperature": 1}
    reply = client.responses.create(**asked)
    assert (reply.output_text, reply.status, reply.incomplete_details.reason) == (
        "60 What",
        "incomplete",
        "max_output_tokens",
    )
    assert (reply.output[0].status, reply.usage.output_tokens, reply.ignored) == ("incomplete", 2, ["temperature"])
    last = list(client.responses.create(**asked, stream=True))[-1]
    assert (last.type, last.response.output_text) == ("response.incomplete", "60 What")


def test_a_response_reads_earlier_turns_and_text_alone(client):
    turns = [*items("First?"), {"role": "assistant", "content": [{"type": "output_text", "text": "60 First?"}]}]
    reply = client.responses.create(model="echo-1", input=[*turns, {"role": "user", "content": "And now?"}])
    assert reply.output_text == "60 And now?"
    assert "Attach a medical image" in client.responses.create(model="echo-1", input="Hello").output_text


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"model": "gpt-5"}, "model"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"tools": [{"type": "function", "name": "f", "parameters": {}}]}, "tools"),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "number"}}}}, "text.format"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format"),
        ({"input": items(url="data:image/png;base64,!!!")}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0]"),
    ],
)
def test_a_refused_response_names_the_parameter(client, changes, param):
    with pytest.raises(openai.APIStatusError) as error:
        client.responses.create(**{"model": "echo-1", "input": items(), **changes})
    assert 400 <= error.value.status_code <= 422 and error.value.param == param


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"model": "gpt-5"}, 404, "serves echo-1"),
        (
            {"messages": [{"role": "user", "content": [image(), image()]}]},
            400,
            "takes one image in one question, got 2",
        ),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 400, "calls no tools"),
        ({"response_format": json_schema({"type": "number"})}, 400, "fits no answer"),
        ({"response_format": {"type": "yaml"}}, 400, "unknown format 'yaml'"),
        ({"response_format": json_schema({"type": "object", "properties": {"a": {}, "b": {}}})}, 400, "one property"),
        ({"response_format": json_schema({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}})}, 400, "$defs"),
        ({"response_format": json_schema({"enum": ["x", "y"]})}, 422, "fits no value"),
        (
            {"messages": [{"role": "user", "content": [{"type": "video"}]}]},
            422,
            "expected type 'text', 'refusal', 'image_url'",
        ),
        ({"messages": messages(" ")}, 400, "no words"),
        ({"messages": messages("x" * 1001)}, 400, "shorten it"),
        ({"messages": messages("a\x00b")}, 400, "control characters"),
        ({"messages": messages(url="data:image/png;base64,!!!")}, 400, "damaged"),
        ({"messages": messages(url="data:image/png,raw")}, 400, "expected an image as data:"),
        ({"messages": messages(url="data:image/png;base64,AAAA")}, 400, "expected"),
        ({"messages": messages(url="https://example.org/a.png")}, 400, "fetches no remote images"),
        ({"messages": messages(url=DATA.partition(",")[2])}, 400, "expected the image as data:image/...;base64"),
        ({"messages": messages(url="file:///etc/passwd")}, 400, "expected the image as data:image/...;base64"),
        ({"n": 3}, 422, "n:"),
        ({"temperature": 3}, 422, "temperature"),
        ({"max_tokens": 0}, 422, "max_tokens"),
        ({"stop": ["a"] * 5}, 422, "stop"),
        ({"stop": ""}, 422, "stop"),
        ({"extra_body": {"medical_vqa": {"frames": 3}}}, 422, "frames"),
        ({"messages": []}, 422, "messages"),
    ],
)
def test_refusals_have_openais_shape(client, changes, status, message):
    with pytest.raises(openai.APIStatusError) as error:
        client.chat.completions.create(**{"model": "echo-1", "messages": messages(), **changes})
    assert error.value.status_code == status
    assert message in error.value.body["message"]
    assert error.value.param.split("[")[0].split(".")[0] in changes | changes.get("extra_body", {})
    assert "union" not in error.value.body["message"]


def test_a_browsers_preflight_may_have_the_clients_own_headers():
    with live.serving(make_engine(), live.settings(cors_origins="https://app.example.org")) as url:
        reply = live.request(
            "OPTIONS",
            f"{url}/v1/chat/completions",
            headers={
                "Origin": "https://app.example.org",
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,x-stainless-os,x-stainless-retry-count",
            },
        )
    assert reply.status_code == 200 and "x-stainless-os" in reply.headers["access-control-allow-headers"]


def test_a_missing_key_is_openais_authentication_error():
    with live.serving(make_engine(), live.settings(api_keys=hash_key("right"))) as url:
        for key in ("wrong", "right"):
            with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
                if key == "wrong":
                    with pytest.raises(openai.AuthenticationError):
                        client.models.list()
                else:
                    assert client.models.list().data


def test_the_model_for_openai_endpoints_can_ask_it(echo):
    from medical_vqa.models.base import Query
    from medical_vqa.models.remote.endpoint import Endpoint
    from medical_vqa.models.remote.model import RemoteModel
    from medical_vqa.schema.bundle_card import Decoding

    model = RemoteModel(Endpoint("echo-1", f"{echo}/v1"), api_key="x", probe=False)
    (prediction,) = model.answer([Query("q", "Which?", "i", np.full((16, 16, 3), 60, np.uint8))], Decoding())
    model.close()
    assert "Which?" in prediction.answer
    assert prediction.confidence == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "::1", "fe80::1", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "ff02::1", "fe80::1%eth0",
        "192.0.0.192", "192.88.99.1", "255.255.255.255", "64:ff9b:1::1", "::7f00:1", "::ffff:0:127.0.0.1", "::8.8.8.8",
        "2001:0:7f00:1::", "2001:db8::1", "3fff::1", "100::1", "5f00::1", "fec0::1",
    ],
)  # fmt: skip
def test_no_address_of_a_private_network_is_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111"])
def test_the_public_internet_is_public(address):
    assert is_public(address)


class _Pictures(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/turn":
            self.send_response(302)
            self.send_header("Location", "/picture")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(png(40) if self.path == "/picture" else bytes(200_000))

    def log_message(self, *_):
        pass


@pytest.fixture
def pictures():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Pictures) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def fetched(url, **options):
    import asyncio

    return asyncio.run(
        fetch_image(url, **{"max_bytes": 100_000, "timeout": 5, "is_allowed": lambda _: True, **options})
    )


def test_a_remote_image_is_fetched_within_bounds(pictures):
    assert fetched(f"{pictures}/picture") == png(40)
    for url, status in ((f"{pictures}/large", 413), (f"{pictures}/turn", 400), ("http://127.0.0.1:1/", 400)):
        with pytest.raises(ApiError) as refused:
            fetched(url)
        assert refused.value.status == status


@pytest.mark.parametrize("url", ["ftp://a/b", "http://user:word@127.0.0.1/", "http://", "http://[::1", "gopher:x"])
def test_other_urls_are_refused(url):
    with pytest.raises(ApiError):
        fetched(url)


def test_with_remote_images_allowed_private_addresses_stay_refused(pictures):
    with live.serving(make_engine(), live.settings(remote_images=True)) as url:
        body = {"model": "echo-1", "messages": messages(url=f"{pictures}/picture")}
        reply = live.request("POST", f"{url}/v1/chat/completions", content=json.dumps(body))
        assert reply.status_code in (400, 422)
        reply = live.request("POST", f"{url}/v1/chat/completions", json=body)
    assert reply.status_code == 400
    assert "public internet" in reply.json()["error"]["message"]


@pytest.mark.parametrize("size", range(1, 12))
def test_base64_is_decoded_in_pieces_of_any_size(monkeypatch, size):
    monkeypatch.setattr(image_urls, "_BASE64_PIECE", size)
    data = bytes(range(256))
    text = base64.b64encode(data).decode()
    encoded = text.replace("+", "%2B").replace("/", "%2f").replace("=", "%3D")
    assert "%2B" in encoded
    for form in (text, encoded, "\n".join(text), encoded[:33] + "%0A" + encoded[33:], text.rstrip("=")):
        assert image_urls.decode_base64(form) == data
    with pytest.raises(ValueError, match="base64"):
        image_urls.decode_base64(text[:40] + "%4" + text[40:])
