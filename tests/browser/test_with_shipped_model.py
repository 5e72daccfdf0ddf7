"""``medical-vqa app`` without a backend: it starts one with the shipped model, and stops it."""

from __future__ import annotations

import re
import time

import httpx2
import pytest
from ct_file import PATIENT, dicom
from live import PATIENCE
from page_process import PageProcess
from playwright.sync_api import expect


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """Address and working folder of a page that starts its own backend."""
    folder = tmp_path_factory.mktemp("alone")
    with PageProcess([], folder) as url:
        yield url, folder
    backend = re.search(r'"url": "(http://127.0.0.1:\d+)"', (folder / "log").read_text()).group(1)
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            httpx2.get(f"{backend}/healthz", timeout=PATIENCE)
        except httpx2.NetworkError:
            return
        time.sleep(0.1)
    pytest.fail("the backend still runs after the page ended")


_MEAN = """async ([least, most]) => {
    const hosts = [...document.querySelectorAll("*")];
    const image = hosts.map(host => host.shadowRoot?.querySelector("img.picture")).find(Boolean);
    if (!image?.src) return false;
    try { await image.decode(); } catch { return false; }  // replaced meanwhile
    const canvas = Object.assign(document.createElement("canvas"), {width: 64, height: 64});
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0, 64, 64);
    const data = context.getImageData(0, 0, 64, 64).data;
    let sum = 0;
    for (let i = 0; i < data.length; i += 4) sum += data[i];
    const mean = sum / (data.length / 4);
    return least <= mean && mean <= most;
}"""


def wait_for_mean(page, least: int, most: int) -> None:
    """Wait until the mean gray value of the picture is in a range."""
    page.wait_for_function(_MEAN, arg=[least, most])


def test_an_example_is_answered_by_the_shipped_model(open_page, started):
    address, _ = started
    page = open_page(address)
    page.get_by_role("button", name="X-Ray, Lung").click()
    field = page.get_by_test_id("stChatInputTextArea")
    expect(field).to_be_editable()
    page.wait_for_selector('[data-test-script-state="notRunning"]', state="attached")
    field.fill("What modality is used to take this image?")
    field.press("Enter")
    expect(page.locator(".mv-answer")).to_have_text("X-Ray")
    expect(page.locator("img.heatmap")).to_be_visible()
    expect(page.locator(".mv-chip")).to_have_text("slake-compact-trunk")


def test_a_dicom_file_is_shown_windowed_and_without_the_patients_name(open_page, started):
    address, folder = started
    page = open_page(address)
    page.set_input_files("input[type=file]", {"name": "chest", "mimeType": "", "buffer": dicom()})
    expect(page.locator(".mv-facts")).to_contain_text("ABDOMEN")
    expect(page.get_by_role("slider", name="Center")).to_have_value("40")
    expect(page.get_by_role("slider", name="Width")).to_have_value("400")
    wait_for_mean(page, 0, 50)
    page.wait_for_selector('[data-test-script-state="notRunning"]', state="attached")
    page.get_by_role("slider", name="Frame").press("End")
    wait_for_mean(page, 200, 255)
    expect(page.locator(".mv-question")).to_have_count(0)
    assert PATIENT not in page.content()
    assert PATIENT.split("^", maxsplit=1)[0] not in (folder / "log").read_text()
