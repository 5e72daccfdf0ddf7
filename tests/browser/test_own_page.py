"""The page of the server in a browser: what the former page got wrong, each as a test."""

from __future__ import annotations

import csv
import io
import re
import sys
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from dicom_files import lut, made
from echo_model import Echo, make_engine
from live import serving, settings
from own_page import add, answers, ask, is_local, opened, png
from PIL import Image
from playwright.sync_api import expect
from ports import free_port
from pydicom import dcmread
from waiting import TIMEOUT, drag, expect_accessible, until, wait_for_rectangles, wait_until_nothing_overflows

from medical_vqa.models.base import Localization
from medical_vqa.schema.bundle_card import BundleCard
from medical_vqa.serving.middleware.access import hash_key

# The last two: laptops at 200 %.
SIZES = [(1440, 900), (1024, 768), (768, 1024), (390, 844), (320, 568), (844, 390), (700, 450), (640, 360)]


@pytest.fixture(scope="module")
def model():
    return Echo()


@pytest.fixture(scope="module")
def url(model):
    with serving(make_engine(model), settings(page=True)) as address:
        yield address


def test_a_click_while_the_model_thinks_asks_nothing_twice(browser):
    model = Echo(hold=True)
    with serving(make_engine(model), settings(page=True)) as url, opened(browser, url) as page:
        add(page, png())
        ask(page, "Which organ?")
        expect(page.locator(".thinking")).to_be_visible()
        page.get_by_role("button", name="Invert").click()
        page.get_by_label("Theme").select_option("dark")
        page.get_by_role("button", name="Edit and ask again").click()
        model.release()
        expect(answers(page)).to_have_count(1)
        assert model.questions.count("Which organ?") == 1  # the others are tried as suggestions


def test_four_questions_within_fifty_milliseconds_are_all_answered(browser, url):
    with opened(browser, url) as page:
        add(page, png())
        page.evaluate(
            """() => {
                const field = document.getElementById("question");
                for (const number of [1, 2, 3, 4]) {
                    field.value = `Question ${number}?`;
                    field.dispatchEvent(new Event("input", {bubbles: true}));
                    field.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter", bubbles: true, cancelable: true}));
                }
            }"""
        )
        expect(answers(page)).to_have_count(4)
        expect(page.locator(".turn h2")).to_have_text([f"Question {number}?" for number in (1, 2, 3, 4)])


def test_an_answer_at_the_limit_of_tokens_says_that_its_end_is_missing_in_both_languages(browser, url):
    notes = []
    for locale in ("en-GB", "zh-CN"):
        with opened(browser, url, locale=locale) as page:
            add(page, png())
            ask(page, "Which organ?")
            expect(answers(page)).to_have_count(1)
            expect(page.locator(".turn .reason")).to_have_count(0)
            ask(page, "A report without end?")
            expect(page.locator(".turn .reason")).to_have_count(1)
            notes.append(page.locator(".turn .reason").inner_text())
    assert notes == [
        "The end is missing: the answer reached the limit of its length.",
        "结尾缺失：回答达到了长度上限。",
    ]


def test_several_lines_are_several_questions(browser, url):
    with opened(browser, url) as page:
        add(page, png())
        field = page.locator("#question")
        field.fill("Which organ?")
        field.press("Shift+Enter")
        field.press_sequentially("Which plane?")
        field.press("Enter")
        expect(answers(page)).to_have_count(2)


def test_reload_and_back_keep_the_conversation_and_the_draft(browser, url):
    with opened(browser, url) as page:
        add(page, png())
        ask(page, "Which organ?")
        expect(answers(page)).to_have_count(1)
        with page.expect_response(lambda response: response.url.endswith("/draft")):
            page.locator("#question").fill("Is there a fr")
        page.reload()
        expect(answers(page)).to_have_count(1)
        expect(page.locator("#question")).to_have_value("Is there a fr")
        page.get_by_role("button", name="New session").click()
        expect(page.locator(".start")).to_be_visible()
        page.go_back()
        expect(answers(page)).to_have_count(1)


def test_a_draft_that_arrives_after_its_question_does_not_come_back(browser, url):
    with opened(browser, url) as page:
        add(page, png())
        held = []
        empty = {"image_id": page.url.rpartition("/")[2], "draft": ""}
        page.route("**/draft", lambda route: route.fallback() if held else held.append(route))
        page.locator("#question").fill("Which organ?")
        until(page, lambda: bool(held))
        with page.expect_response(lambda response: response.request.post_data_json == empty):
            page.locator("#question").press("Enter")
            expect(answers(page)).to_have_count(1)
            held[0].continue_()
        page.reload()
        expect(answers(page)).to_have_count(1)
        expect(page.locator("#question")).to_have_value("")


def test_a_reload_mid_answer_loses_nothing(browser):
    model = Echo(hold=True)
    with serving(make_engine(model), settings(page=True)) as url, opened(browser, url) as page:
        add(page, png())
        ask(page, "Which organ?")
        until(page, lambda: len(model.batches) > 1)
        page.reload()
        expect(page.locator(".thinking")).to_be_visible()
        model.release()
        expect(answers(page)).to_have_count(1)
        assert model.questions.count("Which organ?") == 1  # the others are tried as suggestions


