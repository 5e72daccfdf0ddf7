"""Studies, series and instances of a DICOMweb server: found by QIDO-RS, read by WADO-RS, stored by STOW-RS.

    dicomweb://HOST[:PORT]/PATH/studies/UID[/series/UID[/instances/UID]]

The connection is encrypted, except to this machine. Redirects are not followed. A token is sent to its host alone.
"""

from __future__ import annotations

import contextlib
import io
import ipaddress
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from medical_vqa.data.imaging.decoded_frame import DecodeLimits
from medical_vqa.data.imaging.suppress_warnings import suppress_warnings
from medical_vqa.errors import ConfigError, DicomwebError, MissingDependencyError, TooLargeError

if TYPE_CHECKING:
    from dicomweb_client import DICOMwebClient
    from pydicom.dataset import Dataset

SCHEME = "dicomweb://"
TOKENS_VARIABLE = "MEDICAL_VQA_DICOMWEB_TOKENS"
"""HOST=TOKEN, separated by commas: bearer tokens of DICOMweb hosts."""
_PATH = re.compile(
    r"(?P<prefix>(?:/[\w.~-]+)*)/studies/(?P<study>[0-9.]{1,64})"
    r"(?:/series/(?P<series>[0-9.]{1,64})(?:/instances/(?P<instance>[0-9.]{1,64}))?)?/?"
)
_NO_PICTURES = frozenset(
    ("SR", "KO", "PR", "SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "REG", "FID", "RWV", "DOC", "PLAN", "AU")
)
_TIMEOUT = (5.0, 60.0)  # seconds to connect, and between two parts of an answer


@dataclass(frozen=True, slots=True)
class DicomwebAddress:
    """What to retrieve, and from where."""

    host: str
    """Host, with the port where one is named."""
    prefix: str
    """Path of the service: ``/dicom-web``."""
    study: str
    """StudyInstanceUID."""
    series: str | None = None
    """SeriesInstanceUID; None: all series."""
    instance: str | None = None
    """SOPInstanceUID; None: all instances."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a ``dicomweb://`` address; raises `ConfigError`, which does not repeat it."""
        parts = urlsplit(text.strip())
        match = _PATH.fullmatch(parts.path)
        plain = not (parts.query or parts.fragment or "@" in parts.netloc)
        if parts.scheme != "dicomweb" or not parts.hostname or match is None or not plain:
            raise ConfigError(
                "DICOMweb address: expected dicomweb://HOST/PATH/studies/UID, with /series/UID and /instances/UID for "
                "a part of it; correct it"
            )
        return cls(parts.netloc.lower(), match["prefix"], match["study"], match["series"], match["instance"])

    @property
    def url(self) -> str:
        """Address of the service."""
        name = urlsplit(f"//{self.host}").hostname or ""
        local = name == "localhost"
        with contextlib.suppress(ValueError):
            local = ipaddress.ip_address(name).is_loopback
        return f"{'http' if local else 'https'}://{self.host}{self.prefix}"


def tokens_by_host(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Host -> token, from `TOKENS_VARIABLE`; raises `ConfigError`, which does not repeat a token."""
    tokens = {}
    for entry in ((os.environ if environ is None else environ).get(TOKENS_VARIABLE) or "").split(","):
        if not entry.strip():
            continue
        host, equals, token = entry.strip().partition("=")
        if not equals or not host or not token:
            raise ConfigError(f"{TOKENS_VARIABLE}: expected HOST=TOKEN, separated by commas; correct it")
        tokens[host.lower()] = token
    return tokens


def retrieve(address: DicomwebAddress, *, limits: DecodeLimits) -> list[bytes]:
    """The files of a study, a series or one instance.

    Args:
        address: What to retrieve.
        limits: Limits of slices and of bytes together.

    Raises:
        DicomwebError: The server does not answer, refuses, or has nothing with a picture there.
        TooLargeError: There is more than the limits allow.
        MissingDependencyError: The package dicomweb-client is not installed.
    """
    files: list[bytes] = []
    size = 0
    with _errors(address), suppress_warnings("pydicom"):
        for dataset in _datasets(_client(address), address):
            data = _file(dataset)
            size += len(data)
            if size > limits.file_bytes or len(files) >= limits.frames:
                raise TooLargeError(
                    f"{address.host}: holds more than {limits.frames:,} instances or {limits.file_bytes / 1e6:,.0f} "
                    f"million bytes there; name one series{limits.advice('file_bytes')}"
                )
            files.append(data)
    if not files:
        raise DicomwebError(f"{address.host}: holds no picture under that address; check its UIDs")
    return files


def store(address: DicomwebAddress, objects: Sequence[Dataset]) -> None:
    """Store DICOM objects in the address's study.

    Args:
        address: The service and the study.
        objects: With their file meta information.

    Raises:
        DicomwebError: The server does not answer or refuses.
        MissingDependencyError: The package dicomweb-client is not installed.
    """
    with _errors(address):
        reply = _client(address).store_instances(list(objects), study_instance_uid=address.study)
    if reply.get("FailedSOPSequence"):
        raise DicomwebError(f"{address.host}: refused to store {len(reply.FailedSOPSequence)} objects; see its log")


def _datasets(client: DICOMwebClient, address: DicomwebAddress) -> Iterator[Dataset]:
    if address.series is not None and address.instance is not None:
        yield client.retrieve_instance(address.study, address.series, address.instance)
        return
    if address.series is not None:
        yield from client.iter_series(address.study, address.series)
        return
    for entry in client.search_for_series(address.study):
        modality, series = (_value(entry, tag) for tag in ("00080060", "0020000E"))
        if modality not in _NO_PICTURES and series:
            yield from client.iter_series(address.study, series)


def _value(entry: Mapping[str, Any], tag: str) -> str:
    """The first value of an element in DICOM's JSON."""
    values = entry.get(tag, {}).get("Value") or [""]
    return str(values[0])


def _file(dataset: Dataset) -> bytes:
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def _client(address: DicomwebAddress) -> DICOMwebClient:
    try:
        import requests  # noqa: PLC0415 - an extra
        from dicomweb_client import DICOMwebClient  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"DICOMweb needs the package {error.name}; run: pip install 'medical-vqa[dicomweb]'"
        ) from error
    session = requests.Session()
    session.trust_env = False  # neither proxies nor passwords of files that nobody named
    session.max_redirects = 0
    token = tokens_by_host().get(address.host)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    client = DICOMwebClient(url=address.url, session=session, headers=headers, timeout=_TIMEOUT)
    client.set_http_retry_params(retry=False)  # somebody waits, and its log has the address with its UIDs
    return client


@contextlib.contextmanager
def _errors(address: DicomwebAddress) -> Iterator[None]:
    """Turn whatever the client raises into one sentence, which repeats neither UIDs nor the server's words."""
    try:
        yield
    except (TooLargeError, MissingDependencyError, ConfigError, DicomwebError):
        raise
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status:
            what = f"answered {status}"
        elif isinstance(error, OSError):  # of the system, or of the HTTP client, whose errors are derived from it
            what = f"cannot be reached ({type(error).__name__})"
        else:
            what = f"does not answer as DICOMweb does ({type(error).__name__})"
        advice = (
            f"check the token in {TOKENS_VARIABLE}" if status in (401, 403) else "check the address and the service"
        )
        raise DicomwebError(f"{address.host}: {what}; {advice}") from error
