"""The engine: batches by image, bounds, deadlines, dropped work, remembered answers."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
import torch
from echo_model import Echo, engine

from medical_vqa.models.bundle import BundleCard
from medical_vqa.serving.refusals import RefusedError

PICTURE = np.full((8, 8, 1), 7, np.uint8)
SEEN = {"mean": torch.tensor([7.0])}


def run(made, work):
    made.start()
    try:
        return asyncio.run(work)
    finally:
        made.close()


def test_it_answers_with_calibrated_confidence_and_verdict():
    card = BundleCard("echo", "e", calibration={"temperature": 2.0, "threshold": 0.7, "risk": 0.1})
    made = engine(card=card)
    found = run(made, made.ask("i", SEEN, "What?")).found
    assert found.prediction.answer == "7 What?"
    assert found.prediction.confidence == pytest.approx(2 / 3)  # log-odds of 0.8, halved
    assert found.verdict.abstained and "67%" in found.verdict.reason


def test_a_picture_is_encoded_once_for_all_its_questions():
    made = engine()

    async def work():
        features = await made.encode("i", PICTURE)
        return await asyncio.gather(*(made.ask("i", features, f"Question {n}?") for n in range(5)))

    outcomes = run(made, work())
    assert [o.found.prediction.answer for o in outcomes] == [f"7 Question {n}?" for n in range(5)]
    assert made.model.vision.encoded == 2  # the warm-up's and this one


def test_questions_of_one_image_are_taken_together_and_the_oldest_first():
    model = Echo(seconds=0.05)
    made = engine(model, batch=3, wait=0.0)

    async def work():
        first = asyncio.create_task(made.ask("a", SEEN, "first"))
        await asyncio.sleep(0.02)  # the model is busy with it
        rest = [made.ask(image, SEEN, f"{image}{n}") for n, image in enumerate("abcabc")]
        await asyncio.gather(first, *rest)

    run(made, work())
    asked = [[query.question for query in batch] for batch in model.batches[1:]]
    assert asked == [["first"], ["a0", "a3", "b1"], ["c2", "c5", "b4"]]


def test_two_who_ask_the_same_share_one_computation_and_later_ones_none():
    model = Echo(seconds=0.02)
    made = engine(model)

    async def work():
        blocker = asyncio.create_task(made.ask("z", SEEN, "busy"))
        await asyncio.sleep(0.005)
        await asyncio.gather(made.ask("i", SEEN, "same"), made.ask("i", SEEN, "same"), blocker)
        return await made.ask("i", SEEN, "same"), await made.ask("j", SEEN, "same")

    again, elsewhere = run(made, work())
    assert again.batch == 0
    assert elsewhere.batch == 1  # another image
    assert model.questions.count("same") == 2


def test_a_remembered_answer_without_a_look_is_asked_again_for_one():
    made = engine()

    async def work():
        without = await made.ask("i", SEEN, "q")
        with_look = await made.ask("i", SEEN, "q", look=True)
        return without, with_look, await made.ask("i", SEEN, "q", look=True)

    without, with_look, again = run(made, work())
    assert without.found.look is None
    assert with_look.found.look.sum() == pytest.approx(1)
    assert (with_look.batch, again.batch) == (1, 0)


def test_the_cache_is_bounded():
    made = engine(cached=2)

    async def work():
        for n in range(4):
            await made.ask("i", SEEN, f"q{n}")
        return [(await made.ask("i", SEEN, f"q{n}")).batch for n in (3, 0)]

    assert run(made, work()) == [0, 1]


def test_a_full_queue_refuses_at_once_with_429():
    made = engine(Echo(seconds=0.2), queue=2, batch=1)

    async def work():
        busy = asyncio.create_task(made.ask("i", SEEN, "busy"))
        await asyncio.sleep(0.05)
        waiting = [asyncio.create_task(made.ask("i", SEEN, f"w{n}")) for n in range(2)]
        await asyncio.sleep(0)
        began = time.monotonic()
        with pytest.raises(RefusedError) as refused:
            await made.ask("i", SEEN, "one too many")
        assert time.monotonic() - began < 0.1
        await asyncio.gather(busy, *waiting)
        return refused.value

    refused = run(made, work())
    assert (refused.status, refused.code) == (429, "overloaded")
    assert int(refused.headers["Retry-After"]) >= 1


def test_work_past_its_deadline_is_refused_and_never_computed():
    model = Echo(seconds=0.3)
    made = engine(model, deadline=0.1, batch=1)

    async def work():
        return await asyncio.gather(*(made.ask("i", SEEN, f"q{n}") for n in range(3)), return_exceptions=True)

    outcomes = run(made, work())
    assert all(isinstance(outcome, RefusedError) and outcome.code == "deadline" for outcome in outcomes)
    assert model.questions == ["q0"]  # it had begun


def test_work_whose_client_has_gone_is_never_computed():
    model = Echo(seconds=0.1)
    made = engine(model, batch=1)

    async def work():
        busy = asyncio.create_task(made.ask("i", SEEN, "busy"))
        await asyncio.sleep(0.02)
        gone = asyncio.create_task(made.ask("i", SEEN, "gone"))
        await asyncio.sleep(0.02)
        gone.cancel()
        await busy
        await made.ask("i", SEEN, "next")

    run(made, work())
    assert model.questions == ["busy", "next"]


@pytest.mark.parametrize(("word", "status"), [("refuse", 422), ("crash", 500)])
def test_a_question_that_fails_does_not_take_its_batch_with_it(word, status):
    model = Echo(seconds=0.02)
    made = engine(model)

    async def work():
        busy = asyncio.create_task(made.ask("i", SEEN, "busy"))
        await asyncio.sleep(0.005)
        return await asyncio.gather(
            made.ask("i", SEEN, "one"), made.ask("i", SEEN, word), made.ask("i", SEEN, "two"), busy,
            return_exceptions=True,
        )  # fmt: skip

    one, failed, two, _ = run(made, work())
    assert (one.found.prediction.answer, two.found.prediction.answer) == ("7 one", "7 two")
    assert failed.status == status


def test_the_event_loop_is_never_blocked():
    made = engine(Echo(seconds=1.0))

    async def work():
        asked = asyncio.create_task(made.ask("i", SEEN, "slow"))
        longest = 0.0
        while not asked.done():
            began = time.monotonic()
            await asyncio.sleep(0.005)
            longest = max(longest, time.monotonic() - began)
        return longest

    assert run(made, work()) < 0.5  # of the second that the model takes; a crowded machine delays a loop too


def test_closing_answers_what_waits_and_refuses_what_comes():
    made = engine(Echo(seconds=0.05), batch=1)

    async def work():
        asked = [asyncio.create_task(made.ask("i", SEEN, f"q{n}")) for n in range(3)]
        await asyncio.sleep(0.01)
        await asyncio.to_thread(made.close)
        with pytest.raises(RefusedError):
            await made.ask("i", SEEN, "late")
        return [(await one).found.prediction.answer for one in asked]

    assert run(made, work()) == ["7 q0", "7 q1", "7 q2"]