def test_a_restart_of_the_server_loses_nothing_and_an_ended_session_is_reported(browser, tmp_path):
    store = str(tmp_path / "store")
    options = {"page": True, "store": store, "drain_timeout": 61.0}
    port = free_port()
    with serving(make_engine(), settings(**options), port=port) as url:
        context = browser.new_context(locale="en-GB")
        context.set_default_timeout(TIMEOUT)
        page = context.new_page()
        page.goto(f"{url}/page")
        add(page, png())
        ask(page, "Which organ?")
        expect(answers(page)).to_have_count(1)
    expect(page.locator(".banner")).to_be_visible()
    ask(page, "Asked while the server was away?")
    with serving(make_engine(), settings(**options), port=port):
        expect(answers(page)).to_have_count(2)
        expect(page.locator(".banner")).to_have_count(0)
    for path in (tmp_path / "store").rglob("*.*"):  # while no server writes to it
        path.unlink()
    with serving(make_engine(), settings(**options), port=port):
        page.reload()
        expect(page.get_by_role("heading", name="This session has ended")).to_be_visible()
        page.get_by_role("button", name="Begin a new one").click()
        expect(page.locator(".start")).to_be_visible()
    context.close()


def test_two_users_at_once_see_their_own_pictures_alone(browser, url):
    with opened(browser, url) as one, opened(browser, url) as other:
        add(one, png(64), "one.png")
        add(other, png(48), "other.png")
        ask(one, "From one?")
        ask(other, "From the other?")
        expect(answers(one)).to_have_count(1)
        expect(answers(other)).to_have_count(1)
        expect(one.locator(".cases .name")).to_have_text(["one.png"])
        expect(other.locator(".turn h2")).to_have_text(["From the other?"])


def test_many_files_are_all_opened_and_what_fails_is_reported_by_name(browser, url):
    with opened(browser, url) as page:
        chosen = [{"name": f"{number}.png", "mimeType": "", "buffer": png(40 + number)} for number in range(8)]
        chosen.insert(3, {"name": "letter.txt", "mimeType": "", "buffer": b"no picture"})
        page.set_input_files("input[data-testid=files]", chosen)
        expect(page.locator(".cases .case")).to_have_count(8)
        expect(page.locator(".notices .error")).to_contain_text("letter.txt")


def test_a_file_that_is_too_large_is_a_sentence(browser):
    with (
        serving(make_engine(), settings(page=True, max_upload_bytes=1 << 20)) as url,
        opened(browser, url) as page,
    ):
        add(page, png())
        large = {"name": "large.png", "mimeType": "", "buffer": bytes(2 << 20)}
        page.set_input_files("input[data-testid=files]", large)
        expect(page.locator(".notices .error")).to_contain_text("large.png: This file is too large; up to 1 MB")
        expect(page.locator(".cases .case")).to_have_count(1)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_message_covers_neither_question_nor_safety_note_and_can_be_closed(browser, url, width, height):
    with opened(browser, url, width=width, height=height) as page:
        add(page, png())
        text = {"name": "notes.txt", "mimeType": "", "buffer": b"hello"}
        page.set_input_files("input[data-testid=files]", text)
        message = page.locator(".notices .error")
        expect(message).to_be_in_viewport(ratio=1)
        for selector in (".ask", ".safety"):
            wait_for_rectangles(
                page, ".notices", selector, "a.bottom <= b.top || a.top >= b.bottom || a.right <= b.left"
            )
        message.get_by_role("button", name="Close").click()
        expect(message).to_have_count(0)


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_file_that_is_dropped_on_the_viewer_or_pasted_is_opened(browser, url, event):
    with opened(browser, url) as page:
        add(page, png())
        page.evaluate(
            """([name, bytes]) => {
                const transfer = new DataTransfer();
                transfer.items.add(new File([new Uint8Array(bytes)], "second.png", {type: "image/png"}));
                const stage = document.querySelector(".stage");
                stage.dispatchEvent(name === "drop"
                    ? new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true})
                    : new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true, cancelable: true}));
            }""",
            [event, list(png(40))],
        )
        expect(page.locator(".cases .name")).to_have_text(["scan.png", "second.png"])


def test_deletion_asks_first_and_its_failure_is_reported(browser, url):
    with opened(browser, url) as page:
        add(page, png())
        page.get_by_role("button", name="Delete scan.png").click()
        page.get_by_role("button", name="Keep").click()
        expect(page.locator(".cases .case")).to_have_count(1)
        page.route("**/images/*", lambda route: route.abort() if route.request.method == "DELETE" else route.fallback())
        page.get_by_role("button", name="Delete scan.png").click()
        page.get_by_role("button", name="Delete", exact=True).click()
        expect(page.locator(".notices .error")).to_contain_text("scan.png could not be deleted")
        expect(page.locator(".cases .case")).to_have_count(1)
        page.unroute("**/images/*")
        page.get_by_role("button", name="Delete scan.png").click()
        page.get_by_role("button", name="Delete", exact=True).click()
        expect(page.locator(".start")).to_be_visible()


