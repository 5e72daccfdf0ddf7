"""Leaks across splits and languages, on folders built in the shape of the published ones."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).parent))
from dicom_files import made

from medical_vqa.cli import cli
from medical_vqa.data.audit import hash_search
from medical_vqa.data.audit import near_duplicates as near_duplicates_module
from medical_vqa.data.audit.audit import audit, dataset_parts
from medical_vqa.data.audit.fingerprint_store import FingerprintStore
from medical_vqa.data.audit.near_duplicates import VIEWS, fingerprint, near_duplicates
from medical_vqa.data.prepared.dataset import PreparedDataset, PreparedImages
from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.errors import DataError
from medical_vqa.evaluation.reporting.audit_report import audit_text
from medical_vqa.pipelines import audit as audit_stage
from medical_vqa.pipelines.audit import audit_page
from medical_vqa.pipelines.inputs import AnsweredRows, leaked_rows
from medical_vqa.pipelines.prepare import prepare_dataset
from medical_vqa.schema.audit import read_audit
from medical_vqa.schema.selection import Selection

SAMPLE = Path(__file__).parents[2] / "src/medical_vqa/assets/slake-mini/imgs"
SCANS = sorted(path.parent.name for path in SAMPLE.glob("*/source.jpg"))


def scan(number: int) -> Image.Image:
    return Image.open(SAMPLE / SCANS[number] / "source.jpg").convert("RGB")


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 24), dtype=np.uint8))


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return Image.open(out)


@pytest.fixture
def folder(tmp_path):
    """Prepares questions.jsonl rows (image, question, answer, split, language) over drawn pictures."""

    def make(rows, pictures):
        source = tmp_path / "source"
        source.mkdir()
        for name, picture in pictures.items():
            picture.save(source / name)
        lines = [json.dumps({"question": "Which organ?", "answer": "lung", **row}) for row in rows]
        (source / "questions.jsonl").write_text("\n".join(lines) + "\n")
        prepare_dataset("folder", source=source, root=tmp_path / "root", name="mine")
        return PreparedDataset.open("mine", tmp_path / "root")

    return make


def test_languages_whose_splits_were_drawn_apart_share_the_images_that_slake_shares(folder):
    """SLAKE's shape: of 96 English test images 72 are Chinese training images, and 24 are not."""
    pictures = {f"{n}.png": noise(n) for n in range(120)}
    rows = [{"image": f"{n}.png", "split": "test", "language": "en"} for n in range(96)]
    rows += [{"image": f"{n}.png", "split": "train", "language": "zh"} for n in range(24, 120)]
    rows += [{"image": f"{n}.png", "split": "train", "language": "en"} for n in range(96, 120)]
    found = audit(folder(rows, pictures))
    shared = {
        (one.first, one.second): (one.images, one.of_images, one.rows, one.of_rows) for one in found.shared_images
    }
    assert shared["train zh", "test en"] == (72, 96, 72, 96)
    assert ("train en", "test en") not in shared
    assert len(found.leaked("test en")) == 72
    assert "72 of 96 images of test en are also in train zh" in audit_text(found)


