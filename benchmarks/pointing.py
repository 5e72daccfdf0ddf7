"""Where the compact model looks, against where things are: `python benchmarks/pointing.py [BUNDLE] [--figure FILE]`.

The pointing game on SLAKE's English validation questions that name a thing whose mask or box is known in that picture
(with ``--language zh``, on the Chinese questions about the same pictures):
a hit is a peak of the map inside the region. Chance is the region's share of the picture; the middle of the picture,
and the map of another picture's same question, stand beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from measured_model import MEASURED, require_unseen
from medical_vqa.data.cache.regions import FULL, GRID, UNKNOWN, RegionStore
from medical_vqa.data.prepared.dataset import default_root
from medical_vqa.data.prepared.selected import SelectedDataset
from medical_vqa.models.base import Query
from medical_vqa.pipelines.bundles import find_bundle, load_model
from medical_vqa.pipelines.queries import queries
from medical_vqa.schema.records import Example
from medical_vqa.schema.selection import Selection

Map = NDArray[np.float32]


def main() -> None:
    """Play the game and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path, nargs="?", default=MEASURED)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--language", choices=("en", "zh"), default="en")
    options = parser.parse_args()
    model: Any
    model, card = load_model(find_bundle(options.bundle), "cpu")
    require_unseen(card)
    data = SelectedDataset.open(Selection(dataset="slake", root=default_root(), where={"language": "en"}))
    store = data.dataset.regions
    asked = list(queries(data, rows_of(data, options.language), model))
    games = [(query, region) for query in asked if (region := region_of(model, store, query)) is not None]
    attention_maps = model.attention_maps([query for query, _ in games])
    attended = model.attention([query for query, _ in games])
    found = {
        "model": card.name,
        "files": dict(card.files),
        "language": options.language,
        "questions": len(games),
        "images": len({query.image for query, _ in games}),
        "hits": share(
            hit(attention_map, region) for attention_map, (_, region) in zip(attention_maps, games, strict=True)
        ),
        "hits of the attention alone": share(hit(m, r) for m, r in zip(attended, (r for _, r in games), strict=True)),
        "chance": share(float((region > 0.5).mean()) for _, region in games),
        "always the middle": share(region[GRID // 2, GRID // 2] > 0.5 for _, region in games),
        "the map of another picture": share(other_hits(games, attention_maps)),
        "share of the map inside": share(
            float((grown(attention_map) * region).sum()) for attention_map, (_, region) in pairs(attention_maps, games)
        ),
    }
    json.dump(found, sys.stdout, indent=1)
    if options.figure:
        draw(games, attention_maps, options.figure)


def rows_of(data: SelectedDataset, language: str) -> list[Example]:
    """Questions about the pictures of the English validation split, from which nothing was learned."""
    rows = data.rows("validation")
    if language == "en":
        return rows
    prepared, images = data.dataset, {row.image_id for row in rows}
    splits = [prepared.examples(split, {"language": language}) for split in prepared.splits]
    return [row for split in splits for row in split if row.image_id in images]


def pairs(attention_maps: Sequence[Map], games: Sequence[tuple[Query, Map]]) -> Iterator[tuple[Map, tuple[Query, Map]]]:
    """Maps beside their questions."""
    return zip(attention_maps, games, strict=True)


def region_of(model: Any, store: RegionStore, query: Query) -> Map | None:
    """The mask, or else the box, of the thing the question names: (GRID, GRID) in [0, 1]; None where it has none."""
    thing = model.parser.entity_in_any_language(query.question)
    if thing is None:
        return None
    grids = store.get(query.image)
    for kind in ("mask", "box"):
        names = [n for n, name in enumerate(store.names) if name.startswith(kind) and name.lower().endswith(thing)]
        known = [grids[n] for n in names if grids[n].max() not in (0, UNKNOWN)]
        if known:
            shares: Map = np.maximum.reduce(known).astype(np.float32) / FULL
            return shares
    return None


def grown(attention_map: Map) -> Map:
    """A map brought to (GRID, GRID), its sum kept."""
    cells = (np.arange(GRID) * len(attention_map)) // GRID
    larger: Map = attention_map[np.ix_(cells, cells)]
    return larger / larger.sum()


def hit(attention_map: Map, region: Map) -> bool:
    """Whether the middle of the map's brightest cell lies in the region."""
    row, column = np.unravel_index(attention_map.argmax(), attention_map.shape)
    times = GRID / len(attention_map)
    return bool(region[int((row + 0.5) * times), int((column + 0.5) * times)] > 0.5)


def other_hits(games: Sequence[tuple[Query, Map]], attention_maps: Sequence[Map]) -> Iterator[bool]:
    """Hits of each region by the map of the next question about another picture."""
    for place, (query, region) in enumerate(games):
        others = [n for n, (other, _) in enumerate(games) if other.image != query.image]
        yield hit(attention_maps[others[(7 * place) % len(others)]], region)


def draw(games: Sequence[tuple[Query, Map]], attention_maps: Sequence[Map], path: Path) -> None:
    """Twelve pictures: what is asked, the map in red, the region outlined in green."""
    chosen = {games[place][0].image: place for place in range(0, len(games), 3)}
    tiles = [tile(*games[place], attention_maps[place]) for place in list(chosen.values())[:12]]
    width, height = tiles[0].size
    sheet = Image.new("RGB", (4 * width, 3 * height), "white")
    for place, picture in enumerate(tiles):
        sheet.paste(picture, (place % 4 * width, place // 4 * height))
    sheet.save(path)


def tile(query: Query, region: Map, attention_map: Map) -> Image.Image:
    """One picture with its map and region."""
    side = 240
    gray = Image.fromarray(np.asarray(query.visual)[..., 0]).resize((side, side)).convert("RGB")
    heat = Image.fromarray((255 * attention_map / attention_map.max()).astype(np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    red = Image.composite(Image.new("RGB", gray.size, (255, 60, 30)), gray, heat.point(lambda v: int(0.65 * v)))
    outline = np.asarray(Image.fromarray((255 * region).astype(np.uint8)).resize((side, side))) > 127
    edge = outline & ~(
        np.roll(outline, 2, 0) & np.roll(outline, 2, 1) & np.roll(outline, -2, 0) & np.roll(outline, -2, 1)
    )
    pixels = np.array(red)
    pixels[edge] = (70, 230, 90)
    framed = Image.new("RGB", (side + 8, side + 30), "white")
    framed.paste(Image.fromarray(pixels), (4, 4))
    ImageDraw.Draw(framed).text((6, side + 10), query.question[:42], fill="black")
    return framed


def share(values: Iterator[bool | float]) -> float:
    """Mean, rounded."""
    return round(float(np.mean(list(values))), 4)


if __name__ == "__main__":
    main()
