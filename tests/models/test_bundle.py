import json
import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from medical_vqa.errors import BundleError, ConfigError
from medical_vqa.models.baselines import QuestionLookup
from medical_vqa.models.bundle import load_bundle, write_bundle
from medical_vqa.schema.bundle_card import BundleCard, Decoding, read_bundle_card
from medical_vqa.schema.records import Example

BASELINE = QuestionLookup.fit([Example("a", "i", "Is it?", ("Yes",), "i")])
CARD = BundleCard(family="question-only", name="mine", decoding=Decoding(alternatives=2), license="CC BY 4.0")


@pytest.fixture
def bundle(tmp_path):
    write_bundle(tmp_path / "bundle", CARD, BASELINE.save)
    return tmp_path / "bundle"


def change_card(bundle, **changes):
    card = json.loads((bundle / "card.json").read_text())
    (bundle / "card.json").write_text(json.dumps(card | changes))


def test_what_is_written_is_read_back(bundle):
    model, card = load_bundle(bundle)
    assert model.overall == BASELINE.overall
    assert (card.name, card.decoding, card.license) == ("mine", Decoding(alternatives=2), "CC BY 4.0")
    assert set(card.files) == {"baseline.json"}
    assert card.created
    assert card.version
    assert "not for diagnosis" in card.intended_use


def test_another_format_version_says_both_versions(bundle):
    change_card(bundle, format=99)
    with pytest.raises(
        BundleError, match=r"has format 99 and this version of medical-vqa reads format 2; copy the bundle again"
    ):
        load_bundle(bundle)


def test_a_changed_file_is_noticed(bundle):
    (bundle / "baseline.json").write_text("{}")
    with pytest.raises(BundleError, match="is not the file the bundle was written with"):
        load_bundle(bundle)


def test_a_missing_file_is_named(bundle):
    (bundle / "baseline.json").unlink()
    with pytest.raises(BundleError, match=r"lacks baseline\.json"):
        load_bundle(bundle)


@pytest.mark.parametrize("content", ["", "[]", "{", "null"])
def test_a_broken_card_is_one_sentence(bundle, content):
    (bundle / "card.json").write_text(content)
    with pytest.raises(BundleError) as error:
        read_bundle_card(bundle)
    assert "\n" not in str(error.value)


def test_unknown_and_missing_fields_are_refused(bundle):
    change_card(bundle, color="red")
    with pytest.raises(BundleError, match="unknown key 'color'"):
        read_bundle_card(bundle)


def test_an_unknown_family_is_refused(bundle):
    change_card(bundle, family="majorty")
    with pytest.raises(ConfigError, match="did you mean 'majority'"):
        load_bundle(bundle)


def test_no_bundle_says_what_was_expected(tmp_path):
    with pytest.raises(BundleError, match="no bundle at"):
        load_bundle(tmp_path)


def test_what_is_a_model_of_another_kind_says_what_runs_it(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    for path in (tmp_path, tmp_path / "model.gguf"):
        with pytest.raises(BundleError, match=r"GGUF is run by llama\.cpp, .*llama-server -m .*/v1"):
            read_bundle_card(path)
    (tmp_path / "model.gguf").rename(tmp_path / "config.json")
    with pytest.raises(BundleError, match=r"it is a published checkpoint; train it .*vllm serve"):
        read_bundle_card(tmp_path)


def test_a_failed_save_leaves_the_old_bundle(bundle):
    def fail(folder):
        (folder / "half").write_text("half")
        raise OSError(28, "No space left on device")

    before = (bundle / "card.json").read_text()
    with pytest.raises(OSError, match="No space"):
        write_bundle(bundle, CARD, fail)
    assert (bundle / "card.json").read_text() == before
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_its_files_are_readable_as_new_files_are_whatever_wrote_them(tmp_path, umask, mode):
    def save(folder):
        BASELINE.save(folder)
        save_file({"weights": np.zeros(2)}, folder / "weights.safetensors")  # which only its owner may read

    before = os.umask(umask)
    try:
        write_bundle(tmp_path / "bundle", CARD, save)
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "bundle").iterdir()} == dict.fromkeys(
        ["card.json", "weights.safetensors", *(name for name in read_bundle_card(tmp_path / "bundle").files)], mode
    )


def test_writing_again_replaces_it(bundle):
    write_bundle(bundle, BundleCard(family="question-only", name="second"), BASELINE.save)
    assert read_bundle_card(bundle).name == "second"
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]
