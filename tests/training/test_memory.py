"""Batches taken in parts: fixed, or halved whenever the device runs out of memory; length buckets."""

import random
import sys
from pathlib import Path

import pytest
import torch

from medical_vqa.errors import TrainingError
from medical_vqa.training.batching import BatchPlan, split
from medical_vqa.training.journal import Journal

sys.path.insert(0, str(Path(__file__).parent))
from line import Line, losses, train


class Small(Line):
    """A model on a device that holds so many rows."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        forward = self.module.forward

        def limited(batch):
            if len(batch["x"]) > rows:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
            return forward(batch)

        self.module.forward = limited


@pytest.mark.parametrize("grouping", ["image", "question"])
def test_parts_of_a_batch_take_the_step_of_the_whole(tmp_path, grouping):
    undivided, parts = Line(), Line()
    train(tmp_path / "undivided", undivided, grouping=grouping)
    train(tmp_path / "parts", parts, grouping=grouping, micro_batch=3)
    assert dict(losses(tmp_path / "parts")) == pytest.approx(dict(losses(tmp_path / "undivided")))


def test_the_device_running_out_of_memory_halves_the_parts_and_not_the_step(tmp_path):
    train(tmp_path / "undivided", Line())
    train(tmp_path / "small", Small(rows=3))
    assert dict(losses(tmp_path / "small")) == pytest.approx(dict(losses(tmp_path / "undivided")))
    halved = [row["micro_batch"] for row in Journal(tmp_path / "small").rows() if "micro_batch" in row]
    assert halved == [4, 2]


def test_one_question_too_many_is_said_so(tmp_path):
    with pytest.raises(TrainingError, match=r"ran out of memory with 1 questions .*gradient_checkpointing"):
        train(tmp_path, Small(rows=0))


def test_parts_that_were_asked_for_are_not_halved(tmp_path):
    with pytest.raises(TrainingError, match="with 8 questions at once"):
        train(tmp_path, Small(rows=4), micro_batch=8)


def test_parts_keep_the_order():
    assert split([5, 3, 8, 1, 2], 2) == [[5, 3], [8, 1], [2]]
    assert split([5, 3], None) == [[5, 3]]


def padding(batches, lengths):
    rows = [[lengths[row] for row in batch] for batch in batches]
    return sum(max(row) * len(row) - sum(row) for row in rows)


@pytest.mark.parametrize("grouping", ["image", "question"])
def test_length_buckets_pad_less_and_lose_no_row(grouping):
    chance = random.Random(0)
    lengths = [chance.randint(3, 60) for _ in range(600)]
    images = [str(row // 3) for row in range(600)]
    plain = BatchPlan(images, 16, grouping)
    bucketed = BatchPlan(images, 16, grouping, lengths=lengths)
    assert sorted(row for batch in bucketed.epoch(0) for row in batch) == list(range(600))
    assert padding(bucketed.epoch(0), lengths) < 0.75 * padding(plain.epoch(0), lengths)
    assert bucketed.epoch(0) != bucketed.epoch(1)
    assert bucketed.epoch(0) == BatchPlan(images, 16, grouping, lengths=lengths).epoch(0)
