"""What a probe asks, and what it concludes of models whose use of the image is known."""

import numpy as np
import pytest

from medical_vqa.evaluation.probing.pictures import (
    MIRRORED,
    ORIGINAL,
    REPLACED,
    mirrored,
    noise,
    other_images,
    sampled_images,
)
from medical_vqa.evaluation.probing.questions import mirrored_text, opposite_pairs, plan, rewordings
from medical_vqa.evaluation.probing.scoring import (
    contradictions_in,
    groups_of,
    mirrored_in,
    paraphrases_in,
    score,
)
from medical_vqa.evaluation.reporting.probe_report import headline
from medical_vqa.schema.records import Example
from medical_vqa.schema.results import Bootstrap

FEW = Bootstrap(resamples=200)
MODALITY = "What modality is used to take this image?"


def rows():
    """Twelve images, half of them CT; three questions each."""
    made = []
    for number in range(12):
        modality = "CT" if number % 2 else "MRI"
        facts = {"modality": modality, "location": "Head", "organ": "Brain"}
        for place, (question, answer, answer_type, content) in enumerate(
            [
                (MODALITY, modality, "OPEN", "Modality"),
                ("Is the brain healthy?", "Yes" if number % 3 else "No", "CLOSED", "Abnormality"),
                ("Where is the mass?", "Left", "OPEN", "Position"),
            ]
        ):
            row_facts = facts | {"answer_type": answer_type, "content_type": content}
            made.append(Example(f"{number}/{place}", f"i{number}", question, (answer,), f"i{number}", row_facts))
    return made


def answers_of(planned, answer):
    """Every answer of a model that is a function of question, picture and image that is shown."""
    same, different = other_images(planned.rows)

    def image_of(question):
        if question.picture == "shuffled":
            return same[question.image_id][question.number]
        return different[question.image_id] if question.picture == "other modality" else question.image_id

    return {q.id: answer(q.question, q.picture, image_of(q)) for q in planned.questions.values()}


@pytest.fixture
def planned():
    return plan(rows(), *other_images(rows()))


def sighted(question, picture, image):
    """Right about every picture, and unsure of none."""
    if picture in ("black", "noise"):
        return "nothing"
    odd = int(image[1:]) % 2 == 1
    side = "Right" if picture == MIRRORED else "Left"
    if "abnormal" in question.lower() or "unhealthy" in question:
        return "Yes" if int(image[1:]) % 3 == 0 else "No"
    if "healthy" in question or "normal" in question:
        return "No" if int(image[1:]) % 3 == 0 else "Yes"
    return side if question.startswith("Where") else ("CT" if odd else "MRI")


def blind(question, picture, image):
    """Yes to everything else than open questions."""
    return "Left" if question.startswith("Where") else ("CT" if "modality" in question.lower() else "Yes")


def test_a_model_that_never_looks_uses_no_image_and_contradicts_itself(planned):
    answers = answers_of(planned, blind)
    everything = groups_of(planned, answers, FEW)[0]
    assert everything.uses_image.value == 0.0
    assert everything.uses_image.interval.high > 0.1  # an image is one trial: twelve say little
    assert everything.benefit.value == 0.0
    assert contradictions_in(planned, answers, FEW).score.value == 1.0
    sides, other = mirrored_in(planned, answers, FEW)
    assert (sides.score.value, sides.score.n) == (1.0, 12)
    assert (other.score.value, other.score.n) == (0.0, 24)


def test_a_model_that_sees_uses_the_image_where_pictures_of_a_type_differ(planned):
    answers = answers_of(planned, sighted)
    groups = {(group.fact, group.value): group for group in groups_of(planned, answers, FEW)}
    assert groups["content_type", "Abnormality"].uses_image.value > 0.5
    assert groups["content_type", "Modality"].uses_image.value == 0.0  # another CT is a CT, too
    assert groups["content_type", "Modality"].changed["other modality"].value == 1.0
    assert groups["content_type", "Modality"].changed["shuffled"].value == 0.0
    assert groups["all", ""].accuracy.value == 1.0
    check = contradictions_in(planned, answers, FEW)
    assert (check.score.value, check.not_judged) == (0.0, 0)
    assert check.score.n >= 24
    assert mirrored_in(planned, answers, FEW)[0].score.value == 0.0


