"""Takes the screenshots in docs/images: starts the app with the shipped model and operates it in Chromium."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from medical_vqa.app.launch import free_port

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
EXAMPLE = "MRI, Abdomen"
QUESTIONS = ["Does the patient like music?", "Does the picture contain liver?"]


def main() -> None:
    """Start the app, take every screenshot, stop it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=IMAGES)
    out = parser.parse_args().out
    with app() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        start = open_page(browser, url, 1400, 780)
        save_screenshot(start, out / "app-start.png")
        desktop = open_page(browser, url, 1400, 900)
        ask(desktop, EXAMPLE, QUESTIONS)
        save_screenshot(desktop, out / "app.png")
        phone = open_page(browser, f"{url}?lang=zh", 390, 844)
        ask(phone, EXAMPLE, ["图片中包含肝脏吗?"])
        save_screenshot(phone, out / "app-phone.png")
        browser.close()


@contextmanager
def app() -> Iterator[str]:
    """``medical-vqa app`` on a free port."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "medical_vqa", "app", "--port", str(port)])
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{url}/_stcore/health")
        yield url
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


def open_page(browser: Browser, url: str, width: int, height: int) -> Page:
    """Open the page and wait for its examples."""
    page = browser.new_page(viewport={"width": width, "height": height}, locale="en-GB")
    page.goto(url)
    page.wait_for_selector(".st-key-example-tiles button", timeout=60_000)
    page.wait_for_timeout(1500)
    return page


def ask(page: Page, example: str, questions: list[str]) -> None:
    """Open an example and ask questions about it."""
    page.get_by_role("button", name=example).click()
    for number, question in enumerate(questions, 1):
        field = page.get_by_role("textbox").last
        field.fill(question)
        field.press("Enter")
        page.wait_for_function("n => document.querySelectorAll('.mv-card').length === n", arg=number)
    page.wait_for_timeout(1500)


def save_screenshot(page: Page, path: Path) -> None:
    """Save a compressed PNG."""
    page.screenshot(path=path)
    with Image.open(path) as image:
        image_without_alpha = image.convert("RGB")
    image_without_alpha.save(path, optimize=True)
    sys.stdout.write(f"{path}: {path.stat().st_size / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()