def test_deletion_is_asked_about_by_the_keyboard_and_a_held_key_keeps_the_picture(browser, url):
    with opened(browser, url) as page:
        add(page, png())
        page.get_by_role("button", name="Delete scan.png").press("Enter")
        expect(page.get_by_role("alertdialog")).to_contain_text("scan.png")
        expect(page.get_by_role("button", name="Keep")).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.get_by_role("alertdialog")).to_have_count(0)
        expect(page.get_by_role("button", name="Delete scan.png")).to_be_focused()
        for _ in range(2):  # what a held key repeats, each after the page was drawn
            page.keyboard.press("Enter")
            expect(page.get_by_role("button", name="Keep")).to_be_focused()
            page.keyboard.press("Enter")
            expect(page.locator("dialog")).to_have_count(0)
        expect(page.locator(".cases .case")).to_have_count(1)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_picture_its_deletion_and_its_comparison_are_each_clicked_in_their_middle(browser, url, width, height):
    with opened(browser, url, width=width, height=height) as page:
        add(page, png(64), "one.png")
        add(page, png(48), "two.png")
        page.get_by_role("button", name="Show one.png next to the current picture").click()
        expect(page.locator(".stage")).to_have_count(2)
        page.locator(".cases .case").first.click()
        expect(page.locator(".cases li.current .name")).to_have_text("one.png")
        page.get_by_role("button", name="Delete two.png").click()
        question = page.get_by_role("alertdialog")
        expect(question).to_be_in_viewport(ratio=1)
        page.wait_for_function(
            """() => [...document.querySelectorAll("dialog *")]
                .every(e => e.scrollWidth <= e.clientWidth || !e.clientWidth)"""
        )
        question.get_by_role("button", name="Delete", exact=True).click()
        expect(page.locator(".cases .case")).to_have_count(1)


def test_the_whole_page_is_chinese_in_a_chinese_browser(browser, url):
    with opened(browser, url, locale="zh-CN") as page:
        add(page, png(), "图.png")
        ask(page, "这是什么器官？")
        expect(page.locator(".turn .card").first).to_be_visible()
        page.get_by_role("button", name="按键").click()
        expect(page.locator(".key-list")).to_be_visible()
        texts = page.evaluate(
            """() => [...document.querySelectorAll("button, label, p, h1, h2, span, option, summary")]
                .filter(e => e.children.length === 0 && e.textContent.trim())
                .map(e => e.textContent.trim())"""
        )
        english = [
            text for text in texts if len([word for word in text.split() if word.isascii() and word.isalpha()]) > 2
        ]
        assert [text for text in english if "器官" not in text] == []
        expect(page.locator("html")).to_have_attribute("lang", "zh-CN")


def test_the_model_chip_opens_the_card(browser, url):
    with opened(browser, url) as page:
        page.locator(".chip").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("What it cannot do")
        expect(dialog).to_contain_text("Not a medical device")
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_safety_note_picture_and_newest_answer_are_visible_at_every_size(browser, url, width, height):
    with opened(browser, url, width=width, height=height) as page:
        add(page, png())
        ask(page, "Which organ?")
        expect(answers(page)).to_have_count(1)
        for selector in (".safety", ".stage", ".answer"):
            expect(page.locator(selector).first).to_be_in_viewport(ratio=0.5)
        wait_until_nothing_overflows(page)
        wait_for_rectangles(page, "header.top", ".turn .answer", "b.top >= a.bottom || a.bottom <= 0")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_axe_reports_nothing_serious(browser, url, theme, width):
    with opened(browser, url, width=width, color_scheme=theme) as page:
        expect_accessible(page)
        add(page, png())
        ask(page, "Which organ?")
        expect(answers(page)).to_have_count(1)
        expect_accessible(page)
        page.locator(".chip").click()
        expect(page.get_by_role("dialog")).to_be_visible()
        expect_accessible(page)


def test_the_dark_theme_follows_the_system_and_can_be_chosen(browser, url):
    with opened(browser, url, color_scheme="dark") as page:
        body = page.locator("body")
        expect(body).to_have_css("background-color", "rgb(13, 18, 21)")
        page.get_by_label("Theme").select_option("light")
        expect(body).to_have_css("background-color", "rgb(245, 247, 248)")
        page.reload()
        page.wait_for_selector(".safety")
        expect(body).to_have_css("background-color", "rgb(245, 247, 248)")


def test_the_description_of_the_api_is_shown_under_its_policy_and_tries_a_route(browser, url):
    context = browser.new_context()
    context.set_default_timeout(TIMEOUT)
    page = context.new_page()
    problems, requests = [], []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: requests.append(request.url))
    page.goto(f"{url}/docs")
    page.get_by_role("button", name="get /healthz").first.click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table tbody .response-col_status")).to_contain_text("200")
    assert problems == []
    assert all(map(is_local, requests))
    context.close()