def test_neighboring_slices_of_one_patient_in_two_parts_are_no_clean_rows(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    rng, rows = np.random.default_rng(0), ["image,question,answer,split"]
    for number in range(8):  # too different for near-duplicates
        values = rng.integers(0, 4000, (64, 64)).astype(np.uint16)
        patient = "PID-2" if number == 7 else "PID-1"
        (source / f"{number}.dcm").write_bytes(made(values, PatientID=patient, InstanceNumber=number))
        rows.append(f"{number}.dcm,Is this a CT?,yes,{'test' if number > 3 else 'train'}")
    (source / "questions.csv").write_text("\n".join(rows) + "\n")
    prepare_dataset("folder", source=source, root=tmp_path / "root", name="mine")
    found = audit(PreparedDataset.open("mine", tmp_path / "root"))
    (leak,) = found.leaks
    assert (len(leak.exact), len(leak.near), len(leak.same_group)) == (0, 0, 3)
    assert found.leaked("test") == set(leak.same_group)
    assert (
        "test: 1 of 4 rows (25.0 %) are clean; the image of 0 is in a training part, that of 0 has a near-duplicate "
        "there; of the patient or study of 3 another image is there"
    ) in audit_text(found)
    assert "PID" not in audit_text(found)


def test_every_test_image_in_training_is_found_as_in_vqa_rad(folder):
    """VQA-RAD's shape: 203 test images, all of them training images too, and a question asked of both."""
    pictures = {f"{n}.png": noise(n) for n in range(210)}
    rows = [{"image": f"{n}.png", "split": "train"} for n in range(210)]
    rows += [{"image": f"{n}.png", "split": "test", "question": f"Where {n}?"} for n in range(202)]
    rows += [{"image": "202.png", "split": "test"}]
    found = audit(folder(rows, pictures))
    assert [(one.images, one.of_images) for one in found.shared_images] == [(203, 203)]
    assert (found.shared_questions[0].same_question, found.shared_questions[0].same_image) == (1, 1)
    assert len(found.leaks[0].exact) == 203


def test_another_size_another_quality_and_crops_are_near_duplicates_and_other_scans_are_not():
    whole = scan(0)
    w, h = whole.size
    copies = [
        whole.resize((w // 2, h // 2)),
        jpeg(whole, 30),
        whole.crop((w // 20, h // 20, w - w // 20, h - h // 20)),
        whole.crop((w // 10, h // 10, w - w // 10, h - h // 10)).resize((200, 200)),
    ]
    others = [scan(n) for n in range(1, 40, 4)]
    pairs = near_duplicates([fingerprint(one) for one in [whole, *copies, *others]])
    assert {(0, n) for n in (1, 2, 3, 4)} <= {(min(p.first, p.second), max(p.first, p.second)) for p in pairs}
    assert not [p for p in pairs if max(p.first, p.second) > 4]
    assert next(p for p in pairs if {p.first, p.second} == {0, 3}).box != VIEWS[0]


def test_pictures_of_one_color_are_like_nothing():
    flat = [fingerprint(Image.new("L", (40, 40), shade)) for shade in (0, 0, 200)]
    assert near_duplicates(flat) == []
    assert near_duplicates(flat[:1]) == []


def test_a_near_duplicate_of_a_training_image_makes_a_row_unclean(folder):
    copy = scan(0).resize((150, 150))
    dataset = folder(
        [
            {"image": "a.png", "split": "train"},
            {"image": "b.png", "split": "test"},
            {"image": "c.png", "split": "test"},
        ],
        {"a.png": scan(0), "b.png": copy, "c.png": scan(1)},
    )
    found = audit(dataset)
    assert (len(found.near_duplicates), found.leaks[0].exact, len(found.leaks[0].near)) == (1, [], 1)
    assert audit(dataset, compare_images=False).leaks[0].near == []


def test_duplicates_contradictions_and_unseen_answers_are_told_apart(folder):
    rows = [
        {"image": "a.png", "split": "train"},
        {"image": "a.png", "split": "train", "answer": "Lung."},
        {"image": "b.png", "split": "train"},
        {"image": "b.png", "split": "train", "answer": "liver"},
        {"image": "c.png", "split": "test", "answer": "spleen"},
        {"image": "c.png", "split": "test", "question": "Why?", "answer": "lung"},
    ]
    found = audit(folder(rows, {name: noise(n) for n, name in enumerate(("a.png", "b.png", "c.png"))}))
    assert (found.duplicate_count, found.contradiction_count) == (1, 1)
    assert found.contradictions[0].answers == ["lung", "liver"]
    assert [(one.rows, one.of_rows, one.answers) for one in found.unseen_answers] == [(1, 2, ["spleen"])]


def test_an_audit_is_kept_beside_the_dataset_and_used_until_the_rows_change(folder, tmp_path):
    dataset = folder(
        [{"image": "a.png", "split": "train"}, {"image": "a.png", "split": "test", "question": "Where?"}],
        {"a.png": noise(1)},
    )
    selection = Selection(dataset="mine", root=tmp_path / "root")

    def opened():
        return SelectedDataset.open(selection)

    assert opened().dataset.audit is None
    assert not leaked_rows(AnsweredRows(opened(), "test")).near_duplicates_checked
    found = audit_stage.audit(dataset)
    assert opened().dataset.audit == found
    assert leaked_rows(AnsweredRows(opened(), "test")).near_duplicates_checked
    assert leaked_rows(AnsweredRows(opened(), "train")) is None
    path = dataset.folder / "audit.json"
    path.write_text(found.model_copy(update={"manifest": "other"}).model_dump_json())
    assert opened().dataset.audit is None
    path.write_text("{")
    assert opened().dataset.audit is None
    with pytest.raises(DataError, match="run `medical-vqa audit` again"):
        read_audit(dataset.folder)


def test_a_dataset_that_cannot_be_written_is_audited_and_the_command_says_that_nothing_is_kept(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("medical_vqa.data.audit.audit._STORED_TOGETHER", 2)
    rows = [{"image": f"{n}.png", "split": ("train", "test")[n % 2]} for n in range(5)]
    dataset = folder(rows, {f"{n}.png": noise(n) for n in range(5)})
    expected = audit(dataset)
    FingerprintStore(dataset.folder).remove()
    before = sorted(path.name for path in dataset.folder.iterdir())
    access = os.access  # root may write where it is forbidden
    monkeypatch.setattr(os, "access", lambda path, mode: access(path, mode) and not mode & os.W_OK)
    monkeypatch.chdir(tmp_path)
    answer = CliRunner().invoke(cli, ["audit", str(dataset.folder)])
    assert answer.exit_code == 0, answer.exception
    assert audit_stage.audit(dataset) == expected
    assert sorted(path.name for path in dataset.folder.iterdir()) == before
    assert (tmp_path / "audit-mine.html").is_file()
    assert "cannot be written, so the findings are not kept there" in answer.stderr


def test_the_page_shows_shared_and_nearly_shared_images(folder, tmp_path):
    dataset = folder(
        [
            {"image": "a.png", "split": "train"},
            {"image": "a.png", "split": "test", "question": "<b>Where?</b>"},
            {"image": "b.png", "split": "test"},
        ],
        {"a.png": scan(0), "b.png": scan(0).resize((120, 120))},
    )
    path = audit_page(audit(dataset), dataset, tmp_path / "audit.html")
    text = path.read_text(encoding="utf-8")
    assert text.count("data:image/jpeg") == 2
    assert "&lt;b&gt;Where?" in text
    assert "Near-duplicate images in different parts" in text


def test_a_dataset_with_one_part_has_nothing_to_share(folder):
    found = audit(folder([{"image": "a.png", "split": "train"}], {"a.png": noise(1)}))
    assert (found.shared_images, found.shared_questions, found.leaks) == ([], [], [])
    assert "no image is in two parts" in audit_text(found)


def test_parts_are_named_by_split_and_language_where_there_are_several(folder):
    rows = [
        {"image": "a.png", "split": "train", "language": "zh"},
        {"image": "a.png", "split": "test", "language": "en"},
    ]
    assert [part.name for part in dataset_parts(folder(rows, {"a.png": noise(1)}))] == ["train zh", "test en"]


def test_a_single_language_is_not_named(folder):
    rows = [{"image": "a.png", "split": "test", "language": "en"}]
    assert [part.name for part in dataset_parts(folder(rows, {"a.png": noise(1)}))] == ["test"]


def pictures_with_content(n):
    rng = np.random.default_rng(3)
    for _ in range(n):
        small = Image.fromarray(rng.integers(0, 256, (9, 9), dtype=np.uint8))
        yield small.resize((120, 100), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (ImageOps.invert, "inverted gray"),
        (ImageOps.mirror, "mirrored"),
        (lambda picture: picture.transpose(Image.Transpose.ROTATE_90), "turned by 90 degrees"),
        (lambda picture: picture.transpose(Image.Transpose.ROTATE_270), "turned by 270 degrees"),
        (ImageOps.flip, "mirrored and turned by 180 degrees"),
        (lambda picture: ImageOps.invert(ImageOps.mirror(picture)), "inverted gray and mirrored"),
    ],
)
def test_turned_mirrored_and_inverted_copies_are_found(change, name):
    pictures = list(pictures_with_content(20))
    prints = [fingerprint(picture) for picture in pictures] + [fingerprint(change(picture)) for picture in pictures]
    pairs = near_duplicates(prints)
    assert {(min(pair.first, pair.second), max(pair.first, pair.second)) for pair in pairs} == {
        (n, n + 20) for n in range(20)
    }
    assert {pair.change for pair in pairs} <= {name, name.replace("90", "270"), name.replace("270", "90")}


def flipped(hashes, rng, at_most):
    """The hashes with some random bits changed, and every third one inverted."""
    changed = hashes.copy()
    for number in range(len(changed)):
        for bit in rng.choice(hash_search.BITS, rng.integers(0, at_most), replace=False).tolist():
            changed[number] ^= np.uint64(1 << bit)
    changed[::3] ^= np.uint64((1 << hash_search.BITS) - 1)
    return changed


def random_hashes(rng, n):
    return rng.integers(0, 1 << hash_search.BITS, n, dtype=np.uint64)


def few_differences_in_every_part(rng, n):
    """Hashes and others that differ in exactly the limit, spread evenly over the parts: the hardest for the index."""
    one = random_hashes(rng, n)
    other = one.copy()
    for number in range(n):
        for first, width, differing in ((0, 13, 3), (13, 13, 2), (26, 13, 2), (39, 12, 3), (51, 12, 2)):
            for bit in rng.choice(width, differing, replace=False).tolist():
                other[number] ^= np.uint64(1 << (first + bit))
    return one, other


HASHES = {
    "random and near ones": lambda rng: (h := random_hashes(rng, 300), flipped(h, rng, 16)),
    "differences in every part": lambda rng: few_differences_in_every_part(rng, 300),
    "all the same": lambda _: (np.full(50, 5, np.uint64), np.full(50, 5, np.uint64)),
    "all bits or none": lambda rng: ((h := rng.choice([0, (1 << 63) - 1], 60).astype(np.uint64)), h),
    "of one cluster": lambda rng: (flipped(np.full(200, 77, np.uint64), rng, 14), random_hashes(rng, 5)),
}


@pytest.mark.parametrize("make", HASHES.values(), ids=HASHES)
@pytest.mark.parametrize("indexed", [True, False])
def test_the_close_hashes_are_those_of_a_comparison_of_all(make, indexed):
    searched, among = make(np.random.default_rng(7))
    found = [
        pair
        for block in hash_search.blocks(searched, among, indexed=indexed)
        for close in hash_search.close_pairs(searched, among, block)
        for pair in zip(close.rows.tolist(), close.columns.tolist(), close.few_differ.tolist(), strict=True)
    ]
    differ = np.bitwise_count(searched[:, None] ^ among)
    rows, columns = np.nonzero((differ <= hash_search.LIMIT) | (differ >= hash_search.BITS - hash_search.LIMIT))
    few = differ[rows, columns] <= hash_search.LIMIT
    assert sorted(found) == sorted(zip(rows.tolist(), columns.tolist(), few.tolist(), strict=True))


def test_an_index_finds_the_near_duplicates_that_a_comparison_of_all_pictures_finds(monkeypatch):
    """Against every correlation of every part, without bound or index."""
    pictures = list(pictures_with_content(30))
    pictures += [ImageOps.mirror(pictures[0]), ImageOps.invert(pictures[1]), pictures[2].crop((6, 5, 114, 95))]
    prints = [fingerprint(picture) for picture in pictures]
    compared = near_duplicates(prints)
    monkeypatch.setattr(hash_search, "_INDEXED", 2)
    counts: list[tuple[int, int]] = []
    assert near_duplicates(prints, progress=lambda *at: counts.append(at)) == compared
    assert counts[-1] == (33, 33)
    assert counts == sorted(set(counts))
    parts = near_duplicates_module._Parts(prints)
    expected = set()
    for part in range(len(parts.hashes)):
        for other in range(len(prints)):
            differ = int(np.bitwise_count(parts.hashes[part] ^ parts.hashes[other]))
            correlation = float(parts._copy(part) @ prints[other].copy.astype(np.float32))
            if part % len(prints) != other and (
                (differ <= 12 and correlation >= 0.98) or (differ >= 51 and correlation <= -0.98)
            ):
                expected.add((min(part % len(prints), other), max(part % len(prints), other)))
    assert (
        {(min(p.first, p.second), max(p.first, p.second)) for p in compared} == expected == {(0, 30), (1, 31), (2, 32)}
    )


def test_a_fingerprint_takes_little_memory():
    one = fingerprint(next(pictures_with_content(1)))
    assert one.hashes.nbytes + one.turned_hashes.nbytes + one.thumbnail.nbytes < 5000


def test_an_interrupted_audit_reads_only_the_rest_of_the_images_again(folder, monkeypatch):
    monkeypatch.setattr("medical_vqa.data.audit.audit._STORED_TOGETHER", 2)
    rows = [{"image": f"{n}.png", "split": ("train", "test")[n % 2]} for n in range(7)]
    pictures = {f"{n}.png": noise(n) for n in range(6)} | {"6.png": noise(3)}
    dataset = folder(rows, pictures)
    expected = audit(dataset)
    FingerprintStore(dataset.folder).remove()

    def interrupt(_: str, done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audit(dataset, progress=interrupt)
    loaded: list[str] = []
    load = PreparedImages.load
    monkeypatch.setattr(PreparedImages, "load", lambda images, id_: loaded.append(id_) or load(images, id_))
    seen: list[tuple[str, int, int]] = []
    assert audit(dataset, progress=lambda *at: seen.append(at)) == expected
    assert len(loaded) == 2  # six different pictures, of which four were stored
    assert seen == [("reading images", 5, 6), ("reading images", 6, 6), ("comparing images", 6, 6)]
    damaged = next(FingerprintStore(dataset.folder).folder.glob("*.npz"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert audit_stage.audit(dataset) == expected
    assert not [path.name for path in dataset.folder.iterdir() if "fingerprints" in path.name]
