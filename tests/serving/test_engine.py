"""The engine: batches by image, bounds, deadlines, dropped work, remembered answers."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
import torch
from echo_model import Echo, engine, queued, until

from medical_vqa.schema.bundle_card import BundleCard
from medical_vqa.serving.errors import RefusedError

PICTURE = np.full((8, 8, 1), 7, np.uint8)
SEEN = {"mean": torch.tensor([7.0])}


def run(made, work):
    made.start()
    try:
        return asyncio.run(work)
    finally:
        made.close()


def test_it_answers_with_calibrated_confidence_and_verdict():
    card = BundleCard(
        family="echo",
        name="e",
        calibration={"fitted_on": "mine validation, 9 answers", "temperature": 2.0, "threshold": 0.7, "risk": 0.1},
    )
    made = engine(card=card)
    found = run(made, made.ask("i", SEEN, "What?")).found
    assert found.prediction.answer == "7 What?"
    assert found.prediction.confidence == pytest.approx(2 / 3)  # log-odds of 0.8, halved
    assert found.abstention.abstained and "67%" in found.abstention.reason


def test_a_picture_is_encoded_once_for_all_its_questions():
    made = engine()

    async def work():
        features = await made.encode("i", PICTURE)
        return await asyncio.gather(*(made.ask("i", features, f"Question {n}?") for n in range(5)))

    outcomes = run(made, work())
    assert [o.found.prediction.answer for o in outcomes] == [f"7 Question {n}?" for n in range(5)]
    assert made.model.vision.encoded == 2  # the warm-up's and this one


def test_questions_of_one_image_are_taken_together_and_the_oldest_first():
    model = Echo(held=True)
    made = engine(model, batch=3, wait=0.0)

    async def work():
        first = asyncio.create_task(made.ask("a", SEEN, "first"))
        await model.begun()
        rest = [asyncio.create_task(made.ask(image, SEEN, f"{image}{n}")) for n, image in enumerate("abcabc")]
        await queued(made, 6)
        model.release()
        await asyncio.gather(first, *rest)

    run(made, work())
    asked = [[query.question for query in batch] for batch in model.batches[1:]]
    assert asked == [["first"], ["a0", "a3", "b1"], ["c2", "c5", "b4"]]


def test_two_who_ask_the_same_share_one_computation_and_later_ones_none():
    model = Echo(held=True)
    made = engine(model)

    async def work():
        blocker = asyncio.create_task(made.ask("z", SEEN, "busy"))
        await model.begun()
        both = [asyncio.create_task(made.ask("i", SEEN, "same")) for _ in range(2)]
        await queued(made, 2)
        model.release()
        await asyncio.gather(*both, blocker)
        return await made.ask("i", SEEN, "same"), await made.ask("j", SEEN, "same")

    again, elsewhere = run(made, work())
    assert again.batch == 0
    assert elsewhere.batch == 1  # another image
    assert model.questions.count("same") == 2


def test_a_remembered_answer_without_a_look_is_asked_again_for_one():
    made = engine()

    async def work():
        without = await made.ask("i", SEEN, "q")
        with_look = await made.ask("i", SEEN, "q", attention_map=True)
        return without, with_look, await made.ask("i", SEEN, "q", attention_map=True)

    without, with_look, again = run(made, work())
    assert without.found.attention_map is None
    assert with_look.found.attention_map.sum() == pytest.approx(1)
    assert (with_look.batch, again.batch) == (1, 0)


def test_the_cache_is_bounded():
    made = engine(cached=2)

    async def work():
        for n in range(4):
            await made.ask("i", SEEN, f"q{n}")
        return [(await made.ask("i", SEEN, f"q{n}")).batch for n in (3, 0)]

    assert run(made, work()) == [0, 1]


def test_a_full_queue_refuses_with_429_while_the_model_is_busy():
    model = Echo(held=True)
    made = engine(model, queue=2, batch=1)

    async def work():
        busy = asyncio.create_task(made.ask("i", SEEN, "busy"))
        await model.begun()
        waiting = [asyncio.create_task(made.ask("i", SEEN, f"w{n}")) for n in range(2)]
        await queued(made, 2)
        with pytest.raises(RefusedError) as refused:
            await made.ask("i", SEEN, "one too many")
        model.release()
        await asyncio.gather(busy, *waiting)
        return refused.value

    refused = run(made, work())
    assert (refused.status, refused.code) == (429, "overloaded")
    assert int(refused.headers["Retry-After"]) >= 1


def test_work_past_its_deadline_is_refused_and_never_computed():
    model = Echo(held=True)
    made = engine(model, deadline=2.0, batch=1)

    async def work():
        first = asyncio.create_task(made.ask("i", SEEN, "q0"))
        await model.begun()
        came = time.monotonic() - 1.9  # a tenth of a second is left to them
        late = [made.ask("i", SEEN, f"q{n}", since=came) for n in (1, 2)]
        outcomes = await asyncio.gather(first, *late, return_exceptions=True)
        model.release()
        return outcomes

    outcomes = run(made, work())
    assert all(isinstance(outcome, RefusedError) and outcome.code == "deadline" for outcome in outcomes)
    assert model.questions == ["q0"]  # it had begun


def test_work_whose_client_has_gone_is_never_computed():
    model = Echo(held=True)
    made = engine(model, batch=1)

    async def work():
        busy = asyncio.create_task(made.ask("i", SEEN, "busy"))
        await model.begun()
        gone = asyncio.create_task(made.ask("i", SEEN, "gone"))
        await queued(made, 1)
        gone.cancel()
        await asyncio.wait([gone])
        model.release()
        await busy
        await made.ask("i", SEEN, "next")

    run(made, work())
    assert model.questions == ["busy", "next"]


@pytest.mark.parametrize(("word", "status"), [("refuse", 422), ("crash", 500)])
def test_a_question_that_fails_does_not_take_its_batch_with_it(word, status):
    model = Echo(held=True)
    made = engine(model)

    async def work():
        busy = asyncio.create_task(made.ask("i", SEEN, "busy"))
        await model.begun()
        batch = [asyncio.create_task(made.ask("i", SEEN, asked)) for asked in ("one", word, "two")]
        await queued(made, 3)
        model.release()
        return await asyncio.gather(*batch, busy, return_exceptions=True)

    one, failed, two, _ = run(made, work())
    assert (one.found.prediction.answer, two.found.prediction.answer) == ("7 one", "7 two")
    assert failed.status == status


def test_the_event_loop_is_never_blocked():
    model = Echo(held=True)
    made = engine(model)

    async def work():
        asked = asyncio.create_task(made.ask("i", SEEN, "slow"))
        await model.begun()
        for _ in range(100):  # the loop turns while the model does not
            await asyncio.sleep(0.001)
        done = asked.done()
        model.release()
        await asked
        return done

    assert run(made, work()) is False


def test_closing_answers_what_waits_and_refuses_what_comes():
    model = Echo(held=True)
    made = engine(model, batch=1)

    async def work():
        asked = [asyncio.create_task(made.ask("i", SEEN, f"q{n}")) for n in range(3)]
        await model.begun()
        await queued(made, 2)
        closing = asyncio.create_task(asyncio.to_thread(made.close))
        await until(lambda: not made.ready)
        with pytest.raises(RefusedError):
            await made.ask("i", SEEN, "late")
        model.release()
        await closing
        return [(await one).found.prediction.answer for one in asked]

    assert run(made, work()) == ["7 q0", "7 q1", "7 q2"]