def test_the_keyboard_continues_in_the_viewer_when_an_example_is_opened(browser, url):
    with opened(browser, url) as page:
        page.locator(".examples button").first.focus()
        page.keyboard.press("Enter")
        expect(page.locator(".stage")).to_be_focused()


def test_everything_is_reached_by_the_keyboard_alone(browser, url):
    with opened(browser, url) as page:
        expect(page.locator("h1")).to_have_count(1)
        add(page, png())
        expect(page.locator("h1")).to_have_count(1)
        page.keyboard.press("/")
        expect(page.locator("#question")).to_be_focused()
        page.keyboard.type("Which organ?")
        page.keyboard.press("Enter")
        expect(answers(page)).to_have_count(1)
        stage = page.locator(".stage")
        stage.press("?")
        expect(page.locator(".key-list")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator(".key-list")).to_have_count(0)
        page.keyboard.press("i")
        expect(page.get_by_role("button", name="Invert")).to_have_attribute("aria-pressed", "true")


def test_the_list_of_keys_is_closed_by_its_button_and_by_escape_wherever_the_focus_is(browser, url):
    with opened(browser, url) as page:
        add(page, png())
        keys = page.locator(".key-list")
        for key in ("Space", "Enter"):
            page.locator(".stage").press("?")
            keys.get_by_role("button", name="Close").press(key)
            expect(keys).to_have_count(0)
            assert page.evaluate("document.fullscreenElement") is None
        page.get_by_role("button", name="Keys").click()
        expect(keys).to_be_visible()
        page.keyboard.press("Escape")
        expect(keys).to_have_count(0)


def test_an_arrow_key_opens_the_list_of_exports_and_exports_nothing(browser, url):
    with opened(browser, url) as page:
        add(page, png())
        ask(page, "Which organ?")
        expect(answers(page)).to_have_count(1)
        page.get_by_label("Export").press("ArrowDown")
        page.wait_for_function("() => document.querySelector('.export').matches(':open')")
        expect(page.locator("dialog")).to_have_count(0)


def test_another_language_keeps_what_the_viewer_shows(browser, url):
    with opened(browser, url) as page:
        add(page, png())
        drag(page, page.locator(".stage"), (100, 100), (160, 130))
        expect(page.locator(".status")).not_to_contain_text("Window 150 / 100")
        before = page.locator(".status").inner_text().removeprefix("Window ").split(" / ")
        page.locator(".stage").press("+")
        page.get_by_label("Language").select_option("zh")
        expect(page.locator(".status")).to_contain_text(f"窗位 {before[0]} / 窗宽 {before[1]}")
        expect(page.locator(".status")).to_contain_text("125 %")


def test_an_answer_is_copied_on_a_page_without_the_clipboard_interface(browser, url):
    with opened(browser, url) as page:
        add(page, png())
        page.evaluate("() => delete Navigator.prototype.clipboard")  # as on a page without TLS
        ask(page, "Which organ?")
        expect(answers(page)).to_have_count(1)
        page.get_by_role("button", name="Copy").click()
        expect(page.get_by_role("button", name="Copied")).to_be_focused()
        page.locator("#question").press("Control+v")
        expect(page.locator("#question")).to_have_value(re.compile(r"^Which organ\?\n\d+ Which organ\?\nResearch"))
        page.evaluate("() => { document.execCommand = () => false; }")
        ask(page, "Which plane?")
        page.get_by_role("button", name="Copy").click()
        expect(page.locator(".notices .error")).to_contain_text("does not let the page copy")


def test_a_wrong_key_is_called_wrong(browser):
    with serving(make_engine(), settings(page=True, api_keys=hash_key("right"))) as url, opened(browser, url) as page:
        field = page.get_by_label("This server needs a key")
        field.fill("guess")
        field.press("Enter")
        expect(page.locator(".notices .error")).to_contain_text("The key is missing or wrong.")
        field.fill("right")
        field.press("Enter")
        expect(page.locator(".examples")).to_be_visible()


def test_a_picture_stays_when_an_older_version_of_the_conversation_arrives_after_it(browser, url):
    """The page asks for the conversation's changes while it uploads; the answer may be older than the picture."""
    with opened(browser, url) as page:
        held = []

        def hold(route):
            held.append((route, route.fetch().json() | {"version": 0, "cases": []}))  # as it was before the picture

        page.route("**/conversations/*after=-1", hold)
        add(page, png())
        until(page, lambda: bool(held))
        route, older = held[0]
        with page.expect_request("**/conversations/*after=0"):
            route.fulfill(json=older)
        ask(page, "Which organ?")
        expect(answers(page)).to_have_count(1)


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)])
def test_the_newest_answer_is_in_view(browser, url, width, height):
    with opened(browser, url, width=width, height=height) as page:
        add(page, png())
        for number in range(5):
            ask(page, f"Which organ is number {number}?")
            expect(answers(page)).to_have_count(number + 1)
        expect(answers(page).last).to_be_in_viewport(ratio=0.95)


