"""The engine: batches by image, bounds, deadlines, dropped work, cached answers."""

from __future__ import annotations

import asyncio
import functools
import time

import numpy as np
import pytest
import torch
from echo_model import Echo, Remembering, make_engine, wait_for_queue, wait_until
from live import PATIENCE

from medical_vqa.data.imaging.geometry import PictureGeometry
from medical_vqa.data.imaging.picture_statistics import PictureContext
from medical_vqa.models.base import Localization
from medical_vqa.schema.bundle_card import BundleCard
from medical_vqa.serving.engine.local import MAX_CONTEXT
from medical_vqa.serving.errors import ApiError

PICTURE = np.full((8, 8, 1), 7, np.uint8)
FEATURES = {"mean": torch.tensor([7.0])}


def run(engine, work):
    engine.start()
    try:
        return asyncio.run(work)
    finally:
        engine.close()


def test_it_answers_with_calibrated_confidence_and_abstention():
    card = BundleCard(
        family="echo",
        name="e",
        calibration={"fitted_on": "mine validation, 9 answers", "temperature": 2.0, "threshold": 0.7, "risk": 0.1},
    )
    engine = make_engine(card=card)
    answer = run(engine, engine.ask("i", FEATURES, "What?")).answer
    assert answer.prediction.answer == "7 What?"
    assert answer.prediction.confidence == pytest.approx(2 / 3)  # log-odds of 0.8, halved
    assert answer.abstention.abstained and "67%" in answer.abstention.reason


def test_a_picture_is_encoded_once_for_all_its_questions():
    engine = make_engine()

    async def work():
        features = await engine.encode("i", PICTURE)
        return await asyncio.gather(*(engine.ask("i", features, f"Question {n}?") for n in range(5)))

    results = run(engine, work())
    assert [result.answer.prediction.answer for result in results] == [f"7 Question {n}?" for n in range(5)]
    assert engine.model.vision.encoded == 2  # the warm-up's and this one


def test_questions_of_one_image_are_batched_together_and_the_oldest_first():
    model = Echo(hold=True)
    engine = make_engine(model, batch_size=3, batch_wait=0.0)

    async def work():
        first = asyncio.create_task(engine.ask("a", FEATURES, "first"))
        await model.begun()
        rest = [asyncio.create_task(engine.ask(image, FEATURES, f"{image}{n}")) for n, image in enumerate("abcabc")]
        await wait_for_queue(engine, 6)
        model.release()
        await asyncio.gather(first, *rest)

    run(engine, work())
    batches = [[query.question for query in batch] for batch in model.batches[1:]]
    assert batches == [["first"], ["a0", "a3", "b1"], ["c2", "c5", "b4"]]


def test_two_clients_with_the_same_question_need_one_computation_and_later_ones_none():
    model = Echo(hold=True)
    engine = make_engine(model)

    async def work():
        blocker = asyncio.create_task(engine.ask("z", FEATURES, "busy"))
        await model.begun()
        both = [asyncio.create_task(engine.ask("i", FEATURES, "same")) for _ in range(2)]
        await wait_for_queue(engine, 2)
        model.release()
        await asyncio.gather(*both, blocker)
        return await engine.ask("i", FEATURES, "same"), await engine.ask("j", FEATURES, "same")

    again, other_image = run(engine, work())
    assert again.batch_size == 0
    assert other_image.batch_size == 1
    assert model.questions.count("same") == 2


def test_a_cached_answer_without_an_attention_map_is_computed_again_for_one():
    engine = make_engine()

    async def work():
        without = await engine.ask("i", FEATURES, "q")
        with_map = await engine.ask("i", FEATURES, "q", attention_map=True)
        return without, with_map, await engine.ask("i", FEATURES, "q", attention_map=True)

    without, with_map, again = run(engine, work())
    assert without.answer.attention_map is None
    assert with_map.answer.attention_map.sum() == pytest.approx(1)
    assert (with_map.batch_size, again.batch_size) == (1, 0)


class WithoutMaps(Echo):
    has_attention_maps = False


def test_a_model_without_attention_maps_answers_from_its_cache_where_one_is_requested():
    engine = make_engine(WithoutMaps())

    async def work():
        return [(await engine.ask("i", FEATURES, "q", attention_map=True)).batch_size for _ in range(2)]

    assert run(engine, work()) == [1, 0]


TURNS = (("What is it?", "CT"), ("Where?", "left"))


