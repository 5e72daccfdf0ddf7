"""Uploaded images and series, and what can be shown of them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, WithJsonSchema

from medical_vqa.schema.evidence import array_of_numbers
from medical_vqa.serving.schema.common import IMAGE_ID_EXAMPLE, UID, PlaneName, Wire


class RetrieveRequest(Wire):
    """Images of a DICOMweb server: an address, or a study of the service that the settings name."""

    address: str | None = Field(
        None,
        description="A study, a series or one instance of a server that this one may retrieve from.",
        max_length=500,
        examples=["dicomweb://pacs.example.org/dicom-web/studies/1.2.3/series/1.2.3.4"],
    )
    study: str | None = Field(
        None,
        description="StudyInstanceUID, in place of the address, of the one service that the settings name.",
        pattern=UID,
        max_length=64,
        examples=["1.2.3"],
    )
    series: str | None = Field(
        None, description="SeriesInstanceUID, with study; null: all its series.", pattern=UID, max_length=64
    )


DICOM_REPORT = "Whether UIDs are stored with the image, so that answers can be exported as a DICOM report without more."


class UploadedImage(Wire):
    """An uploaded image, ready for questions."""

    image_id: str = Field(description="Identifies the image in later requests.", examples=[IMAGE_ID_EXAMPLE])
    width: int = Field(description="Pixels, in upright orientation.", examples=[512])
    height: int = Field(description="Pixels, in upright orientation.", examples=[512])
    format: str = Field(description="File format: JPEG, PNG, BMP, TIFF, WEBP, DICOM or NIFTI.", examples=["JPEG"])
    frames: int = Field(1, description="Frames or slices in the file, of which one was decoded.")
    frame: int = Field(0, description="The frame that was decoded, from 0; by default the middle one.")
    window_source: Literal["option", "header", "header LUT", "percentiles"] | None = Field(
        None, description="Where the window came from; null: the pixels are unchanged."
    )
    plane: str | None = Field(
        None, description="Plane nearest to the picture: axial, coronal or sagittal; null: the header does not say."
    )
    warnings: list[str] = Field(
        default_factory=list, description="What could not be used, or what to be careful about, in sentences."
    )
    removed_metadata: list[str] = Field(
        default_factory=list,
        description="Parts of the file that were not stored.",
        examples=[["EXIF", "ICC profile"]],
    )
    header_fields: dict[str, str] = Field(
        default_factory=dict,
        description="DICOM header fields on the allow-list (modality, body part, window).",
        examples=[{"Modality": "CT", "WindowCenter": "40", "WindowWidth": "400"}],
    )
    burned_in_annotation: bool | None = Field(
        None, description="Whether the header declares text burned into the pixels; null: it does not say."
    )
    spacing: Annotated[tuple[float, float], WithJsonSchema(array_of_numbers(2))] | None = Field(
        None,
        description="Distance of rows and of columns in millimeters, from the header; null: it does not say.",
        examples=[[0.7, 0.7]],
    )
    expires_in_seconds: float | None = Field(
        None, description="How long the image is stored; null: until it is deleted.", examples=[3600.0]
    )
    dicom_report: bool = Field(False, description=DICOM_REPORT)


_THREE_DISTANCES = {**array_of_numbers(3), "items": {"anyOf": [{"type": "number"}, {"type": "null"}]}}


class NamedWindow(Wire):
    """A window: the values that are shown from black to white."""

    name: str = Field(description="Name, as a request may give it.", examples=["lung"])
    center: float = Field(description="Value that is shown half gray.", examples=[-600.0])
    width: float = Field(description="Range of values.", examples=[1500.0])
    function: Literal["linear", "sigmoid"] = Field(
        "linear",
        description="How values become brightness: a ramp, or DICOM's sigmoid, 1 / (1 + exp(-4 (v - center) / width)).",
    )


class ValueRange(Wire):
    """The values of a stored image."""

    low: float = Field(description="The smallest.", examples=[-1024.0])
    high: float = Field(description="The largest.", examples=[3071.0])
    unit: str | None = Field(None, description="HU for CT; null: not known.", examples=["HU"])


class ImageFacts(Wire):
    """What can be shown of a stored image or series."""

    series: bool = Field(False, description="Whether questions without a frame are asked about several slices.")
    modality: str | None = Field(None, description="DICOM modality, where it is a defined term.", examples=["CT"])
    body_part: str | None = Field(None, description="Body part, where it is a defined term.", examples=["CHEST"])
    planes: dict[PlaneName, int] = Field(description="Planes that can be shown, with their number of slices.")
    plane: PlaneName = Field("axial", description="The plane of the stored slices.")
    frame: int = Field(0, description="The slice that is shown by default, from 0.")
    spacing_mm: Annotated[tuple[float, float, float | None], WithJsonSchema(_THREE_DISTANCES)] | None = Field(
        None,
        description="Distance of rows, columns and slices of the stored plane in millimeters; null: not known, that of "
        "slices where the files do not say where they lie.",
    )
    windows: list[NamedWindow] = Field(default_factory=list, description="Windows to choose from.")
    window: NamedWindow | None = Field(None, description="The default window; null: the pixels are unchanged.")
    curve: list[Annotated[tuple[int, int], WithJsonSchema(array_of_numbers(2))]] | None = Field(
        None,
        description="The header's table of brightness, by which slices are shown where no window is chosen: pairs of a "
        "value and the brightness, 0 to 255, from it up to the next pair's value; null: it has none.",
        examples=[[[0, 0], [1200, 64], [2400, 255]]],
    )
    values: ValueRange | None = Field(
        None, description="Of the values that are stored; null: only a picture in 8 bits is."
    )
    inverted: bool = Field(False, description="Whether small values are bright.")
    orientation: dict[PlaneName, list[str]] = Field(
        default_factory=dict,
        description="What of the patient is at the left, right, top and bottom of a picture in each plane: R, L, A, P, "
        "S or I; no entry where the files do not say.",
    )
    dicom_report: bool = Field(False, description=DICOM_REPORT)
    notes: list[str] = Field(default_factory=list, description="Codes of what was left out or is missing.")
    warnings: list[str] = Field(default_factory=list, description="The same and more in sentences.")


class ImageItem(ImageFacts):
    """A stored image or series."""

    image_id: str = Field(description="Identifies the image in later requests.", examples=[IMAGE_ID_EXAMPLE])
    expires_at: datetime | None = Field(None, description="When it is removed; null: not before it is deleted.")


class LeftOutFile(Wire):
    """A file that is in no series."""

    file: int = Field(description="Number of the file in the request or archive, from 0.", examples=[3])
    reason: str = Field(description="Why, in one sentence.", examples=["the file is a localizer of the series"])


class SeriesUpload(Wire):
    """What several files, or one of many slices, hold."""

    series: list[ImageItem] = Field(description="Each series or picture, those of many slices first.")
    left_out: list[LeftOutFile] = Field(default_factory=list, description="Files that are in none of them.")
