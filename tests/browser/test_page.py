"""The page as a visitor uses it, in Chromium."""

from __future__ import annotations

import io
import json

import pytest
from fake_backend import FRAMES, REASON, png
from PIL import Image
from playwright.sync_api import Locator, Page, expect
from waiting import expect_accessible, until, wait_for_rectangles, wait_until_nothing_overflows

from medical_vqa.app.i18n.texts import Texts

DICOM = bytes(128) + b"DICM"


def wait_for_script(page: Page) -> None:
    """Wait until the page's script has finished: it draws its last parts after the answer."""
    page.wait_for_selector('[data-test-script-state="notRunning"]', state="attached")


def upload(page: Page, data: bytes, name: str = "scan.png") -> None:
    """Choose a file on the start page, or where a picture is open in its popover."""
    new_image, field = page.get_by_role("button", name="Another image"), page.get_by_test_id("stFileUploaderDropzone")
    expect(new_image.or_(field).first).to_be_visible()
    wait_for_script(page)
    if new_image.is_visible():
        new_image.click()
        expect(field).to_be_visible()
    page.set_input_files("input[type=file]", {"name": name, "mimeType": "", "buffer": data})


def question_field(page: Page) -> Locator:
    """The field for questions of an open picture, once the script that draws it has finished."""
    field = page.get_by_test_id("stChatInputTextArea")
    expect(field).to_be_editable()
    wait_for_script(page)
    return field


def ask(page: Page, question: str) -> None:
    """Type and press Enter."""
    field = question_field(page)
    field.fill(question)
    field.press("Enter")


def wait_for_width(page: Page, width: int) -> None:
    """Wait until the displayed picture has this width in pixels."""
    page.wait_for_function(
        "width => [...document.querySelectorAll('*')].some(host => host.shadowRoot?.querySelector('img.picture')"
        "?.naturalWidth === width)",
        arg=width,
    )


def test_upload_ask_answer(page):
    upload(page, png(96))
    wait_for_width(page, 96)
    ask(page, "How wide is it?")
    expect(page.locator(".mv-answer")).to_have_text("96 pixels")
    expect(page.locator(".mv-confidence .mv-percent")).to_have_text("91%")
    expect(page.locator(".mv-alternative .mv-label")).to_have_text(["MRI", "<b>X-Ray</b>"])
    expect(page.locator(".mv-question h2")).to_have_text("How wide is it?")
    expect(page.locator("p.announcement")).to_contain_text("Answer: 96 pixels, confidence 91%.")
    wait_for_script(page)
    expect_accessible(page)


def test_the_start_page_has_no_serious_accessibility_violation(page):
    expect(page.get_by_role("button", name="CT, abdomen")).to_be_visible()
    wait_for_script(page)
    expect_accessible(page)


def test_an_example_and_a_suggested_question_are_clicks_away(page):
    page.get_by_role("button", name="CT, abdomen").click()
    page.get_by_role("button", name="Which organ is this?").click()
    expect(page.locator(".mv-answer")).to_have_text("80 pixels")
    expect(page.get_by_role("button", name="Which organ is this?")).to_have_count(0)


def test_evidence_source_and_sides_are_shown_and_the_outline_can_be_hidden(page):
    upload(page, png(96))
    wait_for_width(page, 96)
    expect(page.locator(".marker-right")).to_have_text("R")
    expect(page.locator(".marker-left")).to_have_text("L")
    ask(page, "Where is it?")
    expect(page.locator(".mv-source")).to_contain_text("From this picture")
    expect(page.locator(".mv-side")).to_contain_text("the patient's left is at the right of the picture")
    expect(page.locator(".mv-outlined")).to_have_text("Outlined in the picture: Left Lung")
    outline = page.locator("svg.outlines path")
    expect(outline).to_be_visible()
    across = "Math.abs(b.x - a.x - 60 / 96 * a.width) < 4"  # half of the line's width
    down = "Math.abs(b.y - a.y - 20 / 96 * a.height) < 4"
    wait_for_rectangles(page, "img.picture", "svg.outlines path", f"{across} && {down}")
    page.locator(".attention-toggle").click()
    expect(outline).to_be_hidden()
    wait_for_script(page)
    expect_accessible(page)