def test_a_conversation_is_computed_with_its_pictures_and_a_question_alone_apart_from_it():
    model = Remembering()
    engine = make_engine(model)
    other = [("j", {"mean": torch.tensor([9.0])}, PictureContext())]

    async def work():
        ask = functools.partial(engine.ask, "i", FEATURES, "q")
        await asyncio.gather(ask(), ask(turns=TURNS), ask(others=other), ask(system="Be brief."))
        assert sum(map(len, model.batches)) == 1 + 4
        await asyncio.gather(ask(), ask(turns=TURNS), ask(others=other), ask(system="Be brief."))
        assert sum(map(len, model.batches)) == 1 + 4
        engine.forget("j")  # a further picture
        await asyncio.gather(ask(), ask(others=other))

    run(engine, work())
    asked = [query.surroundings[:3] for batch in model.batches[1:] for query in batch]
    both = (f"j/{PictureContext().digest}",)
    expected = [((), (), ""), ((), TURNS, ""), (both, (), ""), ((), (), "Be brief."), (both, (), "")]
    assert sorted(asked) == sorted(expected)


def test_the_newest_turns_of_a_bounded_length_are_read_by_a_question_and_by_a_comparison_of_slices():
    model = Remembering()
    engine = make_engine(model)
    long = [("x" * (MAX_CONTEXT - 10), "y"), ("Where?", "left")]
    assert [engine.turns_read(turns) for turns in ([], TURNS, [*TURNS, ("And?", "no")], long)] == [0, 2, 2, 1]

    async def work():
        await engine.ask("i", FEATURES, "q", turns=long)
        asked = model.last
        await engine.compare("q", [("slice", FEATURES, PictureContext())], turns=long)
        return asked.turns, model.last.turns

    assert run(engine, work()) == ((("Where?", "left"),),) * 2


def test_an_answer_about_a_further_picture_that_is_deleted_meanwhile_is_not_cached():
    model = Remembering(hold=True)
    engine = make_engine(model)

    async def work():
        asked = asyncio.create_task(engine.ask("i", FEATURES, "q", others=[("j", FEATURES, PictureContext())]))
        await model.begun()
        engine.forget("j")
        model.release()
        await asked

    run(engine, work())
    assert len(engine.cache) == 0


def test_the_cache_is_bounded():
    engine = make_engine(answer_cache_size=2)

    async def work():
        for n in range(4):
            await engine.ask("i", FEATURES, f"q{n}")
        return [(await engine.ask("i", FEATURES, f"q{n}")).batch_size for n in (3, 0)]

    assert run(engine, work()) == [0, 1]


def test_without_a_cache_every_question_is_computed():
    engine = make_engine(answer_cache_size=0)

    async def work():
        return [(await engine.ask("i", FEATURES, "q")).batch_size for _ in range(2)]

    assert run(engine, work()) == [1, 1]


def test_a_full_queue_refuses_with_429_while_the_model_is_busy():
    model = Echo(hold=True)
    engine = make_engine(model, queue_size=2, batch_size=1)

    async def work():
        busy = asyncio.create_task(engine.ask("i", FEATURES, "busy"))
        await model.begun()
        waiting = [asyncio.create_task(engine.ask("i", FEATURES, f"w{n}")) for n in range(2)]
        await wait_for_queue(engine, 2)
        with pytest.raises(ApiError) as refused:
            await engine.ask("i", FEATURES, "one too many")
        model.release()
        await asyncio.gather(busy, *waiting)
        return refused.value

    error = run(engine, work())
    assert (error.status, error.code) == (429, "overloaded")
    assert int(error.headers["Retry-After"]) >= 1


def test_work_past_its_deadline_is_refused_and_never_computed():
    model = Echo(hold=True)
    engine = make_engine(model, batch_size=1)

    async def work():
        first = asyncio.create_task(engine.ask("i", FEATURES, "q0"))
        await model.begun()
        received = time.monotonic() - PATIENCE + 0.1  # a tenth of a second is left to them
        late = [engine.ask("i", FEATURES, f"q{n}", received=received) for n in (1, 2)]
        results = await asyncio.gather(*late, return_exceptions=True)
        model.release()
        await first
        return results

    results = run(engine, work())
    assert all(isinstance(result, ApiError) and result.code == "deadline" for result in results)
    assert model.questions == ["q0"]