def test_the_window_is_dragged_and_chosen_by_number(browser, url):
    with opened(browser, url) as page:
        add(page, png())
        status = page.locator(".status")
        expect(status).to_contain_text("Window 150 / 100")
        drag(page, page.locator(".stage"), (100, 100), (160, 130))
        expect(status).not_to_contain_text("Window 150 / 100")
        page.locator(".stage").press("1")
        expect(status).to_contain_text("Window 150 / 100")


def test_a_region_is_asked_about_beside_the_whole_and_both_answers_are_shown(browser, url):
    with opened(browser, url) as page:
        add(page, png())
        page.get_by_role("button", name="Box").click()
        expect(page.get_by_role("button", name="Box")).to_have_attribute("aria-pressed", "true")
        drag(page, page.locator(".stage"), (300, 300), (380, 380))
        expect(page.locator(".scope")).to_be_visible()
        ask(page, "Which organ?")
        expect(answers(page)).to_have_count(2)
        expect(page.locator(".part")).to_have_text(["Whole picture", "The part alone"])
        expect(page.locator(".stage rect.region")).to_have_count(1)  # where the answer is about
        ask(page, "Which plane?")
        expect(answers(page)).to_have_count(3)
        expect(page.locator(".stage rect.region")).to_have_count(0)


def test_one_question_about_all_pictures_is_a_table(browser, url):
    with opened(browser, url) as page:
        add(page, png(64), "one.png")
        add(page, png(48), "two.png")
        page.get_by_label("Ask about all 2 pictures").check()
        ask(page, "Which organ?")
        expect(answers(page)).to_have_count(1)
        page.get_by_label("Export").select_option("table")
        row = page.get_by_role("dialog").locator("tbody td")
        expect(row).to_have_count(2)
        expect(row.nth(0)).to_contain_text("Which organ?")
        expect(row.nth(1)).to_contain_text("Which organ?")


