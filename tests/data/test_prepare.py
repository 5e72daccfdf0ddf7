from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medical_vqa.data.formats.folder import Folder
from medical_vqa.data.formats.slake import Slake
from medical_vqa.data.prepared.prepare import prepare
from medical_vqa.errors import DataError, ImageError, IncompleteError
from medical_vqa.schema.records import read_jsonl


class Stages:
    """Notes what `prepare` reports."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self.seen:
            self.seen.append(stage)


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()
    }


def test_a_part_of_slake_stops_with_what_is_missing_and_goes_on_when_told(slake_folder: Any, tmp_path: Path) -> None:
    source = slake_folder()
    with pytest.raises(IncompleteError) as refusal:
        prepare(Slake(), source, tmp_path / "root")
    message = str(refusal.value)
    for phrase in (
        "test.json is missing",
        "train has 2 of 9,835 rows",
        "validation has 1 of 2,099 rows",
        "640 of 642 images are missing",
        "--partial",
    ):
        assert phrase in message
    assert not (tmp_path / "root").exists()
    manifest = prepare(Slake(), source, tmp_path / "root", partial=True)
    assert (manifest.counts, manifest.partial) == ({"train": 2, "validation": 1}, True)
    assert manifest.missing[0] == "test.json is missing"


def test_a_prepared_folder_holds_rows_images_and_license(own_folder: Any, tmp_path: Path) -> None:
    source = own_folder("image,question,answer,split\n1.png,a?,b,train\n2.png,c?,d,val\n1.png,e?,,test\n")
    (source / "2.png").write_bytes((source / "1.png").read_bytes())
    manifest = prepare(Folder(), source, tmp_path / "root", name="clinic")
    folder = tmp_path / "root" / "clinic"
    assert [row["id"] for row in read_jsonl(folder / "train.jsonl")] == ["mine/train/1"]
    first, second = manifest.images.values()
    assert first == second
    assert (first.width, first.height) == (24, 16)
    assert (folder / first.file).read_bytes() == (source / "1.png").read_bytes()
    assert first.file == f"images/{first.sha256[:2]}/{first.sha256}.png"
    assert len(list((folder / "images").rglob("*.png"))) == 1
    assert "License: " in (folder / "LICENSE.txt").read_text(encoding="utf-8")
    assert not list(folder.rglob("*.partial"))


def test_a_second_run_rewrites_nothing(own_folder: Any, tmp_path: Path) -> None:
    source = own_folder("image,question,answer\n1.png,a?,b\n")
    first = prepare(Folder(), source, tmp_path / "root")
    before = snapshot(tmp_path / "root")
    stages = Stages()
    assert prepare(Folder(), source, tmp_path / "root", progress=stages) == first
    assert stages.seen[-1] == "already prepared"
    assert snapshot(tmp_path / "root") == before


@pytest.mark.parametrize("change", ["question", "image", "damage"])
def test_a_changed_source_or_a_damaged_copy_is_prepared_again(
    own_folder: Any, picture: Any, tmp_path: Path, change: str
) -> None:
    source = own_folder("image,question,answer\n1.png,a?,b\n")
    first = prepare(Folder(), source, tmp_path / "root")
    if change == "question":
        own_folder("image,question,answer\n1.png,what?,b\n")
    elif change == "image":
        (source / "1.png").write_bytes(picture(seed=9))
    else:
        (tmp_path / "root" / "folder" / "train.jsonl").write_text("", encoding="utf-8")
    second = prepare(Folder(), source, tmp_path / "root")
    assert (second.digest == first.digest) == (change == "damage")
    assert (tmp_path / "root" / "folder" / "train.jsonl").read_text(encoding="utf-8")


def test_a_split_that_is_gone_from_the_source_is_gone_from_the_copy(own_folder: Any, tmp_path: Path) -> None:
    prepare(Folder(), own_folder("image,question,answer,split\n1.png,a?,b,train\n2.png,c?,d,test\n"), tmp_path)
    manifest = prepare(Folder(), own_folder("image,question,answer,split\n1.png,a?,b,train\n"), tmp_path)
    assert list(manifest.splits) == ["train"]
    assert not (tmp_path / "folder" / "test.jsonl").exists()


def test_an_interrupted_run_leaves_no_manifest_and_is_resumed(
    own_folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = own_folder("image,question,answer\n1.png,a?,b\n2.png,c?,d\n")

    def interrupt(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("copy images", 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(Folder(), source, tmp_path / "root", progress=interrupt)
    folder = tmp_path / "root" / "folder"
    assert not (folder / "manifest.json").exists()
    copied = {path: path.stat().st_ino for path in (folder / "images").rglob("*.png")}
    assert copied  # one at least: several are copied at once
    prepare(Folder(), source, tmp_path / "root")
    assert {path: path.stat().st_ino for path in copied} == copied
    assert len(list((folder / "images").rglob("*.png"))) == 2


def test_rows_without_their_image_are_refused_even_in_part(slake_folder: Any, tmp_path: Path) -> None:
    source = slake_folder()
    shutil.rmtree(source / "imgs" / "xmlab2")
    with pytest.raises(
        DataError, match=r"slake/validation/2 needs an image that cannot be read: .*xmlab2.*does not exist"
    ):
        prepare(Slake(), source, tmp_path / "root", partial=True)
    assert not (tmp_path / "root").exists()


def test_an_image_that_does_not_decode_is_refused(own_folder: Any, tmp_path: Path) -> None:
    source = own_folder("image,question,answer\n1.png,a?,b\n")
    (source / "1.png").write_bytes((source / "1.png").read_bytes()[:200])
    with pytest.raises(ImageError, match=r"1\.png: expected a whole picture"):
        prepare(Folder(), source, tmp_path / "root")
    assert not (tmp_path / "root" / "folder" / "manifest.json").exists()


def test_an_id_in_two_splits_is_refused(own_folder: Any, tmp_path: Path) -> None:
    text = "image,question,answer,split,id\n1.png,a?,b,train,x\n2.png,c?,d,test,x\n"
    with pytest.raises(DataError, match="id 'x' is already used"):
        prepare(Folder(), own_folder(text), tmp_path / "root")


def test_more_rows_than_published_are_refused(
    slake_folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Small(Slake):
        card = Slake.card.__class__(
            **{f: getattr(Slake.card, f) for f in Slake.card.__slots__} | {"rows": {"train": 1}}
        )

    with pytest.raises(DataError, match="train has 2 rows, more than the 1 published"):
        prepare(Small(), slake_folder(), tmp_path / "root", partial=True)


def test_a_source_without_rows_and_one_that_is_not_there_are_refused(own_folder: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no rows"):
        prepare(Folder(), own_folder("image,question,answer\n"), tmp_path / "root")
    with pytest.raises(DataError, match="expected the folder of folder, but it is not there; check --source"):
        prepare(Folder(), tmp_path / "nowhere", tmp_path / "root")


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.ENOSPC, "the disk is full, .* more bytes are needed"), (errno.EACCES, "cannot be written")],
)
def test_a_disk_that_takes_nothing_is_named(
    own_folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    def refuse(self: Path, data: bytes) -> int:
        raise OSError(number, "no")

    source = own_folder("image,question,answer\n1.png,a?,b\n")
    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(DataError, match=message):
        prepare(Folder(), source, tmp_path / "root")


def test_the_digest_follows_the_content_and_not_the_name(own_folder: Any, tmp_path: Path) -> None:
    source = own_folder("image,question,answer\n1.png,a?,b\n")
    first = prepare(Folder(), source, tmp_path / "root", name="one")
    assert first.digest == prepare(Folder(), source, tmp_path / "root", name="two").digest
    own_folder("image,question,answer\n1.png,a?,c\n")
    assert first.digest != prepare(Folder(), source, tmp_path / "root", name="one").digest


@pytest.mark.parametrize("damage", [lambda row: {**row, "format": 0}, lambda row: {"format": 1}])
def test_a_manifest_of_another_version_is_replaced(
    own_folder: Any, tmp_path: Path, damage: Callable[[Any], Any]
) -> None:
    source = own_folder("image,question,answer\n1.png,a?,b\n")
    first = prepare(Folder(), source, tmp_path / "root")
    path = tmp_path / "root" / "folder" / "manifest.json"
    path.write_text(json.dumps(damage(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")
    assert prepare(Folder(), source, tmp_path / "root") == first
