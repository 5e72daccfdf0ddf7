import errno
import os
import resource

import pytest
import torch
from safetensors.torch import save_file

from medical_vqa.errors import TrainingError
from medical_vqa.io import atomic_write
from medical_vqa.training.journal import Journal, Progress, explain_full_disk, read_progress


def full_disk(folder):
    (folder / "half").write_text("half", encoding="utf-8")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def write_state(folder):
    (folder / "model.bin").write_bytes(b"weights")


def test_a_checkpoint_replaces_the_one_before(tmp_path):
    journal = Journal(tmp_path)
    journal.save(Progress(step=1), write_state)
    journal.save(Progress(step=2, best=0.5), write_state)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]
    assert read_progress(journal.checkpoint()).best == 0.5


def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_half_written(tmp_path):
    journal = Journal(tmp_path)
    journal.save(Progress(step=1), write_state)
    with pytest.raises(TrainingError, match=r"disk is full .* checkpoint step-00000001 is kept"):
        journal.save(Progress(step=2), full_disk)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
    assert (journal.checkpoint() / "model.bin").read_bytes() == b"weights"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:672] . PytorchStreamWriter failed writing file data/5"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_every_librarys_way_of_saying_full_disk_is_understood(error, tmp_path):
    with pytest.raises(TrainingError, match="free some space"), explain_full_disk(tmp_path, status="x"):
        raise error


def test_other_errors_pass(tmp_path):
    with pytest.raises(RuntimeError, match="shape"), explain_full_disk(tmp_path, status="x"):
        raise RuntimeError("shape mismatch")


def test_a_checkpoint_cut_short_by_a_kill_is_not_taken_up(tmp_path):
    journal = Journal(tmp_path)
    journal.save(Progress(step=1), write_state)
    torn = tmp_path / "checkpoints" / "partial"
    torn.mkdir()
    write_state(torn)
    assert journal.checkpoint().name == "step-00000001"


def test_rows_after_the_checkpoint_are_dropped(tmp_path):
    journal = Journal(tmp_path)
    journal.log([{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 3, "loss": 1.0}])
    with journal.metrics_path.open("a") as out:
        out.write('{"step": 4, "lo')  # the kill came in the middle of a line
    journal.drop_rows_after(2)
    assert [row["step"] for row in journal.rows()] == [1, 2]


def test_a_finished_run_keeps_no_checkpoints(tmp_path):
    journal = Journal(tmp_path)
    journal.save(Progress(step=1), write_state)
    assert not journal.finished
    journal.finish({"steps": 1})
    assert journal.finished
    assert journal.checkpoint() is None


def with_torch(folder):
    torch.save({"weights": torch.zeros(100_000)}, folder / "model.bin")


def with_safetensors(folder):
    save_file({"weights": torch.zeros(100_000)}, folder / "model.safetensors")


def with_text(folder):
    atomic_write(folder / "model.txt", "x" * 100_000)


@pytest.mark.parametrize("write", [with_torch, with_safetensors, with_text])
def test_a_real_writer_that_runs_out_of_room_is_understood(write, tmp_path):
    journal = Journal(tmp_path)
    journal.save(Progress(step=1), write_state)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))  # the kernel refuses to let any file grow further
    try:
        with pytest.raises(TrainingError, match="checkpoint step-00000001 is kept"):
            journal.save(Progress(step=2), write)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
