"""Images of a DICOMweb server as files for a while, and reports about them back to it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from medical_vqa.data.imaging.decode import LOCAL_LIMITS
from medical_vqa.data.imaging.dicomweb import SCHEME, DicomwebAddress, retrieve


@contextlib.contextmanager
def local_files(source: str) -> Iterator[Path]:
    """The path of an image or a series: as it is, or retrieved into a folder that nobody else may read.

    The folder is removed when the block ends. One instance is a file, several are a folder.

    Args:
        source: A path, or a ``dicomweb://`` address.

    Raises:
        ConfigError: The address makes no sense.
        DicomwebError: The server does not answer, refuses, or has nothing there.
    """
    if not source.startswith(SCHEME):
        yield Path(source)
        return
    files = retrieve(DicomwebAddress.parse(source), limits=LOCAL_LIMITS)
    with tempfile.TemporaryDirectory(prefix="medical-vqa-") as name:  # mode 700
        for number, data in enumerate(files):
            (Path(name) / f"{number:06}.dcm").write_bytes(data)
        yield Path(name) / "000000.dcm" if len(files) == 1 else Path(name)
