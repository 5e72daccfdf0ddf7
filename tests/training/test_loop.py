import os
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from medical_vqa.errors import ConfigError, TrainingError
from medical_vqa.runtime.devices import seed_everything
from medical_vqa.training.journal import Journal
from medical_vqa.training.loop import check_fsdp

sys.path.insert(0, str(Path(__file__).parent))
from line import Line, Quiet, losses, train


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.module.parameters()])


def test_the_loss_falls(tmp_path):
    train(tmp_path, epochs=30)
    rows = losses(tmp_path)
    assert rows[-1][1] < rows[0][1] / 20


def test_small_batches_accumulated_take_the_steps_of_one_big_batch(tmp_path):
    big, small = Line(), Line()
    train(tmp_path / "big", big, batch_size=8, grouping="question")
    # batches of 8 questions in the same order, as two of 4: only the last, shorter batches could differ in size
    train(tmp_path / "small", small, batch_size=4, accumulate=2, grouping="question")
    assert dict(losses(tmp_path / "big")) == pytest.approx(dict(losses(tmp_path / "small")))
    assert torch.allclose(weights(big), weights(small))


class Killed(Exception):
    pass


class KillAt(Quiet):
    def __init__(self, step: int) -> None:
        super().__init__()
        self.at = step

    def step(self, *, done, **_):
        if done >= self.at:
            raise Killed


@pytest.mark.parametrize("at", [10, 30, 50])
def test_a_killed_run_resumes_exactly(tmp_path, at):
    settings = {"epochs": 20, "average": 0.9, "evaluate": lambda: {"em": 0.0}, "evaluate_every": 3}
    uninterrupted, resumed = Line(dropout=0.3), Line(dropout=0.3)
    train(tmp_path / "uninterrupted", uninterrupted, checkpoint_minutes=0, **settings)
    with pytest.raises(Killed):
        train(tmp_path / "interrupted", Line(dropout=0.3), checkpoint_minutes=0, watcher=KillAt(at), **settings)
    train(tmp_path / "interrupted", resumed, checkpoint_minutes=0, **settings)
    assert losses(tmp_path / "interrupted") == losses(tmp_path / "uninterrupted")
    assert torch.equal(weights(resumed), weights(uninterrupted))


def test_a_loss_that_is_no_number_stops_at_its_step_and_keeps_the_checkpoint(tmp_path):
    model = Line(break_at=8)
    with pytest.raises(TrainingError, match=r"loss became nan at step 8 .* step-0000000\d is kept"):
        train(tmp_path, model, checkpoint_minutes=0, epochs=9)
    saved = Journal(tmp_path).checkpoint()
    assert saved is not None
    assert int(saved.name.split("-")[1]) < 8
    assert max(step for step, _ in losses(tmp_path)) < 8


def test_patience_stops_early_and_the_best_is_saved(tmp_path):
    scores = iter([0.1, 0.5, 0.4, 0.4, 0.9])
    saved = []
    fitted = train(
        tmp_path, epochs=9, patience=2, select="em", evaluate=lambda: {"em": next(scores)},
        save=lambda s, epoch: saved.append((epoch, s["em"])),
    )  # fmt: skip
    assert saved == [(1, 0.1), (2, 0.5)]
    assert (fitted.best_epoch, fitted.stopped_early) == (2, True)


def test_the_last_weights_are_saved_on_request(tmp_path):
    saved = []
    train(tmp_path, select="last", evaluate=lambda: {"em": 0.3}, save=lambda s, epoch: saved.append(epoch))
    assert saved == [4]


def test_scores_are_rows_of_the_journal(tmp_path):
    watcher = Quiet()
    train(tmp_path, evaluate=lambda: {"em": 0.25, "f1": 0.5}, evaluate_every=2, select="em", watcher=watcher)
    rows = [row for row in Journal(tmp_path).rows() if "em" in row]
    assert [row["epoch"] for row in rows] == watcher.scored == [2, 4]
    assert rows[0]["em"] == 0.25
    assert rows[0]["train_loss"] > 0


def test_trackers_get_the_losses(tmp_path):
    train(tmp_path, trackers=("tensorboard",), epochs=8)
    assert list(tmp_path.rglob("events.out.tfevents*"))


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path):
    script = str(Path(__file__).with_name("line.py"))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for words in ([script, tmp_path / "one", "8"], [*launcher, script, tmp_path / "two", "4"]):
        subprocess.run([sys.executable, *words], check=True, env=environment)
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert [step for step, _ in one] == [step for step, _ in two]
    assert [loss for _, loss in one] == pytest.approx([loss for _, loss in two], rel=1e-5)


@pytest.mark.parametrize(("version", "efficient"), [(1, False), (2, True)])
def test_a_sharing_of_weights_that_cannot_work_is_refused(version, efficient):
    check_fsdp(None)
    check_fsdp(SimpleNamespace(fsdp_version=2, cpu_ram_efficient_loading=False))
    with pytest.raises(ConfigError, match=r"expected fsdp_version: 2 .*recipes/accelerate/fsdp\.yaml"):
        check_fsdp(SimpleNamespace(fsdp_version=version, cpu_ram_efficient_loading=efficient))


@pytest.mark.parametrize("seed", [-1, 2**64, 10**23])
def test_any_whole_number_is_a_seed(seed):
    drawn = []
    for _ in range(2):
        seed_everything(seed)
        drawn.append((random.random(), float(np.random.random()), float(torch.rand(()))))
    assert drawn[0] == drawn[1]
