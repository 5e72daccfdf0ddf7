"""A prepared dataset in other layouts, read again by their readers, and split again without shared images."""

from __future__ import annotations

import json

import pytest

from medical_vqa import registry
from medical_vqa.data.prepared.convert import LAYOUTS, convert
from medical_vqa.data.prepared.dataset import PreparedDataset
from medical_vqa.data.prepared.prepare import prepare
from medical_vqa.errors import ConfigError
from medical_vqa.pipelines.prepare import prepare_dataset

READERS = {"csv": "table", "hub-parquet": "table"}


@pytest.fixture
def dataset(tmp_path, slake_folder, slake_row):
    rows = [slake_row(n, 1 + n // 2, question=f"Question {n}?") for n in range(6)]
    folder = slake_folder(train=rows, test=[slake_row(9, 1)])
    manifest = prepare(registry.create("datasets", "slake"), folder, tmp_path / "root", partial=True)
    return PreparedDataset(tmp_path / "root" / "slake", manifest)


def answered(rows):
    return [(row.question, row.answers[0]) for row in rows]


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "lmms-eval"])
def test_what_was_written_is_read_again(dataset, tmp_path, layout):
    files = convert(dataset, layout, tmp_path / "out")
    assert len(files) == len(dataset.splits)
    assert "CC BY 4.0" in (tmp_path / "out/LICENSE.txt").read_text()
    published = registry.create("datasets", READERS.get(layout, layout)).read(tmp_path / "out")
    for split in dataset.splits:
        assert answered(published.examples[split]) == answered(dataset.examples(split))
    contents = {published.read_image(row.image_id) for rows in published.examples.values() for row in rows}
    originals = {path.read_bytes() for path in (dataset.folder / "images").rglob("*.*")}
    assert contents == originals


def test_a_task_of_lmms_eval_names_its_data_and_functions(dataset, tmp_path):
    task = convert(dataset, "lmms-eval", tmp_path / "out")[0].read_text()
    assert "test: data/train-00000-of-00001.parquet" in task
    namespace = {}
    exec(compile((tmp_path / "out/utils.py").read_text(), "utils", "exec"), namespace)
    assert namespace["process_results"]({"answer": "MRI"}, [" mri "]) == {"exact_match": 1.0}


def test_an_unknown_layout_is_refused(dataset, tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'llava-json'"):
        convert(dataset, "llava-jsn", tmp_path)


def test_a_clean_split_keeps_equal_images_together_and_says_where_rows_were_published(tmp_path):
    import numpy as np
    from PIL import Image

    source, rng = tmp_path / "mine", np.random.default_rng(0)
    lines = []
    for n in range(40):
        picture = Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).resize((64, 64))
        source.mkdir(exist_ok=True)
        picture.save(source / f"{n}.png")
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(source / f"{n}-mirrored.png")
        lines.append({"image": f"{n}.png", "image_id": f"{n}", "question": "What?", "answer": "a", "split": "train"})
        lines.append(
            {"image": f"{n}-mirrored.png", "image_id": f"{n}m", "question": "What?", "answer": "a", "split": "test"}
        )
    (source / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    clean = prepare_dataset("folder", root=tmp_path / "root", source=source, name="mine", resplit="clean")
    assert clean.name == "mine-clean"
    split_of = {row.image_id.rpartition("/")[2]: split for split in clean.splits for row in clean.examples(split)}
    assert all(split_of[f"{n}"] == split_of[f"{n}m"] for n in range(40))
    assert set(split_of.values()) == {"train", "validation", "test"}
    assert {row.facts["published_split"] for row in clean.examples("test")} == {"train", "test"}
    again = prepare_dataset("folder", root=tmp_path / "root", source=source, name="mine", resplit="clean")
    assert again.manifest == clean.manifest