def test_on_the_chinese_page_reasons_and_suggestions_are_chinese(open_page, fake, address):
    page = open_page(address, locale="zh-CN")
    page.get_by_role("button", name="CT, abdomen").click()
    page.get_by_role("button", name="图中是哪个器官？").click()
    expect(page.locator(".mv-answer")).to_have_text("80 pixels")
    ask(page, "Where is it?")
    expect(page.locator(".mv-side")).to_contain_text("患者的左侧位于图像右侧")
    expect(page.locator(".mv-outlined")).to_have_text("图像中已勾出：左肺")
    expect(page.locator("svg.outlines text")).to_have_text("左肺")
    ask(page, "How is the weather?")
    expect(page.locator(".mv-abstained")).to_be_visible()
    expect(page.get_by_role("button", name="肝脏健康吗？")).to_be_visible()
    expect(page.get_by_role("button", name="Which organ is shown here?")).to_have_count(0)


def test_a_second_upload_replaces_the_first(page):
    upload(page, png(96), "first.png")
    ask(page, "How wide is it?")
    expect(page.locator(".mv-answer")).to_have_text("96 pixels")
    upload(page, png(48), "second.png")
    wait_for_width(page, 48)
    expect(page.locator(".mv-card")).to_have_count(0)
    expect(page.locator("img.heatmap")).to_be_hidden()
    ask(page, "How wide is it?")
    expect(page.locator(".mv-answer")).to_have_text("48 pixels")
    page.get_by_role("button", name="Another image").click()
    page.get_by_role("button", name="Back to first.png").click()
    wait_for_width(page, 96)
    expect(page.locator(".mv-answer")).to_have_text("96 pixels")


def test_a_dicom_file_has_frames_and_windows(page):
    upload(page, DICOM, "chest")
    wait_for_width(page, 64)
    expect(page.locator(".mv-facts")).to_contain_text("DICOM")
    frame = page.get_by_role("slider", name="Frame")
    expect(frame).to_have_attribute("max", str(FRAMES))
    wait_for_script(page)
    frame.press("ArrowRight")
    wait_for_width(page, 65)
    wait_for_script(page)
    page.get_by_role("button", name="Lung").click()
    expect(page.get_by_role("slider", name="Center")).to_have_value("-600")
    expect(page.get_by_role("slider", name="Width")).to_have_value("1500")
    ask(page, "How wide is it?")
    expect(page.locator(".mv-answer")).to_have_text("65 pixels")
    wait_for_script(page)
    expect_accessible(page)


def test_a_bad_file_is_explained_and_the_former_image_closed(page):
    upload(page, png(96), "first.png")
    wait_for_width(page, 96)
    upload(page, b"not a picture", "notes.txt")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("notes.txt could not be opened")
    expect(alert).to_contain_text("Try a JPEG, PNG, TIFF or DICOM file.")
    expect(page.locator("img.picture")).to_have_count(0)
    expect(page.get_by_role("button", name="Try again")).to_have_count(0)
    page.get_by_role("button", name="Back to first.png").click()
    wait_for_width(page, 96)


def test_the_page_waits_for_a_backend_that_starts(open_page, fake, address):
    fake.starting = True
    page = open_page(address)
    expect(page.get_by_role("status")).to_contain_text("The model is starting")
    wait_for_script(page)
    expect_accessible(page)
    fake.starting = False
    expect(page.get_by_role("button", name="CT, abdomen")).to_be_visible()


def test_a_backend_that_stops_and_starts_again(page, fake):
    upload(page, png(96))
    wait_for_width(page, 96)
    fake.stop()
    try:
        ask(page, "How wide is it?")
        expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached at the moment.")
        wait_for_script(page)
        expect_accessible(page)
    finally:
        fake.start()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".mv-answer")).to_have_text("96 pixels")


def test_an_upload_that_failed_temporarily_is_retried_on_a_click(page, fake):
    expect(page.get_by_role("button", name="CT, abdomen")).to_be_visible()
    fake.overloaded = 3
    upload(page, png(96))
    expect(page.get_by_role("alert")).to_contain_text("Many people are asking just now.")
    page.get_by_role("button", name="Try again").click()
    wait_for_width(page, 96)


def test_an_abstention_is_shown_with_its_reason(page):
    upload(page, png(96))
    ask(page, "How is the weather?")
    card = page.locator(".mv-abstained")
    expect(card.locator(".mv-answer")).to_have_text("Not sure")
    expect(card).to_contain_text(REASON)
    guess = card.get_by_text("96 pixels")
    expect(guess).to_be_hidden()
    card.get_by_text("What it would have guessed").click()
    expect(guess).to_be_visible()
    wait_for_script(page)
    expect_accessible(page)