def test_whoever_asked_is_refused_at_the_deadline_although_the_model_has_begun():
    model = Echo(hold=True)
    engine = make_engine(model)

    async def work():
        received = time.monotonic() - PATIENCE + 1.0
        asked = asyncio.create_task(engine.ask("i", FEATURES, "q0", received=received))
        refused = await asyncio.gather(asked, return_exceptions=True)
        model.release()
        return refused

    (refused,) = run(engine, work())
    assert isinstance(refused, ApiError) and refused.code == "deadline"


def test_a_comparison_of_slices_takes_the_time_of_as_many_questions_in_the_estimate():
    model = Echo()
    engine = make_engine(model, clock=model.questions_answered)  # every question takes a second
    slices = [(f"slice {number}", FEATURES, PictureContext()) for number in range(9)]
    run(engine, engine.compare("q", slices))
    assert engine.scheduler.seconds_per_item <= 1.0


def test_work_whose_client_has_disconnected_is_never_computed():
    model = Echo(hold=True)
    engine = make_engine(model, batch_size=1)

    async def work():
        busy = asyncio.create_task(engine.ask("i", FEATURES, "busy"))
        await model.begun()
        disconnected = asyncio.create_task(engine.ask("i", FEATURES, "gone"))
        await wait_for_queue(engine, 1)
        disconnected.cancel()
        await asyncio.wait([disconnected])
        model.release()
        await busy
        await engine.ask("i", FEATURES, "next")

    run(engine, work())
    assert model.questions == ["busy", "next"]


@pytest.mark.parametrize(("word", "status"), [("refuse", 422), ("crash", 500)])
def test_a_question_that_fails_does_not_fail_its_batch(word, status):
    model = Echo(hold=True)
    engine = make_engine(model)

    async def work():
        busy = asyncio.create_task(engine.ask("i", FEATURES, "busy"))
        await model.begun()
        batch = [asyncio.create_task(engine.ask("i", FEATURES, text)) for text in ("one", word, "two")]
        await wait_for_queue(engine, 3)
        model.release()
        return await asyncio.gather(*batch, busy, return_exceptions=True)

    one, failed, two, _ = run(engine, work())
    assert (one.answer.prediction.answer, two.answer.prediction.answer) == ("7 one", "7 two")
    assert failed.status == status


def test_the_event_loop_is_never_blocked():
    model = Echo(hold=True)
    engine = make_engine(model)

    async def work():
        slow = asyncio.create_task(engine.ask("i", FEATURES, "slow"))
        await model.begun()
        for _ in range(100):  # the loop turns while the model does not
            await asyncio.sleep(0.001)
        done = slow.done()
        model.release()
        await slow
        return done

    assert run(engine, work()) is False


def test_closing_answers_the_queued_work_and_refuses_new_work():
    model = Echo(hold=True)
    engine = make_engine(model, batch_size=1)

    async def work():
        tasks = [asyncio.create_task(engine.ask("i", FEATURES, f"q{n}")) for n in range(3)]
        await model.begun()
        await wait_for_queue(engine, 2)
        closing = asyncio.create_task(asyncio.to_thread(engine.close))
        await wait_until(lambda: not engine.ready)
        with pytest.raises(ApiError):
            await engine.ask("i", FEATURES, "late")
        model.release()
        await closing
        return [(await task).answer.prediction.answer for task in tasks]

    assert run(engine, work()) == ["7 q0", "7 q1", "7 q2"]


class Localizing(Echo):
    def localizations(self, query, prediction):
        return [Localization("Liver", "mask", np.full((4, 4), 0.9))]


def test_equal_pictures_with_other_spacings_have_evidence_of_other_areas():
    engine = make_engine(Localizing())
    contexts = [PictureContext(geometry=PictureGeometry(10, 20, spacing)) for spacing in ((1.0, 1.0), (2.0, 1.0), None)]

    async def work():
        return [await engine.ask("i", FEATURES, "q", context=context) for context in contexts]

    answers = run(engine, work())
    assert [answer.answer.evidence[0].area_mm2 for answer in answers] == [200, 400, None]
    assert {answer.answer.evidence[0].area for answer in answers} == {200}
    assert all(answer.batch_size == 1 for answer in answers)


def test_without_the_size_of_the_picture_there_is_no_evidence():
    engine = make_engine(Localizing())

    async def work():
        return await engine.ask("i", FEATURES, "q")

    assert run(engine, work()).answer.evidence == ()