def test_an_answer_that_is_neither_yes_nor_no_is_no_contradiction(planned):
    check = contradictions_in(planned, answers_of(planned, lambda *_: "perhaps"), FEW)
    assert (check.score.value, check.score.n) == (None, 0)
    assert check.not_judged == len(planned.opposites) > 0


def test_a_paraphrase_with_another_answer_is_shown_as_an_example(planned):
    check = paraphrases_in(planned, answers_of(planned, lambda question, *_: question), FEW)
    assert check.score.value == 1.0
    assert check.examples[0].first == MODALITY
    assert check.examples[0].second in rewordings()[MODALITY]


def test_each_question_about_a_picture_is_asked_once(planned):
    keys = [(q.question, q.picture, q.number, q.image_id) for q in planned.questions.values()]
    assert len(keys) == len(set(keys))
    assert {q.picture for q in planned.questions.values()} == {ORIGINAL, MIRRORED, *REPLACED}


def test_opposites_are_made_by_rules_for_what_is_asked_and_for_the_picture():
    pairs = opposite_pairs(rows())["i1"]
    assert ("Is the brain healthy?", "Is the brain unhealthy?") in pairs
    assert ("Does this image look normal?", "Does this image look abnormal?") in pairs
    assert len({frozenset(pair) for pair in pairs}) == len(pairs)


def test_opposites_of_chinese_rows_are_chinese():
    row = Example("1", "i", "肝脏是健康的吗?", ("是的",), "i", {})
    assert ("肝脏是健康的吗?", "肝脏是不健康的吗?") in opposite_pairs([row])["i"]
    assert all("吗" in text for pair in opposite_pairs([row])["i"] for text in pair)


def test_left_and_right_are_exchanged_in_text_as_in_the_picture():
    assert mirrored_text("Left lung, on the right") == "Right lung, on the left"
    assert mirrored_text("the leftmost, not leftover") == "the rightmost, not leftover"
    assert mirrored_text("左肺在右侧") == "右肺在左侧"
    picture = np.arange(6, dtype=np.uint8).reshape(1, 6, 1)
    assert mirrored(picture)[0, :, 0].tolist() == [5, 4, 3, 2, 1, 0]


def test_noise_is_the_same_at_every_call_and_gray():
    picture = np.zeros((4, 5, 3), np.uint8)
    assert np.array_equal(noise(picture, "a"), noise(picture, "a"))
    assert not np.array_equal(noise(picture, "a"), noise(picture, "b"))
    assert (noise(picture, "a")[..., :1] == noise(picture, "a")).all()


def test_other_images_are_of_the_same_type_and_of_another_modality():
    same, different = other_images(rows())
    parity = {name: int(name[1:]) % 2 for name in same}
    assert all(len(set(others)) == 3 and name not in others for name, others in same.items())
    assert all(parity[other] == parity[name] for name, others in same.items() for other in others)
    assert all(parity[different[name]] != parity[name] for name in different)


def test_a_single_image_has_no_other_and_is_still_probed():
    alone = [row for row in rows() if row.image_id == "i0"]
    same, different = other_images(alone)
    assert (same, different) == ({}, {})
    planned = plan(alone, same, different)
    everything = groups_of(planned, answers_of(planned, blind), FEW)[0]
    assert everything.changed["shuffled"].value is None
    assert everything.uses_image.value is None
    assert everything.changed["black"].value == 0.0


def test_a_smaller_limit_draws_among_the_images_of_a_larger_one():
    small, large = (sampled_images(rows(), limit, seed=3) for limit in (3, 7))
    assert len(small) == 3
    assert small < large
    assert len(sampled_images(rows(), None)) == 12


def test_a_score_has_an_interval_by_group():
    result = score([1, 1, 0, 0], ["a", "a", "b", "b"], FEW)
    assert (result.value, result.n, result.clusters) == (0.5, 4, 2)
    assert (result.interval.low, result.interval.high) == (0.0, 1.0)


def test_the_headline_names_open_and_finding_questions(planned):
    text = headline(groups_of(planned, answers_of(planned, sighted), FEW))
    assert text.startswith("Uses the image for ")
    assert "of open" in text
    assert text.endswith("of finding questions.")
