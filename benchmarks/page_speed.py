"""How fast both pages are, in one run: the server's own page and the Streamlit page, with the shipped model.

``python benchmarks/page_speed.py`` starts each page in turn, opens it in Chromium and measures

- first page: from the request until the examples are shown, in a new browser;
- answer: from Enter until the answer is shown, the median of different questions, none of which is cached;
- slice: from the key until the picture of the next slice is shown, in a CT of 512 by 512 pixels.

The figures of this machine are in benchmarks/results/page_speed.json.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MultiFrameGrayscaleWordSecondaryCaptureImageStorage

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
QUESTIONS = [
    f"{words} {organ}?"
    for organ in ("liver", "heart", "lung", "kidney")
    for words in ("Is this the", "Where is the", "Does the picture contain the")
]
SLICES = 24


def main() -> None:
    """Measure both pages and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="times that each page is opened")
    parser.add_argument("--out", type=Path, help="file for the figures")
    options = parser.parse_args()
    figures = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
    }
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for name, flags, ready in (("own", [], "/readyz"), ("streamlit", ["--streamlit"], "/_stcore/health")):
            with page_server(flags, ready) as url:
                figures[name] = (
                    OwnPage().measure(browser, f"{url}/page", options.repeats)
                    if name == "own"
                    else StreamlitPage().measure(browser, url, options.repeats)
                )
        browser.close()
    text = json.dumps(figures, indent=1)
    sys.stdout.write(text + "\n")
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")


@contextmanager
def page_server(flags: list[str], ready: str) -> Iterator[str]:
    """``medical-vqa app`` on a free port, in an empty folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "medical_vqa", "app", *flags, "--port", str(port)]
        environ = {**os.environ, "MEDICAL_VQA_HOME": folder}
        process = subprocess.Popen(
            command, cwd=folder, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        url = f"http://127.0.0.1:{port}"
        try:
            wait_for(url + ready)
            yield url
        finally:
            process.terminate()
            process.wait()


def wait_for(address: str) -> None:
    """Wait until a page responds."""
    for _ in range(600):
        try:
            httpx2.get(address).raise_for_status()
        except httpx2.HTTPError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(address)


class OwnPage:
    """The page that the server itself serves."""

    examples = ".examples img"

    def measure(self, browser: Browser, url: str, repeats: int) -> dict[str, object]:
        """First page, answers and slices, in seconds."""
        first = [self._first(browser, url) for _ in range(repeats)]
        page = browser.new_page(viewport={"width": 1400, "height": 900}, locale="en-GB")
        page.goto(url)
        page.wait_for_selector(self.examples)
        answers = self._answers(page)
        slices = self._slices(page)
        page.close()
        return {"first_page": summary(first), "answer": summary(answers), "slice": summary(slices)}

    def _first(self, browser: Browser, url: str) -> float:
        page = browser.new_page(viewport={"width": 1400, "height": 900}, locale="en-GB")
        start = time.perf_counter()
        page.goto(url, wait_until="commit")
        page.wait_for_selector(self.examples)
        seconds = time.perf_counter() - start
        page.close()
        return seconds

    def _answers(self, page: Page) -> list[float]:
        page.locator(".examples button").nth(1).click()
        page.wait_for_selector(".stage[data-shown]")
        return [
            self._time(page, question, ".turn .card:not(.thinking)", number)
            for number, question in enumerate(QUESTIONS, 1)
        ]

    def _time(self, page: Page, question: str, cards: str, number: int) -> float:
        field = page.get_by_role("textbox").last
        field.fill(question)
        start = time.perf_counter()
        field.press("Enter")
        page.wait_for_function("([cards, n]) => document.querySelectorAll(cards).length >= n", arg=[cards, number])
        return time.perf_counter() - start

    def _slices(self, page: Page) -> list[float]:
        page.set_input_files("input[data-testid=files]", {"name": "ct.dcm", "mimeType": "", "buffer": ct()})
        page.wait_for_selector(".slices")
        page.wait_for_timeout(1500)
        stage = page.locator(".stage")
        stage.focus()
        seconds = []
        for _ in range(SLICES // 2 - 2):
            seconds.append(
                page.evaluate(
                    """() => new Promise(resolve => {
                    const stage = document.querySelector(".stage");
                    const before = stage.dataset.shown;
                    const start = performance.now();
                    const key = {key: "PageDown", bubbles: true, cancelable: true};
                    stage.dispatchEvent(new KeyboardEvent("keydown", key));
                    const check = () => stage.dataset.shown === before ? requestAnimationFrame(check)
                        : requestAnimationFrame(() => resolve((performance.now() - start) / 1000));
                    requestAnimationFrame(check);
                })"""
                )
            )
        return seconds


class StreamlitPage(OwnPage):
    """The thin page."""

    examples = ".st-key-example-tiles button"

    def _answers(self, page: Page) -> list[float]:
        page.locator(self.examples).nth(1).click()
        page.wait_for_selector(".st-key-image-column")
        seconds = []
        for number, question in enumerate(QUESTIONS, 1):
            page.wait_for_selector('[data-test-script-state="notRunning"]', state="attached")
            seconds.append(self._time(page, question, ".mv-card:not(.mv-unfinished)", number))
        return seconds

    def _slices(self, page: Page) -> list[float]:
        page.wait_for_selector('[data-test-script-state="notRunning"]', state="attached")
        page.get_by_role("button", name="Another image").click()
        page.set_input_files("input[type=file]", {"name": "ct.dcm", "mimeType": "", "buffer": ct()})
        slider = page.get_by_role("slider", name="Frame")
        slider.wait_for(timeout=60_000)
        source = (
            "() => [...document.querySelectorAll('*')].map(host => host.shadowRoot?.querySelector('img.picture'))"
            ".filter(Boolean).map(image => image.src).join()"
        )
        seconds = []
        for _ in range(SLICES // 2 - 2):
            page.wait_for_selector('[data-test-script-state="notRunning"]', state="attached")
            before = page.evaluate(source)
            slider.focus()
            start = time.perf_counter()
            slider.press("ArrowRight")
            page.wait_for_function(f"former => ({source})() !== former", arg=before)
            seconds.append(time.perf_counter() - start)
        return seconds


def summary(seconds: list[float]) -> dict[str, object]:
    """Median, largest and all values, in seconds."""
    return {
        "median": round(statistics.median(seconds), 4),
        "largest": round(max(seconds), 4),
        "all": [round(value, 4) for value in seconds],
    }


def ct() -> bytes:
    """A DICOM file of several slices with 12 bits: a body that grows, in noise."""
    rows, columns = np.mgrid[0:512, 0:512]
    noise = np.random.default_rng(0).normal(0, 20, (SLICES, 512, 512))
    distance = np.hypot(rows - 256, (columns - 256) * 0.8)
    body = np.stack([np.where(distance < 120 + 3 * number, 40, -1000) for number in range(SLICES)])
    values = (body + noise + 1024).clip(0, 4095).astype(np.uint16)
    dataset = FileDataset("", {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    dataset.SOPClassUID = MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.Modality, dataset.BodyPartExamined = "CT", "ABDOMEN"
    dataset.NumberOfFrames = SLICES
    dataset.Rows, dataset.Columns = 512, 512
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.WindowCenter, dataset.WindowWidth = 40, 400
    dataset.PixelSpacing = [0.7, 0.7]
    dataset.PixelData = values.tobytes()
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


if __name__ == "__main__":
    main()
