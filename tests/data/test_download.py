from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from medical_vqa.data.formats.download import download
from medical_vqa.data.formats.slake import Slake
from medical_vqa.data.formats.vqa_rad import VqaRad
from medical_vqa.errors import ConfigError, DataError, OfflineError

CARD = Slake().card


class Gone(errors.RevisionNotFoundError):
    def __init__(self) -> None:
        Exception.__init__(self, "404 Client Error:\nnot found")


def test_every_file_is_fetched_at_the_pinned_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    told: list[Any] = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repo, file, **more: asked.append((repo, file, more)))
    assert download(CARD, tmp_path, lambda *now: told.append(now)) == tmp_path
    assert [file for _, file, _ in asked] == ["train.json", "validation.json", "test.json", "imgs.zip"]
    assert asked[0][2] == {"repo_type": "dataset", "revision": CARD.hub_revision, "local_dir": tmp_path}
    assert told[-1] == (4, 4)


def test_offline_says_what_to_download_and_where_to_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # what HF_HUB_OFFLINE=1 sets
    with pytest.raises(OfflineError) as refusal:
        download(CARD, tmp_path / "slake.download")
    message = str(refusal.value)
    assert "\n" not in message
    for phrase in (
        "train.json, validation.json, test.json, imgs.zip",
        f"https://huggingface.co/datasets/BoKelvin/SLAKE/tree/{CARD.hub_revision}",
        f"medical-vqa prepare slake --source {tmp_path / 'slake.download'}",
    ):
        assert phrase in message


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (errors.LocalEntryNotFoundError("no"), OfflineError, "the network is not available"),
        (ConnectionError("no"), OfflineError, "the network is not available"),
        (OSError(errno.ENOSPC, "full"), DataError, "the disk is full"),
        (
            Gone(),
            DataError,
            r"the hub does not give train\.json of BoKelvin/SLAKE",
        ),
    ],
)
def test_what_goes_wrong_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception], message: str
) -> None:
    def fail(*given: Any, **more: Any) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(kind, match=message):
        download(CARD, tmp_path)


def test_a_dataset_that_is_not_on_the_hub_says_where_it_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"get it from https://osf\.io/89kps/ and run: medical-vqa prepare vqa-rad"):
        download(VqaRad().card, tmp_path)