def test_the_overlay_lies_over_the_picture_and_can_be_switched_off(page):
    upload(page, png(96))
    ask(page, "How wide is it?")
    heatmap = page.locator("img.heatmap")
    expect(heatmap).to_be_visible()
    same = "['x', 'y', 'width', 'height'].every(side => a[side] === b[side])"
    wait_for_rectangles(page, "img.heatmap", "img.picture", same)
    opacity = """async image => {
        await image.decode();
        const canvas = Object.assign(document.createElement("canvas"), {width: 20, height: 20});
        const context = canvas.getContext("2d");
        context.drawImage(image, 0, 0, 20, 20);
        const alpha = (x, y) => context.getImageData(x, y, 1, 1).data[3];
        return [alpha(1, 1), alpha(18, 18)];
    }"""
    wait_for_script(page)
    upper_left, lower_right = heatmap.evaluate(opacity)
    assert upper_left > 100
    assert lower_right < 30
    toggle = page.get_by_role("button", name="Where it looked")
    expect(toggle).to_have_attribute("aria-pressed", "true")
    toggle.click()
    expect(toggle).to_have_attribute("aria-pressed", "false")
    expect(heatmap).to_have_css("opacity", "0")


def test_no_overlay_flashes_over_a_picture_that_nothing_was_asked_about(page):
    page.evaluate(
        """() => {
            window.flashes = 0;
            const look = () => {
                for (const host of document.querySelectorAll("*"))
                    for (const part of host.shadowRoot?.querySelectorAll("img.heatmap, .attention-toggle") ?? [])
                        window.flashes += part.getBoundingClientRect().width > 0;
                requestAnimationFrame(look);
            };
            look();
        }"""
    )
    upload(page, png(96))
    wait_for_width(page, 96)
    wait_for_script(page)
    assert page.evaluate("window.flashes") == 0


def test_the_attention_map_of_an_earlier_answer_can_be_shown_again(page):
    upload(page, png(96))
    for number, question in enumerate(("First?", "Second?"), 1):
        ask(page, question)
        expect(page.locator(".mv-answer")).to_have_count(number)
    expect(page.locator("p.caption")).to_have_text("Where the model looked for: Second?")
    wait_for_script(page)
    page.get_by_role("button", name="Show where it looked").click()
    expect(page.locator("p.caption")).to_have_text("Where the model looked for: First?")


def test_the_picture_is_zoomed_by_buttons_and_keys_and_stays_in_view(page):
    upload(page, png(96))
    wait_for_width(page, 96)
    wait_for_script(page)
    level, stage = page.locator(".zoom-level"), page.locator(".stage")
    page.get_by_role("button", name="Zoom in").click()
    expect(level).to_have_text("140 %")
    stage.press("+")
    expect(level).to_have_text("196 %")
    off_center = "b.x + b.width / 2 - a.x - a.width / 2"
    wait_for_rectangles(page, ".stage", "img.picture", f"Math.abs({off_center}) < 2")
    stage.press("ArrowLeft")
    wait_for_rectangles(page, ".stage", "img.picture", f"{off_center} > 30")
    stage.press("0")
    expect(level).to_have_text("100 %")
    for number in range(1, 5):
        ask(page, f"Question {number}?")
        expect(page.locator(".mv-answer")).to_have_count(number)
    expect(page.locator(".mv-answer").last).to_be_in_viewport()
    expect(stage).to_be_in_viewport(ratio=0.99)


def test_two_models_are_compared(page):
    upload(page, png(96))
    expect(page.get_by_text("Compare with other-model")).to_be_visible()
    wait_for_script(page)
    page.get_by_text("Compare with other-model").click()
    expect(page.get_by_label("Compare with other-model")).to_be_checked()
    ask(page, "How wide is it?")
    expect(page.locator(".mv-answer")).to_have_text(["96 pixels", "96 pixels"])
    expect(page.locator(".mv-footer")).to_contain_text(["fake-model", "other-model"])
    page.wait_for_function(
        """() => {
            const [first, second] = [...document.querySelectorAll(".mv-card")].map(c => c.getBoundingClientRect());
            return first.width > 0 && first.right <= second.left;
        }"""
    )


def test_a_correction_is_stored_with_the_picture_after_consent(page, feedback):
    upload(page, png(72))
    ask(page, "Which organ is this?")
    page.get_by_role("button", name="Wrong").click()
    correction = page.get_by_role("textbox", name="What is the right answer?")
    expect(correction).to_be_editable()
    wait_for_script(page)
    correction.fill("Spleen")
    page.get_by_text("Also keep the picture").click()
    expect(page.get_by_label("Also keep the picture")).to_be_checked()
    expect(correction).to_have_value("Spleen")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("kept for training")).to_be_visible()
    row = json.loads((feedback / "questions.jsonl").read_text().splitlines()[-1])
    assert (row["question"], row["answer"]) == ("Which organ is this?", "Spleen")
    assert (feedback / row["image"]).is_file()


