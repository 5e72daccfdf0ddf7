"""Options of `ask` that write answers as DICOM objects: a report, and a picture with the attention map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from medical_vqa.cli.options import NamedPath
from medical_vqa.errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    from medical_vqa import api
    from medical_vqa.data.imaging.dicom_export.uids import ObjectUids
    from medical_vqa.pipelines.ask import Answer, AttentionMap
    from medical_vqa.pipelines.ask_series import SeriesAnswer

F = TypeVar("F", bound=Callable[..., Any])
_SCHEME = "dicomweb://"


def dicom_output_options(command: F) -> F:
    """Add the options."""
    file = NamedPath(dir_okay=False, path_type=Path)
    options = [
        click.option("--dicom-report", "report", type=file, metavar="FILE", help="Write the answers as a DICOM SR."),
        click.option(
            "--report-uids", type=(str, str), metavar="SERIES INSTANCE", help="Its UIDs.  [default: new ones]"
        ),
        click.option(
            "--dicom-capture",
            "capture",
            type=file,
            metavar="FILE",
            help="Write the attention map of one image's first answer as a DICOM Secondary Capture.",
        ),
        click.option(
            "--capture-uids", type=(str, str), metavar="SERIES INSTANCE", help="Its UIDs.  [default: new ones]"
        ),
        click.option(
            "--store-report", "store", is_flag=True, help="Store both at the dicomweb:// service too (STOW-RS)."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class DicomOutputs:
    """What the options ask for."""

    report: Path | None
    """File of the report; None: none is written."""
    report_uids: tuple[str, str] | None
    """SeriesInstanceUID and SOPInstanceUID of the report; None: new ones."""
    capture: Path | None
    """File of the picture with the attention map; None: none is written."""
    capture_uids: tuple[str, str] | None
    """SeriesInstanceUID and SOPInstanceUID of the picture; None: new ones."""
    store: bool
    """Whether both are stored at the service that the images came from."""
    address: str
    """The image or series, as the user named it."""

    def __post_init__(self) -> None:
        if self.store and not self.address.startswith(_SCHEME):
            raise ConfigError(
                "--store-report stores at the service of a dicomweb:// address; give one, or leave it out"
            )
        if self.store and not self:
            raise ConfigError("--store-report stores what --dicom-report or --dicom-capture write; give one of them")

        missing = [name for name in ("pydicom", "highdicom") if self and find_spec(name) is None]
        if missing:  # said before the question is asked
            raise MissingDependencyError(
                f"a DICOM object is written with {missing[0]}, which is not installed; run: pip install "
                "'medical-vqa[dicomweb]'"
            )

    def __bool__(self) -> bool:
        return self.report is not None or self.capture is not None

    def write(self, loaded: api.Model, answers: Sequence[Answer] | Sequence[SeriesAnswer], source: Path) -> None:
        """Write the report, and store it where that is wanted.

        Args:
            loaded: The model that answered.
            answers: Its answers.
            source: The image or series.
        """
        if self.report is None:
            return
        from medical_vqa.pipelines.dicom_report import report_of, store_dicom, write_dicom

        report = report_of(answers, source, uids=_uids(self.report_uids), model=loaded.name)
        write_dicom(report, self.report)
        if self.store:
            store_dicom(report, self.address)

    def write_capture(self, loaded: api.Model, attention: AttentionMap) -> None:
        """Write the picture with the attention map, and store it where that is wanted."""
        from medical_vqa.pipelines.dicom_report import capture_of, store_dicom, write_dicom

        assert self.capture is not None
        capture = capture_of(attention, uids=_uids(self.capture_uids), model=loaded.name)
        write_dicom(capture, self.capture)
        if self.store:
            store_dicom(capture, self.address)


def _uids(pair: tuple[str, str] | None) -> ObjectUids:
    from medical_vqa.data.imaging.dicom_export.uids import ObjectUids

    return ObjectUids(*pair) if pair else ObjectUids.new()
