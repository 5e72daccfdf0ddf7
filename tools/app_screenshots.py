"""Takes the screenshots in docs/images: starts the app with the shipped model and operates it in Chromium.

``--only guards`` takes those of the guards alone: five refusals, and an answer with its evidence. ``--report FILE``
takes that of a report alone, which `medical-vqa report` wrote. Chinese texts need a Chinese font (fonts-noto-cjk).
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Page, sync_playwright
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundImageStorage

from medical_vqa.app.launch import free_port

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
EXAMPLE = "MRI, Abdomen"
QUESTIONS = ["What is the largest organ in the picture?", "Does the patient like music?"]
PATIENCE = 240_000  # milliseconds, on a busy machine
SAMPLE = Path(__file__).resolve().parents[1] / "src/medical_vqa/assets/slake-mini/imgs"
GUARDS = {  # name of the screenshot -> file, question
    "guard-drawing": ("house.png", "Is there a fracture?"),
    "guard-ultrasound": ("ultrasound.dcm", "Is the liver healthy?"),
    "guard-finding": ("xmlab121", "Is there a pneumonia?"),
    "guard-organ": ("xmlab394", "Is there a tumor in the liver?"),
    "guard-contradiction": ("xmlab100", "Is the lung healthy?"),
    "guard-evidence": ("xmlab200", "Where is the liver?"),
}


def main() -> None:
    """Start the app, take every screenshot, stop it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=IMAGES)
    parser.add_argument("--only", choices=("page", "guards"))
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    out = options.out
    if options.report:
        report_screenshot(options.report, out)
        return
    with app() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        if options.only != "guards":
            page_screenshots(browser, url, out)
        if options.only != "page":
            guard_screenshots(browser, url, out)
        browser.close()


def report_screenshot(report: Path, out: Path) -> None:
    """The beginning of a report."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1200, "height": 1200})
        page.goto(report.resolve().as_uri())
        save_screenshot(page, out / "report.png", colors=128)
        browser.close()


def page_screenshots(browser: Browser, url: str, out: Path) -> None:
    """The page at its start, with a conversation, and on a phone in Chinese."""
    start = open_page(browser, url, 1400, 880)
    save_screenshot(start, out / "app-start.png")
    desktop = open_page(browser, url, 1400, 900)
    ask(desktop, EXAMPLE, QUESTIONS)
    save_screenshot(desktop, out / "app.png")
    phone = open_page(browser, url, 390, 844, locale="zh-CN", color_scheme="dark")
    ask(phone, re.compile("磁共振.腹部"), ["图片中包含肝脏吗?"])
    save_screenshot(phone, out / "app-phone.png")


def guard_screenshots(browser: Browser, url: str, out: Path) -> None:
    """Refusals with their reasons, and an answer with its evidence."""
    for name, (file, question) in GUARDS.items():
        page = open_page(browser, url, 1180, 720)
        page.set_input_files("input[data-testid=files]", {"name": file, "mimeType": "", "buffer": content_of(file)})
        page.wait_for_selector(".stage[data-shown]")
        ask_questions(page, [question])
        save_screenshot(page, out / f"{name}.png", colors=128)
        page.close()


def content_of(file: str) -> bytes:
    """The bytes of a drawing, of an ultrasound file that is made of noise, or of a picture of the sample."""
    out = io.BytesIO()
    if file == "house.png":
        drawing().save(out, "PNG")
        return out.getvalue()
    if file == "ultrasound.dcm":
        return ultrasound()
    return (SAMPLE / file / "source.jpg").read_bytes()


def drawing() -> Image.Image:
    """A house in the sun."""
    image = Image.new("RGB", (640, 480), "#9fd3f5")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 340, 640, 480), fill="#6db35c")
    draw.ellipse((500, 40, 590, 130), fill="#ffd54a")
    draw.rectangle((180, 220, 440, 400), fill="#f3e2c0", outline="#6b4d2e", width=4)
    draw.polygon(((150, 220), (310, 100), (470, 220)), fill="#b5483b", outline="#6b2c24")
    draw.rectangle((280, 290, 340, 400), fill="#7a5230")
    for left in (205, 365):
        draw.rectangle((left, 255, left + 50, 305), fill="#cfe8f7", outline="#6b4d2e", width=3)
    return image


def ultrasound() -> bytes:
    """A DICOM file of modality US: a sector of speckle, brighter and darker by depth."""
    rows, columns = np.mgrid[0:480, 0:640]
    depth, angle = np.hypot(rows + 60, columns - 320), np.arctan2(columns - 320, rows + 60)
    speckle = np.random.default_rng(0).rayleigh(1.0, (480, 640))
    speckle = sum(np.roll(speckle, shift, axis=1) for shift in (-1, 0, 1)) / 3
    layers = 70 + 45 * np.sin(depth / 23) + 25 * np.sin(depth / 61 + 3 * angle)
    liver = np.hypot((rows - 270) / 110, (columns - 330) / 150) < 1
    values = np.where(liver, 0.75, 1.0) * layers * speckle * np.exp(-depth / 700)
    values[(np.abs(angle) > 0.62) | (depth < 80) | (depth > 520)] = 0
    dataset = FileDataset("", {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = UltrasoundImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.Modality = "US"
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = values.clip(0, 255).astype(np.uint8).tobytes()
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


@contextmanager
def app() -> Iterator[str]:
    """``medical-vqa app`` on a free port."""
    port = free_port()
    command = [sys.executable, "-m", "medical_vqa", "app", "--port", str(port), "--store", "memory://"]
    process = subprocess.Popen(command)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{url}/readyz")
        yield f"{url}/page"
    finally:
        process.terminate()
        process.wait()


def wait_for(address: str) -> None:
    """Wait until the page responds."""
    for _ in range(200):
        try:
            httpx2.get(address).raise_for_status()
        except httpx2.HTTPError:
            time.sleep(0.2)
        else:
            return
    raise TimeoutError(address)


def open_page(browser: Browser, url: str, width: int, height: int, **options: Any) -> Page:
    """Open the page and wait for its examples."""
    page = browser.new_page(viewport={"width": width, "height": height}, **{"locale": "en-GB", **options})
    page.goto(url)
    page.set_default_timeout(PATIENCE)
    page.wait_for_selector(".examples li:last-child img")
    page.wait_for_timeout(500)
    return page


def ask(page: Page, example: str | re.Pattern[str], questions: list[str]) -> None:
    """Open an example and ask questions about it."""
    page.get_by_role("button", name=example).click()
    page.wait_for_selector(".stage[data-shown]")
    ask_questions(page, questions)


def ask_questions(page: Page, questions: list[str]) -> None:
    """Ask questions about the open image."""
    for number, question in enumerate(questions, 1):
        field = page.locator("#question")
        field.fill(question)
        field.press("Enter")
        page.wait_for_function("n => document.querySelectorAll('.card:not(.thinking)').length === n", arg=number)
    show = page.get_by_role("button", name="Show in the picture", exact=True)  # not a question that ends so
    if show.count():
        show.first.click()
    page.wait_for_timeout(500)


def save_screenshot(page: Page, path: Path, colors: int | None = None) -> None:
    """Save a compressed PNG, with at most so many colors."""
    page.screenshot(path=path)
    with Image.open(path) as image:
        image_without_alpha = image.convert("RGB")
    reduced = image_without_alpha if colors is None else image_without_alpha.quantize(colors, dither=Image.Dither.NONE)
    reduced.save(path, optimize=True)
    sys.stdout.write(f"{path}: {path.stat().st_size / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()