def test_the_conversation_can_be_downloaded(page):
    upload(page, png(96))
    ask(page, "How wide is it?")
    expect(page.get_by_role("button", name="Download")).to_be_visible()
    wait_for_script(page)
    page.get_by_role("button", name="Download").click()
    with page.expect_download() as text:
        page.get_by_role("button", name="As text").click()
    assert "96 pixels (Confidence 91%)" in text.value.path().read_text()
    with page.expect_download() as data:
        page.get_by_role("button", name="As data").click()
    assert json.loads(data.value.path().read_text())["turns"][0]["question"] == "How wide is it?"


def test_the_page_says_where_the_picture_is_stored_and_deletes_it_on_a_click(page, fake):
    upload(page, png(96))
    expect(page.get_by_text("is deleted there after 60")).to_be_visible()
    wait_for_script(page)
    image_id = list(fake.images)[-1]
    page.get_by_role("button", name="Delete now").click()
    expect(page.get_by_role("button", name="CT, abdomen")).to_be_visible()
    until(page, lambda: image_id not in fake.images)


@pytest.mark.parametrize("height", [844, 560])  # a phone, and the same with its keyboard open
def test_on_a_phone_picture_answer_and_question_field_are_in_view(open_page, fake, address, height):
    page = open_page(address, width=390, height=height, has_touch=True, is_mobile=True)
    upload(page, png(96))
    wait_for_width(page, 96)
    for number in range(1, 4):
        ask(page, f"Question {number}?")
        expect(page.locator(".mv-answer")).to_have_count(number)
    expect(page.locator(".mv-card").last).to_be_in_viewport(ratio=0.7 if height > 800 else 0.2)
    expect(page.locator(".stage")).to_be_in_viewport(ratio=0.99)
    expect(question_field(page)).to_be_in_viewport()
    wait_until_nothing_overflows(page)
    wait_for_script(page)
    expect_accessible(page)


def test_the_page_uses_the_browsers_language_and_changes_it_on_a_click(open_page, fake, address):
    page = open_page(address, locale="zh-CN")
    chinese, english = Texts("zh"), Texts("en")
    expect(page.get_by_role("heading", level=1)).to_have_text(chinese("intro_title"))
    expect(page.locator(".mv-disclaimer")).to_have_text(chinese("research_only"))
    upload(page, png(96))
    ask(page, "How is the weather?")
    expect(page.locator(".mv-abstained .mv-answer")).to_have_text(chinese("abstained"))
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    wait_for_script(page)
    expect_accessible(page)
    page.get_by_text("English").click()
    expect(page.locator(".mv-abstained .mv-answer")).to_have_text(english("abstained"))
    expect(page.locator("html")).to_have_attribute("lang", "en")


def test_further_questions_are_suggested_below_the_answers(page):
    upload(page, png(96))
    page.get_by_role("button", name="What is shown?").click()
    expect(page.locator(".mv-answer")).to_have_count(1)
    expect(page.get_by_role("button", name="Try asking")).to_be_visible()
    wait_for_script(page)
    page.get_by_role("button", name="Try asking").click()
    expect(page.get_by_role("button", name="What is shown?")).to_have_count(0)
    page.get_by_role("button", name="Is the liver healthy?").click()
    expect(page.locator(".mv-answer")).to_have_count(2)
    expect(page.get_by_role("button", name="Is the liver healthy?")).to_have_count(0)


def test_the_page_works_with_the_keyboard_alone(page):
    upload(page, png(96))
    wait_for_width(page, 96)
    question_field(page).focus()
    page.keyboard.type("How wide is it?")
    page.keyboard.press("Enter")
    expect(page.locator(".mv-answer")).to_have_text("96 pixels")
    expect(question_field(page)).to_be_focused()
    page.keyboard.type("And now?")
    page.keyboard.press("Enter")
    expect(page.locator(".mv-answer")).to_have_count(2)
    wait_for_script(page)
    page.get_by_role("button", name="Wrong").last.press("Space")
    expect(page.get_by_role("textbox", name="What is the right answer?")).to_be_visible()


def test_a_tiff_is_a_picture_too(page):
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png(50))).save(buffer, "TIFF")
    upload(page, buffer.getvalue(), "scan.tif")
    wait_for_width(page, 50)
    expect(page.locator(".mv-facts")).to_contain_text("TIFF")
