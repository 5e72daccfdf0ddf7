"""Pictures that are no radiology pictures, for `guards.py`: generated ones, and those that installed packages ship.

Photographs, microscopy, histology, drawings and scans of text come from scikit-image, scikit-learn and matplotlib,
wherever they are installed: `pip install --no-deps --target FOLDER scikit-image scikit-learn matplotlib`. Ultrasound,
nuclear medicine, dose grids and secondary captures come from pydicom's test files, once with their header and once
as plain pixels. Screenshots are those of this project's documentation.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from medical_vqa.data.imaging.decode import decode_image_file
from medical_vqa.errors import MedicalVqaError

Picture = tuple[str, Image.Image, dict[str, str]]
"""What it is, its pixels, and header facts."""

OF_EACH = 40
RADIOLOGY = ("CT", "MR", "CR", "DX", "MG", "XA", "RF")
PHOTO_FOLDERS = ("skimage/data", "sklearn/datasets/images", "matplotlib/mpl-data/sample_data")
HISTOLOGY = ("ihc", "cell", "retina", "microaneurysms")


def pictures(packages: Path | None = None, seed: int = 0) -> Iterator[Picture]:
    """All pictures, the same at every call; `packages` is the folder that the photographs' packages are in."""
    yield from generated(seed)
    yield from dicom_files()
    yield from screenshots()
    if packages is not None:
        yield from photographs(packages)


def photographs(packages: Path) -> Iterator[Picture]:
    """Every picture that the packages ship: in color, in gray, and two gray crops of it."""
    for folder in PHOTO_FOLDERS:
        for path in sorted((packages / folder).glob("*")):
            if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".gif") or path.stat().st_size < 3_000:
                continue
            with Image.open(path) as opened:
                image = opened.convert("RGB")
            kind = "microscopy and retina" if path.stem in HISTOLOGY else "photographs and drawings"
            gray, (width, height) = ImageOps.grayscale(image), image.size
            yield f"{kind}", image, {}
            yield f"{kind}, gray", gray, {}
            yield f"{kind}, gray crops", gray.crop((0, 0, width // 2, height // 2)), {}
            yield f"{kind}, gray crops", gray.crop((width // 3, height // 3, width, height)), {}


def dicom_files() -> Iterator[Picture]:
    """pydicom's test files of other modalities, with their header and without it."""
    for name in sorted(Path(pydicom.__file__).parent.glob("data/test_files/*.dcm")):
        try:
            decoded = decode_image_file(name)
        except MedicalVqaError:
            continue
        modality = decoded.header_fields.get("Modality", "")
        if modality and modality not in RADIOLOGY:
            yield f"DICOM {modality}, with header", decoded.image, dict(decoded.header_fields)
            yield f"DICOM {modality}, pixels alone", decoded.image, {}


def screenshots() -> Iterator[Picture]:
    """Pages of this project, as its documentation shows them, and gray."""
    for path in sorted((Path(__file__).parents[1] / "docs/images").glob("*.png")):
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        yield "screenshots", image, {}
        yield "screenshots", ImageOps.grayscale(image), {}


def generated(seed: int = 0) -> Iterator[Picture]:
    """Noise, gradients, constants, masks, documents, drawings, and stained cells as histology shows them."""
    rng, letters = np.random.default_rng(seed), random.Random(seed)
    for _ in range(OF_EACH):
        height, width = (int(side) for side in rng.integers(100, 600, 2))
        noise = Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8))
        gradient = Image.fromarray(np.linspace(0, 255, 300).astype(np.uint8)[None].repeat(300, 0))
        yield "noise", noise, {}
        yield "blurred noise", noise.filter(ImageFilter.GaussianBlur(float(rng.uniform(1, 12)))), {}
        yield "gradients", gradient.rotate(float(rng.uniform(0, 360))), {}
        yield "constants", Image.new("L", (256, 256), int(rng.integers(0, 256))), {}
        yield "masks", shapes(rng, Image.new("L", (512, 512), 0), count=4), {}
        yield "documents", document(rng, letters), {}
        yield "drawings", shapes(rng, Image.new("RGB", (400, 400), color(rng)), count=14), {}
        yield "histology-like", histology(rng), {}
        yield "histology-like, gray", ImageOps.grayscale(histology(rng)), {}


def histology(rng: np.random.Generator) -> Image.Image:
    """Dark nuclei on a pink ground, blurred as under a microscope."""
    image = Image.new("RGB", (400, 400), (232, 190, 214))
    draw = ImageDraw.Draw(image)
    for _ in range(220):
        x, y = (int(value) for value in rng.integers(0, 400, 2))
        size = int(rng.integers(6, 18))
        stain = (int(rng.integers(70, 120)), int(rng.integers(40, 80)), int(rng.integers(110, 160)))
        draw.ellipse([x, y, x + size, y + int(size * rng.uniform(0.6, 1.4)) + 1], fill=stain)
    grain = rng.normal(0, 9, (400, 400, 1))
    textured = np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8)
    return Image.fromarray(textured).filter(ImageFilter.GaussianBlur(1.2))


def color(rng: np.random.Generator) -> tuple[int, int, int]:
    """A random color."""
    red, green, blue = (int(value) for value in rng.integers(0, 256, 3))
    return red, green, blue


def shapes(rng: np.random.Generator, image: Image.Image, *, count: int) -> Image.Image:
    """Ellipses and rectangles on a ground."""
    draw = ImageDraw.Draw(image)
    for number in range(count):
        x, y = (int(value) for value in rng.integers(0, image.width - 120, 2))
        width, height = (int(value) for value in rng.integers(20, 120, 2))
        fill = color(rng) if image.mode == "RGB" else int(rng.integers(40, 256))
        outline = draw.rectangle if number % 2 and image.mode == "RGB" else draw.ellipse
        outline([x, y, x + width, y + height], fill=fill)
    return image


def document(rng: np.random.Generator, letters: random.Random) -> Image.Image:
    """Black lines of text on white."""
    image = Image.new("RGB", (int(rng.integers(300, 900)), int(rng.integers(300, 900))), "white")
    draw = ImageDraw.Draw(image)
    for y in range(20, image.height - 20, int(rng.integers(14, 30))):
        words = ("".join(letters.choices("abcdefghijklmnop", k=letters.randint(2, 9))) for _ in range(18))
        draw.text((20, y), " ".join(words), fill="black")
    return image
