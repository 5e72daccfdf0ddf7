"""Cross-validate a recipe of the compact model over the images of a prepared dataset, for choosing between ideas.

The training and validation rows of the dataset are pooled and divided into folds by image, with nearly equal images in
one fold; the folds depend on the image ids alone, so every idea is measured on the same ones. Each fold is a prepared
dataset of its own, on which `medical-vqa train` and `predict` run; what is finished is not repeated. The predictions of
all folds together cover every row once and are scored as one file, with an interval clustered by image.

    python tools/cross_validate.py recipes/slake-compact.yaml --root DIR --name plain --set training.epochs=12

Two ideas are compared, paired by question, with ``--against``, the name of an earlier run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import medical_vqa as mv
from medical_vqa.data.audit.near_duplicates import fingerprint, near_duplicates
from medical_vqa.data.disjoint_sets import DisjointSets
from medical_vqa.data.prepared.dataset import PreparedDataset
from medical_vqa.data.prepared.manifest import SplitFile, write_manifest
from medical_vqa.io import sha256
from medical_vqa.schema.records import Example, Split, read_jsonl

POOLED = "pooled"
"""Name of the dataset whose validation rows are those of all folds, for scoring them together."""
LAST_WEIGHTS: dict[str, object] = {"training.select": "last", "training.evaluate_every": 1000}
"""The weights of the last step: choosing a checkpoint on the rows that are scored would flatter every idea."""


def image_groups(dataset: PreparedDataset, rows: Sequence[Example]) -> dict[str, str]:
    """Group of each row's group: the first, in order, of those that are linked by nearly equal images."""
    images = sorted({row.image_id for row in rows})
    group_of_image = {row.image_id: row.group for row in rows}
    linked = DisjointSets()
    prints = [fingerprint(dataset.images.load(image)) for image in images]
    for pair in near_duplicates(prints):
        linked.join(group_of_image[images[pair.first]], group_of_image[images[pair.second]])
    return {group: linked.first(group) for group in group_of_image.values()}


def balanced_folds(groups: dict[str, str], folds: int) -> dict[str, int]:
    """Fold of each group: linked groups together, in an order given by their hash, each into the smallest fold."""
    members: dict[str, list[str]] = {}
    for group, root in groups.items():
        members.setdefault(root, []).append(group)
    sizes = [0] * folds
    fold_of: dict[str, int] = {}
    by_hash = sorted(members, key=lambda root: hashlib.sha256(root.encode()).hexdigest())
    for root in sorted(by_hash, key=lambda root: -len(members[root])):
        fold = sizes.index(min(sizes))
        sizes[fold] += len(members[root])
        fold_of.update(dict.fromkeys(members[root], fold))
    return fold_of


def write_folds(dataset: PreparedDataset, root: Path, folds: int) -> list[str]:
    """Write each fold as a prepared dataset under `root`, with links to the images; returns their names."""
    names = [f"{dataset.name}-fold{fold}of{folds}" for fold in range(folds)]
    if all((root / name / "manifest.json").is_file() for name in names):
        return names
    pooled: list[Split] = [split for split in ("train", "validation") if split in dataset.manifest.splits]
    rows = [row for split in pooled for row in dataset.examples(split)]
    fold_of = balanced_folds(image_groups(dataset, rows), folds)
    lines = {
        row["id"]: json.dumps(row, ensure_ascii=False)
        for split in pooled
        for row in read_jsonl(dataset.folder / dataset.manifest.splits[split].file)
    }
    all_parts: dict[str, dict[Split, list[Example]]] = {POOLED: {"train": rows, "validation": rows}}
    for fold, name in enumerate(names):
        held_out = [row for row in rows if fold_of[row.group] == fold]
        all_parts[name] = {"train": [row for row in rows if fold_of[row.group] != fold], "validation": held_out}
    for name, parts in all_parts.items():
        folder = root / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for entry in ("images", "pictures", "regions.npz"):
            if (dataset.folder / entry).exists():
                (folder / entry).symlink_to(dataset.folder / entry)
        splits: dict[Split, SplitFile] = {}
        for split, part in parts.items():
            text = "".join(lines[row.id] + "\n" for row in part)
            (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
            splits[split] = SplitFile(file=f"{split}.jsonl", rows=len(part), sha256=sha256(text.encode()))
        write_manifest(folder, dataset.manifest.model_copy(update={"name": name, "splits": splits}))
    return names


def run_folds(recipe: str, names: Sequence[str], data: Path, runs: Path, overrides: dict[str, object]) -> list[Path]:
    """Train and predict on each fold, unless that is done; returns the predictions file of each."""
    files = []
    for name in names:
        run = runs / name
        predictions = run / "predictions-validation.jsonl"
        files.append(predictions)
        if predictions.is_file():
            continue
        if not (run / "finished.json").is_file():
            mv.train(recipe, data=data / name, run=run, overrides={**LAST_WEIGHTS, **overrides})
        mv.predict(run, split="validation")
        sys.stdout.write(f"{name}: EM {mv.score(predictions, details=False).em}\n")
    return files


def main() -> None:
    """Run or resume the folds and print the score of all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="recipe by name or path")
    parser.add_argument("--name", required=True, help="name of the idea: folder of its runs")
    parser.add_argument("--dataset", default="slake", help="name of the prepared dataset")
    parser.add_argument("--root", type=Path, help="folder of prepared datasets")
    parser.add_argument("--runs", type=Path, default=Path("runs/folds"), help="folder of all folds and runs")
    parser.add_argument("--folds", type=int, default=5, help="number of folds")
    parser.add_argument("--only", type=int, nargs="*", help="folds to run; all by default")
    parser.add_argument("--against", help="name of an earlier idea to compare with, over the folds that both have")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    arguments = parser.parse_args()
    data = (arguments.runs / "data").resolve()
    names = write_folds(PreparedDataset.open(arguments.dataset, arguments.root), data, arguments.folds)
    names = [name for fold, name in enumerate(names) if arguments.only is None or fold in arguments.only]
    overrides = dict(override.split("=", 1) for override in arguments.overrides)
    runs = arguments.runs / arguments.name
    pooled = [joined(run_folds(arguments.recipe, names, data, runs, overrides), runs / "predictions.jsonl")]
    if arguments.against:
        earlier = arguments.runs / arguments.against
        files = [earlier / name / "predictions-validation.jsonl" for name in names]
        pooled.append(joined(files, earlier / "predictions.jsonl"))
        comparison = mv.compare(pooled, dataset=data / POOLED, split="validation")[0]
        sys.stdout.write(comparison.model_dump_json(indent=1) + "\n")
    else:
        scores = mv.score(pooled[0], dataset=data / POOLED, split="validation", details=False)
        sys.stdout.write(f"{len(names)} of {arguments.folds} folds: EM {scores.em}, F1 {scores.f1}\n")


def joined(files: Sequence[Path], path: Path) -> Path:
    """Write the predictions of several folds as one file, and return its path."""
    path.write_text("".join(file.read_text(encoding="utf-8") for file in files), encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