def test_a_batch_is_corrected_exported_and_compared_with_another_reader(browser, url, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(png(40 + number))
    with opened(browser, url) as page:
        page.get_by_role("button", name="Batch and annotation").click()
        page.set_input_files("input[data-testid=folder]", folder)  # a folder is chosen, and not files
        page.get_by_label("Questions").fill("Which organ?\nWhich plane?")
        page.get_by_label("Annotation").check()
        page.get_by_role("button", name="Ask all").click()
        expect(page.get_by_role("dialog").locator("tbody tr")).to_have_count(6)
        for field in page.get_by_label("Right answer").all():
            field.fill("yes")
        page.get_by_label("Right answer").first.fill("no")
        page.get_by_label("Your name as a reader").fill("A")
        with page.expect_download() as download:
            page.get_by_role("button", name="Dataset").click()
        exported = tmp_path / "theirs.jsonl"
        download.value.save_as(exported)
        page.set_input_files("input[data-testid=other-reader]", exported)
        expect(page.get_by_role("dialog").get_by_text("Cohen's kappa 1.00")).to_be_visible()
        for text in ("image,question,answer\n", '{"image": "0.png"}\n', "7\n"):
            exported.write_text(text, encoding="utf-8")
            page.set_input_files("input[data-testid=other-reader]", exported)
            expect(page.get_by_text("theirs.jsonl is not a reader's file")).to_be_visible()
            exported.write_text("", encoding="utf-8")
            page.set_input_files("input[data-testid=other-reader]", exported)
            expect(page.get_by_text("has no answer to the same questions")).to_be_visible()


def test_a_batch_asks_every_question_and_takes_no_answer_about_a_file_that_was_not_read(browser, url, tmp_path):
    (tmp_path / "0.png").write_bytes(png())
    (tmp_path / "notes.txt").write_text("hello", encoding="utf-8")
    with opened(browser, url) as page:
        page.get_by_role("button", name="Batch and annotation").click()
        page.set_input_files("input[data-testid=folder]", tmp_path)
        page.get_by_label("Questions").fill("\n".join(f"Which organ {number}?" for number in range(40)))
        page.get_by_label("Annotation").check()
        page.get_by_role("button", name="Ask all").click()
        rows = page.get_by_role("dialog").locator("tbody tr")
        expect(rows).to_have_count(41)
        expect(page.get_by_label("Right answer")).to_have_count(40)
        expect(rows.filter(has_text="notes.txt").get_by_label("Right answer")).to_have_count(0)
        expect(page.get_by_role("button", name="Ask all")).to_be_enabled()
        expect(page.get_by_role("button", name="Stop")).to_have_count(0)


def test_the_table_counts_slices_as_the_viewer_does_and_says_which_answers_are_withheld(browser, ct_zip, tmp_path):
    unsure = {"temperature": 1.0, "fitted_on": "nine answers", "threshold": 0.9, "risk": 0.1}
    card = BundleCard(family="echo", name="echo-1", created="2026-11-24T10:00:00+00:00", calibration=unsure)
    with serving(make_engine(card=card), settings(page=True)) as url, opened(browser, url) as page:
        page.set_input_files("input[data-testid=files]", {"name": "ct.zip", "mimeType": "", "buffer": ct_zip})
        expect(page.locator(".status b")).to_have_text("13 / 24")
        page.get_by_role("button", name="Box").click()
        drag(page, page.locator(".stage"), (300, 300), (380, 380))
        expect(page.locator(".scope")).to_be_visible()
        ask(page, "Which organ?")
        expect(page.locator(".card.abstained")).to_have_count(2)
        with page.expect_download() as download:
            page.get_by_label("Export").select_option("csv")
        download.value.save_as(tmp_path / "table.csv")
        with (tmp_path / "table.csv").open(encoding="utf-8-sig", newline="") as file:
            (row,) = csv.DictReader(file)
        assert (row["slice"], row["abstained"], row["region_abstained"]) == ("13", "true", "true")


def test_the_page_prints_itself_or_the_report_of_the_session_as_it_is(browser, url):
    with opened(browser, url) as page:
        add(page, png())
        ask(page, "Which organ?")
        expect(answers(page)).to_have_count(1)
        page.emulate_media(media="print")
        expect(page.locator(".turn")).to_be_visible()
        page.get_by_label("Export").select_option("print")
        expect(page.locator("#report")).to_contain_text("Which organ?")
        expect(page.locator(".turn")).to_be_hidden()
        page.emulate_media(media="screen")
        ask(page, "Which plane?")
        expect(page.locator("#report")).to_have_count(0)


def test_the_report_names_everything(browser, url, tmp_path):
    with opened(browser, url) as page:
        add(page, png())
        ask(page, "Which organ?")
        ask(page, "Where is the liver?")
        expect(answers(page)).to_have_count(2)
        with page.expect_download() as download:
            page.get_by_label("Export").select_option("html")
        path = tmp_path / "report.html"
        download.value.save_as(path)
        text = path.read_text(encoding="utf-8")
        for part in (
            "scan.png",
            "Which organ?",
            "80 %",
            "Not a medical device",
            "echo-1",
            "Attention map: Where is the liver?",
        ):
            assert part in text
        assert text.count("data:image/png") == 2  # the picture, and under the map


@pytest.fixture(scope="module")
def ct_zip():
    """A CT of 24 slices of 128 by 128 pixels, as a zip archive of DICOM files."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(24):
            dataset = FileDataset("", {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
            dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
            uid = f"1.2.3.{number + 1}"
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = uid
            dataset.SeriesInstanceUID, dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = "1.2.4", "1.2.5", "1.2.6"
            dataset.Modality, dataset.BodyPartExamined, dataset.PatientName = "CT", "ABDOMEN", "Doe^Jane"
            dataset.Rows = dataset.Columns = 128
            dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
            dataset.BitsAllocated = dataset.BitsStored = 16
            dataset.HighBit, dataset.PixelRepresentation = 15, 1
            dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
            dataset.WindowCenter, dataset.WindowWidth = 40, 400
            dataset.PixelSpacing, dataset.SliceThickness = [1, 1], 2
            dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
            dataset.ImagePositionPatient = [0, 0, 2 * number]
            dataset.InstanceNumber = number + 1
            rows, columns = np.mgrid[0:128, 0:128]
            body = np.hypot(rows - 64, columns - 64) < 20 + number
            dataset.PixelData = np.where(body, 40, -1000).astype(np.int16).tobytes()
            file = io.BytesIO()
            dataset.save_as(file, enforce_file_format=True)
            archive.writestr(f"{number}.dcm", file.getvalue())
    return out.getvalue()


def test_a_series_is_scrolled_played_cut_in_planes_and_asked_about(browser, url, ct_zip):
    with opened(browser, url) as page:
        page.set_input_files("input[data-testid=files]", {"name": "ct.zip", "mimeType": "", "buffer": ct_zip})
        stage = page.locator(".stage")
        expect(page.locator(".status b")).to_have_text("13 / 24")
        assert "Doe" not in page.content()
        stage.press("PageDown")
        expect(page.locator(".status b")).to_have_text("14 / 24")
        stage.hover()
        page.mouse.wheel(0, -100)
        expect(page.locator(".status b")).to_have_text("13 / 24")
        expect(page.locator(".status")).to_contain_text("Window 40 / 400")
        expect(page.get_by_label("Window", exact=True).locator("option", has_text="Lung").first).to_be_attached()
        expect(page.locator(".side.left")).to_have_text("R")
        expect(page.locator(".scale-bar")).to_contain_text("mm")
        page.get_by_label("Plane").select_option("coronal")
        expect(page.locator(".status b")).to_contain_text("/ 128")
        page.get_by_label("Plane").select_option("axial")
        page.get_by_role("button", name="Play").click()
        page.wait_for_function("() => document.querySelector('.stage').dataset.shown.endsWith(' 16')")
        page.get_by_role("button", name="Stop").click()
        ask(page, "Which plane?")
        expect(page.locator(".turn .card summary", has_text="Slices that were asked about")).to_have_count(1)
        page.locator(".options select").select_option("slice")
        ask(page, "Which organ?")
        expect(answers(page)).to_have_count(2)


@pytest.mark.parametrize("code", [0, 1])
def test_no_sides_are_claimed_of_a_volume_that_does_not_state_them(browser, url, code):
    image = nibabel.Nifti1Image(np.arange(20 * 30 * 10, dtype=np.int16).reshape(20, 30, 10), np.eye(4))
    image.set_sform(np.eye(4), code)
    image.set_qform(np.eye(4), code)
    with opened(browser, url) as page:
        file = {"name": "volume.nii", "mimeType": "", "buffer": image.to_bytes()}
        page.set_input_files("input[data-testid=files]", file)
        page.wait_for_selector(".stage[data-shown]")
        expect(page.locator(".status b")).to_contain_text("/ 10")
        expect(page.locator(".stage .side")).to_have_text(["R", "L", "A", "P"] if code else [])
        expect(page.locator(".convention")).to_have_count(0)


SHOWN = """(columns) => {
  const canvas = document.querySelector('.stage canvas');
  const pixel = (column) => {
    const x = canvas.width / 2 + ((column + 0.5 - 64) * Math.min(canvas.width, canvas.height)) / 128;
    return canvas.getContext('2d').getImageData(Math.round(x), Math.round(canvas.height / 2), 1, 1).data[0];
  };
  return columns.map(pixel);
}"""
"""Brightness that the viewer shows at columns of a square picture of 128 pixels, in its middle row."""


@pytest.mark.parametrize(
    ("elements", "status"),
    [
        ({"WindowCenter": "900", "WindowWidth": "700", "VOILUTFunction": "SIGMOID"}, "Window 900 / 700"),
        ({"VOILUTSequence": [lut(np.arange(4096) ** 2 // 4096, 0, 12)]}, "Table of the file"),
        ({"WindowCenter": "900", "WindowWidth": "700"}, "Window 900 / 700"),
    ],
    ids=["sigmoid", "table", "linear"],
)
def test_the_viewer_is_as_bright_as_the_picture_that_the_model_sees(browser, url, elements, status):
    ramp = np.tile(np.linspace(0, 4000, 128).round().astype(np.uint16), (128, 1))
    data = made(np.stack([ramp, ramp]), Modality="MR", **elements)  # without a unit, as most of them
    columns = [2, 20, 40, 60, 80, 100, 126]
    with opened(browser, url) as page, page.expect_response(re.compile(r"/images/[^/]+/values")) as loaded:
        page.set_input_files("input[data-testid=files]", {"name": "mr.dcm", "mimeType": "", "buffer": data})
        expect(page.locator(".status")).to_contain_text(status)
        page.wait_for_selector(".stage[data-shown]")
        image = loaded.value.url.split("/values")[0]
        picture = Image.open(io.BytesIO(page.request.get(f"{image}/view?frame=0").body())).convert("L")
        expected = np.asarray(picture)[64, columns].astype(int)
        assert np.abs(np.array(page.evaluate(SHOWN, columns)) - expected).max() <= 3  # smoothed where it is enlarged
        drag(page, page.locator(".stage"), (100, 100), (160, 130))
        expect(page.locator(".status")).not_to_contain_text(status)
        page.locator(".stage").press("1")
        expect(page.locator(".status")).to_contain_text(status)
        assert np.abs(np.array(page.evaluate(SHOWN, columns)) - expected).max() <= 3


def test_a_measured_length_belongs_to_its_slice(browser, url, ct_zip):
    with opened(browser, url) as page:
        page.set_input_files("input[data-testid=files]", {"name": "ct.zip", "mimeType": "", "buffer": ct_zip})
        stage, length = page.locator(".stage"), page.locator(".measure text")
        expect(page.locator(".status b")).to_have_text("13 / 24")
        stage.press("m")
        drag(page, stage, (200, 200), (300, 200))
        expect(length).to_contain_text(" mm")
        millimeters = length.text_content()
        stage.press("PageDown")
        expect(page.locator(".status b")).to_have_text("14 / 24")
        expect(length).to_have_count(0)
        page.get_by_label("Plane").select_option("coronal")
        expect(length).to_have_count(0)
        page.get_by_label("Plane").select_option("axial")  # at the slice that it was opened at
        expect(page.locator(".status b")).to_have_text("13 / 24")
        expect(length).to_have_text(millimeters)


class Localizing(Echo):
    """Finds the liver where the picture is brightest: in the last slice of `ct_zip`."""

    def entity_in(self, text):
        return "liver" if "liver" in text else None

    def localizations(self, query, prediction):
        return [Localization("Liver", "mask", np.full((2, 2), float(query.visual["mean"]) / 255 + 0.5))]


def test_evidence_on_another_slice_is_a_click_away_and_not_called_shown(browser, ct_zip):
    with serving(make_engine(Localizing()), settings(page=True)) as url, opened(browser, url) as page:
        page.set_input_files("input[data-testid=files]", {"name": "ct.zip", "mimeType": "", "buffer": ct_zip})
        expect(page.locator(".status b")).to_have_text("13 / 24")
        ask(page, "Where is the liver?")
        elsewhere = page.get_by_role("button", name=re.compile(r"^Show on slice \d+$"))
        number = elsewhere.inner_text().removeprefix("Show on slice ")
        assert number != "13"
        expect(page.locator("svg.overlay path")).to_have_count(0)
        elsewhere.click()
        expect(page.locator(".status b")).to_have_text(f"{number} / 24")
        expect(page.get_by_role("button", name="shown in the picture")).to_be_visible()
        expect(page.locator("svg.overlay path")).not_to_have_count(0)


def test_a_study_is_opened_by_a_link_and_reported_as_dicom(browser, ct_zip, monkeypatch, tmp_path):
    with zipfile.ZipFile(io.BytesIO(ct_zip)) as archive:
        files = [archive.read(name) for name in archive.namelist()]
    retrieved = []

    def retrieve(address, *, limits):
        retrieved.append(address)
        return files

    monkeypatch.setattr("medical_vqa.serving.series.decode.retrieve", retrieve)
    named = settings(page=True, dicomweb_service="dicomweb://127.0.0.1:1/dicom-web", dicom_reports=True)
    with serving(make_engine(Echo()), named) as url, opened(browser, url, path="/?study=1.2.5&series=1.2.4") as page:
        expect(page.locator(".status b")).to_have_text("13 / 24")
        assert [(one.prefix, one.study, one.series) for one in retrieved] == [("/dicom-web", "1.2.5", "1.2.4")]
        assert "1.2.5" not in page.url
        expect(page.get_by_label("Export")).to_have_count(0)
        ask(page, "Which plane?")
        expect(answers(page)).to_have_count(1)
        with page.expect_download() as download:
            page.get_by_label("Export").select_option("dicom")
        download.value.save_as(tmp_path / "report.dcm")
        report = dcmread(tmp_path / "report.dcm")
        assert (report.Modality, report.StudyInstanceUID, str(report.PatientName)) == ("SR", "1.2.5", "Doe^Jane")
        page.reload()
        expect(page.locator(".status b")).to_have_text("13 / 24")
        assert len(retrieved) == 1


def test_a_link_to_a_study_that_cannot_be_opened_is_a_sentence(browser, url):
    with opened(browser, url, path="/?study=1.2.5") as page:
        expect(page.locator(".notices .error")).to_contain_text("this server opens no studies by their UID")


def test_no_dicom_report_is_offered_where_the_server_stores_no_uids(browser, url, ct_zip):
    with opened(browser, url) as page:
        page.set_input_files("input[data-testid=files]", {"name": "ct.zip", "mimeType": "", "buffer": ct_zip})
        expect(page.locator(".status b")).to_have_text("13 / 24")
        ask(page, "Which plane?")
        expect(answers(page)).to_have_count(1)
        expect(page.get_by_label("Export").locator("option[value=html]")).to_have_count(1)
        expect(page.get_by_label("Export").locator("option[value=dicom]")).to_have_count(0)


def test_two_pictures_side_by_side_scroll_together(browser, url, ct_zip):
    with opened(browser, url) as page:
        for name in ("prior.zip", "current.zip"):
            page.set_input_files("input[data-testid=files]", {"name": name, "mimeType": "", "buffer": ct_zip})
            expect(page.locator(".cases .case")).to_have_count(1 if name == "prior.zip" else 2)
        page.locator(".beside").first.click()
        expect(page.locator(".status b")).to_have_text(["13 / 24", "13 / 24"])
        page.locator(".stage").first.press("PageDown")
        expect(page.locator(".status b")).to_have_text(["14 / 24", "14 / 24"])
        page.get_by_label("Scroll together").uncheck()
        page.locator(".stage").first.press("PageDown")
        expect(page.locator(".status b")).to_have_text(["15 / 24", "14 / 24"])


def test_a_picture_whose_time_is_over_leaves_the_page_too(browser, url):
    with opened(browser, url) as page:
        page.clock.install()
        page.reload()
        page.wait_for_selector(".safety")
        add(page, png())
        page.clock.fast_forward("01:01:00")
        expect(page.locator(".start")).to_be_visible()
        expect(page.locator(".notices")).to_contain_text("scan.png was deleted: its time on the server is over.")


def test_the_map_is_offered_only_where_the_question_names_something_with_a_place(browser, url):
    with opened(browser, url) as page:
        add(page, png())
        ask(page, "Which plane?")
        expect(answers(page)).to_have_count(1)
        expect(page.get_by_role("button", name="Attention map")).to_have_count(0)
        ask(page, "Where is the liver?")
        expect(answers(page)).to_have_count(2)
        expect(page.get_by_role("button", name="Attention map")).to_be_visible()


def test_a_rating_with_a_correction_is_sent(browser, tmp_path):
    folder = tmp_path / "feedback"
    with serving(make_engine(), settings(page=True, feedback=folder)) as url, opened(browser, url) as page:
        add(page, png())
        ask(page, "Which plane?")
        page.get_by_role("button", name="Wrong").click()
        page.get_by_label("What is the right answer?").fill("Axial")
        page.get_by_role("button", name="Save").click()
        expect(page.locator(".notices")).to_contain_text("Thank you")
        assert '"correction": "Axial"' in (folder / "ratings.jsonl").read_text()
