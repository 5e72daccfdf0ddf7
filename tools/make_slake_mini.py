"""Rebuild the shipped sample `assets/slake-mini` from SLAKE: `python tools/make_slake_mini.py --source DIR`.

The choice is deterministic: within each split the pictures that have English questions are grouped by modality and
location, every group gives at least one picture and otherwise its share, and inside a group the order is that of
the SHA-256 of the picture's name. Pictures that occur in both splits are left out, and so is the test split.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

from PIL import Image

WANTED = {"train": 110, "validation": 40}  # pictures
ALWAYS = "xmlab281/source.jpg"  # its row qid 1622 has an empty answer, a quirk that the tests exercise
LONGEST_SIDE = 256  # pixels
QUALITY = 85
MOST_BYTES = 3_000_000

Row = dict[str, Any]


def main() -> None:
    """Choose, shrink and write the sample; stops when it comes out too large."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="SLAKE in the authors' layout")
    parser.add_argument("--quality", type=int, default=QUALITY, help="JPEG quality")
    assets = Path(__file__).resolve().parents[1] / "src" / "medical_vqa" / "assets"
    parser.add_argument("--target", type=Path, default=assets / "slake-mini")
    options = parser.parse_args()
    shutil.rmtree(options.target / "imgs", ignore_errors=True)
    rows = read_english(options.source)
    seen: set[str] = set()
    for split, count in WANTED.items():
        others = {row["img_name"] for name in rows if name != split for row in rows[name]}
        chosen = choose([row for row in rows[split] if row["img_name"] not in others | seen], count)
        seen |= chosen
        write_rows(options.target / f"{split}.json", [row for row in rows[split] if row["img_name"] in chosen])
        for name in sorted(chosen):
            write_picture(options.source / "imgs" / name, options.target / "imgs" / name, options.quality)
    size = sum(path.stat().st_size for path in options.target.rglob("*") if path.is_file())
    if size > MOST_BYTES:
        raise SystemExit(f"the sample has {size:,} bytes, at most {MOST_BYTES:,} may ship; choose fewer pictures")


def read_english(source: Path) -> dict[str, list[Row]]:
    """English rows of train and validation, in published order."""
    files = {"train": "train.json", "validation": "validate.json"}
    rows = {split: json.loads((source / name).read_text(encoding="utf-8")) for split, name in files.items()}
    return {split: [row for row in rows[split] if row["q_lang"] == "en"] for split in files}


def choose(rows: list[Row], count: int) -> set[str]:
    """Names of `count` pictures: one of every (modality, location), the rest by largest remaining share."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in sorted({row["img_name"] for row in rows}, key=order):
        first = next(row for row in rows if row["img_name"] == name)
        groups[first["modality"], first["location"]].append(name)
    taken = dict.fromkeys(groups, 1)
    while sum(taken.values()) < min(count, sum(map(len, groups.values()))):
        open_groups = [key for key in groups if taken[key] < len(groups[key])]
        taken[max(open_groups, key=lambda key: (len(groups[key]) / (taken[key] + 1), key))] += 1
    return {name for key, number in taken.items() for name in groups[key][:number]}


def order(name: str) -> tuple[bool, str]:
    """Sorting key: the picture that must be in first, then by hash."""
    return name != ALWAYS, hashlib.sha256(name.encode()).hexdigest()


def write_rows(path: Path, rows: list[Row]) -> None:
    """Write a JSON list, one row per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows)
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def write_picture(source: Path, target: Path, quality: int) -> None:
    """Shrink to `LONGEST_SIDE` and compress again; grayscale where all three channels are alike."""
    with Image.open(source) as image:
        picture = image.convert("RGB")
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    gray = picture.convert("L")
    data = io.BytesIO()
    alike = gray.convert("RGB").tobytes() == picture.tobytes()
    (gray if alike else picture).save(data, "JPEG", quality=quality, optimize=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data.getvalue())


if __name__ == "__main__":
    main()
