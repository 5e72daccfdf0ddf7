import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from medical_vqa.data.cache.features import SHARD, FeatureStore
from medical_vqa.errors import DataError

FIRST, SECOND = "a" * 64, "b" * 64


def features(value: float):
    return {"tokens": torch.full((3, 4), value, dtype=torch.bfloat16), "size": torch.tensor([2, 5])}


def test_what_is_added_is_found_again_by_another_store(tmp_path):
    FeatureStore(tmp_path, FIRST).add({"x": features(0.5), "y": features(2.0)})
    again = FeatureStore(tmp_path, FIRST)
    assert len(again) == 2
    found = again.get("y")
    assert torch.equal(found["tokens"], features(2.0)["tokens"])
    assert found["size"].tolist() == [2, 5]


def test_what_another_process_adds_is_seen(tmp_path):
    ours, theirs = FeatureStore(tmp_path, FIRST), FeatureStore(tmp_path, FIRST)
    theirs.add({"x": features(1.0)})
    assert ours.missing(["x", "z", "z"]) == ["z"]
    assert ours.get("x")["tokens"][0, 0] == 1


def test_another_encoder_has_another_place(tmp_path):
    FeatureStore(tmp_path, FIRST).add({"x": features(1.0)})
    assert "x" not in FeatureStore(tmp_path, SECOND)


def test_features_written_by_another_model_are_refused(tmp_path):
    FeatureStore(tmp_path, FIRST).add({"x": features(1.0)})
    (tmp_path / FIRST[:16]).rename(tmp_path / SECOND[:16])
    with pytest.raises(DataError, match=r"written by another model .*delete the folder"):
        FeatureStore(tmp_path, SECOND)


def test_a_damaged_shard_counts_as_not_there(tmp_path):
    store = FeatureStore(tmp_path, FIRST)
    store.add({"x": features(1.0)})
    shard = next(store.folder.iterdir())
    shard.write_bytes(shard.read_bytes()[:100])
    assert FeatureStore(tmp_path, FIRST).missing(["x"]) == ["x"]


def test_a_layout_of_another_version_counts_as_not_there(tmp_path):
    store = FeatureStore(tmp_path, FIRST)
    store.add({"x": features(1.0)})
    shard = next(store.folder.iterdir())
    save_file(load_file(shard), shard, metadata={"format": "0", "fingerprint": FIRST})
    assert "x" not in FeatureStore(tmp_path, FIRST)


def test_each_image_is_encoded_once_a_shard_at_a_time(tmp_path):
    batches = []

    def encode(pictures):
        batches.append(len(pictures))
        return [{"tokens": torch.tensor([float(p[0, 0, 0])])} for p in pictures]

    def picture(digest):
        return np.full((2, 2, 1), int(digest), np.uint8)

    digests = [str(i) for i in range(SHARD + 3)]
    told = []
    store = FeatureStore(tmp_path, FIRST)
    store.ensure(digests * 11, picture, encode, lambda done, total: told.append((done, total)))
    store.ensure(digests, picture, encode)
    assert batches == [SHARD, 3]
    assert told == [(SHARD, SHARD + 3), (SHARD + 3, SHARD + 3)]
    assert store.get("34")["tokens"].item() == 34
    assert len(list(store.folder.iterdir())) == 2


def test_a_killed_writer_leaves_nothing_behind_that_is_read(tmp_path):
    store = FeatureStore(tmp_path, FIRST)
    store.add({"x": features(1.0)})
    whole = next(store.folder.iterdir())
    (store.folder / "features-0.safetensors.partial").write_bytes(whole.read_bytes()[:200])
    assert len(FeatureStore(tmp_path, FIRST)) == 1


def test_what_is_not_there_is_said_so(tmp_path):
    with pytest.raises(DataError, match="has no features of image"):
        FeatureStore(tmp_path, FIRST).get("x")


def test_a_store_travels_to_another_process_without_its_contents(tmp_path):
    store = FeatureStore(tmp_path, FIRST)
    store.add({"x": features(1.0)})
    content = pickle.dumps(store)
    assert len(content) < 1000
    assert "x" in pickle.loads(content)
