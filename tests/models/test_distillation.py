"""Learning what an ensemble thinks."""

import numpy as np
import pytest
import torch

from medical_vqa.errors import ModelError
from medical_vqa.models.compact import Compact
from medical_vqa.models.distillation import Teachers
from medical_vqa.models.model import Query
from medical_vqa.records import Example

ROWS = [
    Example("a1", "a", "is it left", ("yes",), "a", {"modality": "CT", "organ": "Head"}),
    Example("b1", "b", "is it large", ("no",), "b", {"modality": "CT", "organ": "Head"}),
    Example("c1", "c", "is it grey", ("no",), "c", {"modality": "MRI", "organ": "Head"}),
]
SIZES = {
    "picture": {"side": 32, "mode": "L", "fit": "stretch"},
    "channels": (8, 16),
    "width": 16,
    "heads": 2,
    "layers": 1,
    "dropout": 0.0,
    "question_words": 8,
    "augment": None,
    "label_smoothing": 0.1,
}


def built(seed=0, rows=ROWS, **changes):
    torch.manual_seed(seed)
    return Compact.build(rows, **{**SIZES, **changes})


def queries(*ids):
    pixels = {name: np.full((32, 32, 1), 40 * n, np.uint8) for n, name in enumerate("abc")}
    return [Query(r.id, r.question, r.image_id, pixels[r.image_id], r.answers[0]) for r in ROWS if r.id in ids]


def opinion(student, batch):
    pictures = batch["pictures"].permute(0, 3, 1, 2) / 255
    return student.module._opinion(student.module.teachers, pictures, batch, len(student.answers))


@pytest.fixture
def teachers(tmp_path):
    folders = []
    for seed in (1, 2):
        folder = tmp_path / f"teacher-{seed}"
        folder.mkdir()
        built(seed).save(folder)
        folders.append(folder)
    return folders


def test_a_student_of_teachers_alone_learns_what_they_think_on_the_whole(teachers):
    student = built(3, teachers=teachers, teacher_weight=1.0)
    batch = student.collate(queries("a1", "b1", "c1"))
    thought, asked = opinion(student, batch)
    assert asked.all()
    each = [Compact.load(t, device=torch.device("cpu")).logits(queries("a1", "b1", "c1")).softmax(-1) for t in teachers]
    assert torch.allclose(thought, (each[0] + each[1]) / 2, atol=1e-5)
    optimizer = torch.optim.Adam(student.module.parameters(), 0.01)
    student.module.train()
    for _ in range(60):
        optimizer.zero_grad()
        student.module(batch).backward()
        optimizer.step()
    learned = student.logits(queries("a1", "b1", "c1")).softmax(-1)
    assert torch.allclose(learned, thought, atol=0.05)


def test_teachers_do_not_learn_and_are_not_saved(teachers):
    student = built(3, teachers=teachers)
    assert len(list(student.module.parameters())) == len(list(built(3).module.parameters()))
    before = [p.clone() for net in student.module.teachers._nets for p in net.parameters()]
    student.module.train()
    student.module(student.collate(queries("a1"))).backward()
    after = [p for net in student.module.teachers._nets for p in net.parameters()]
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, after, strict=True))
    assert not any(net.training for net in student.module.teachers._nets)
    assert student.module.state_dict().keys() == built(3).module.state_dict().keys()


def test_further_questions_come_from_images_of_the_same_kind_and_only_teachers_answer_them(teachers):
    student = built(3, teachers=teachers, ask_more=5, teacher_weight=0.0)
    batch = student.collate(queries("a1", "c1"))
    assert batch["image_of"].tolist() == [0, 1] + [0] * 5 + [1] * 5
    assert batch["supervised"] == 2
    asked = {tuple(row.tolist()) for row in batch["words"][7:]}
    assert asked == {tuple(student._words(["is it grey"])[0].tolist())}  # the other images are of another modality
    plain = built(3)
    student.module.load_state_dict(plain.module.state_dict())
    alone = plain.module(plain.collate(queries("a1", "c1")))
    assert student.module(batch).item() == pytest.approx(alone.item(), abs=1e-4)


def test_no_further_question_is_one_that_no_teacher_can_read(tmp_path):
    built(1, rows=ROWS[:1]).save(tmp_path)  # it knows "is it left"
    student = built(3, teachers=[tmp_path], ask_more=9)
    batch = student.collate(queries("b1", "c1"))
    assert batch["image_of"].tolist() == [0, 1] + [0] * 9  # no such question about an MRI
    assert {tuple(row.tolist()) for row in batch["words"][2:]} == {tuple(student._words(["is it left"])[0].tolist())}


def test_a_teacher_is_asked_only_about_questions_whose_words_it_knows():
    fewer = [Example("a1", "a", "is it left", ("yes",), "a", {}), Example("b1", "b", "is it", ("maybe",), "b", {})]
    more = [*ROWS, Example("d1", "d", "what", ("maybe",), "d", {})]
    teacher, student = built(1, rows=fewer), built(2, rows=more)
    student.module.teachers = Teachers.of({"small": teacher}, student, 1.0)
    thought, asked = opinion(student, student.collate(queries("a1", "b1")))
    assert asked.tolist() == [True, False]  # "large" is a word of the student alone
    alone = teacher.logits(queries("a1")).softmax(-1)[0]
    wanted = {answer: float(alone[teacher.answers.index(answer)]) for answer in ("yes", "maybe")}
    for answer in ("yes", "no", "maybe"):
        assert float(thought[0, student.answers.index(answer)]) == pytest.approx(wanted.get(answer, 0), abs=1e-5)
    assert thought[1].abs().sum() == 0


def test_teachers_see_a_mirrored_picture_as_it_was_and_what_they_think_of_it_is_mirrored():
    sides = [
        Example("a1", "a", "where is it on the left", ("Left Lung",), "a", {}),
        Example("b1", "b", "where is it on the right", ("Right Lung",), "b", {}),
        Example("c1", "c", "where is it", ("Left Eye",), "c", {}),
    ]
    teacher, student = built(1, rows=sides), built(2, rows=sides, mirror=0.999999)
    student.module.teachers = Teachers.of({"one": teacher}, student, 1.0)
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 1), dtype=np.uint8)
    query = Query("a1", "where is it on the left", "a", pixels, "Left Lung")
    turned = student.module.mirror(student.collate([query]))
    assert turned["words"][0].tolist() == student.reader.encode("where is it on the right", limit=8)
    seen = turned["pictures"].permute(0, 3, 1, 2) / 255
    thought, _ = student.module._opinion(student.module.teachers, seen, turned, 3)
    alone = teacher.logits([query]).softmax(-1)[0]
    left, right, eye = (student.answers.index(answer) for answer in ("Left Lung", "Right Lung", "Left Eye"))
    assert float(thought[0, right]) == pytest.approx(float(alone[left]), abs=1e-5)
    assert float(thought[0, left]) == pytest.approx(float(alone[right]), abs=1e-5)
    assert float(thought[0, eye]) == 0  # training has no right eye to mirror it to


def test_a_teacher_with_other_answers_or_pictures_is_refused_by_name(tmp_path):
    other = [*ROWS, Example("d1", "d", "what", ("liver",), "d", {})]
    for teacher in (built(1, rows=other), built(1, picture={"side": 48, "mode": "L", "fit": "stretch"})):
        folder = tmp_path / "other"
        folder.mkdir(exist_ok=True)
        teacher.save(folder)
        with pytest.raises(ModelError, match=r"teacher .*other sees other pictures"):
            built(2, teachers=[folder])
