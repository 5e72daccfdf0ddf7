"""Download of a dataset from the Hugging Face hub at its pinned revision; nothing else in `data` uses the network."""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from medical_vqa.errors import ConfigError, DataError, OfflineError
from medical_vqa.runtime import ProgressCallback

if TYPE_CHECKING:
    from medical_vqa.data.formats.base import DatasetCard


def download(card: DatasetCard, folder: Path, progress: ProgressCallback | None = None) -> Path:
    """Download the files of a dataset; existing ones are not downloaded again.

    Args:
        card: Names the repository, revision and files.
        folder: Folder to download into.
        progress: Called with the number of files that are complete.

    Returns:
        `folder`, with all files in it.

    Raises:
        ConfigError: The dataset is not on the hub.
        OfflineError: The hub cannot be reached, or ``HF_HUB_OFFLINE=1`` forbids it.
        DataError: The hub has no such revision or file, or the disk is full.
    """
    if card.hub_repo is None or card.hub_revision is None:
        raise ConfigError(
            f"{card.name} cannot be downloaded by this command; get it from {card.homepage} and run: "
            f"medical-vqa prepare {card.name} --source DIR"
        )
    for done, file in enumerate(card.hub_files, 1):
        _download_file(card, file, folder)
        if progress is not None:
            progress(done, len(card.hub_files))
    return folder


def _download_file(card: DatasetCard, file: str, folder: Path) -> None:
    from huggingface_hub import hf_hub_download, utils  # noqa: PLC0415 - takes a third of a second to import
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # noqa: PLC0415
        HfHubHTTPError,
        HTTPError,  # of httpx or of httpx2, as the hub's version has it
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    verbosity = utils.logging.get_verbosity()
    utils.logging.set_verbosity(logging.ERROR)  # it logs its retries, and the user gets one sentence
    try:
        hf_hub_download(str(card.hub_repo), file, repo_type="dataset", revision=card.hub_revision, local_dir=folder)
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise OfflineError(_advice(card, folder)) from error
    except HfHubHTTPError as error:
        raise DataError(
            f"the hub does not give {file} of {card.hub_repo} at revision {card.hub_revision} "
            f"({' '.join(str(error).split())[:200]}); "
            f"get the dataset from {card.homepage} and pass its folder with --source"
        ) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DataError(f"{folder}: the disk is full; free some space and run it again") from error
        raise OfflineError(_advice(card, folder)) from error
    except HTTPError as error:  # the connection broke during a download
        raise OfflineError(_advice(card, folder)) from error
    finally:
        utils.logging.set_verbosity(verbosity)


def _advice(card: DatasetCard, folder: Path) -> str:
    return (
        f"the network is not available: download {', '.join(card.hub_files)} from "
        f"https://huggingface.co/datasets/{card.hub_repo}/tree/{card.hub_revision} on another machine, put them into "
        f"{folder}, and run: medical-vqa prepare {card.name} --source {folder}"
    )
