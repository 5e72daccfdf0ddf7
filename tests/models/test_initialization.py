"""Starting from a model that was trained before."""

import numpy as np
import pytest
import torch

from medical_vqa.errors import ModelError
from medical_vqa.models.base import Query
from medical_vqa.models.compact.model import Compact
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.records import Example

SIZES = {
    "picture": {"side": 32, "mode": "L", "fit": "stretch"},
    "channels": (8, 16),
    "width": 16,
    "heads": 2,
    "layers": 1,
    "dropout": 0.0,
    "question_words": 8,
    "augment": None,
    "label_smoothing": 0.1,
}


def rows(*pairs):
    return [Example(str(n), "a", question, (answer,), "a", {}) for n, (question, answer) in enumerate(pairs)]


def built(seed, *pairs, **changes):
    torch.manual_seed(seed)
    return Compact.build(rows(*pairs), **{**SIZES, **changes})


EARLIER = [("is it left", "yes"), ("is it left", "no"), ("what is it", "liver")]
PIXELS = np.random.default_rng(0).integers(0, 255, (32, 32, 1), dtype=np.uint8)


def test_words_answers_and_regions_are_matched_by_name_and_the_rest_is_taken_over(tmp_path):
    earlier = built(1, *EARLIER, regions=("mask: Liver", "mask: Spleen"))
    later = built(2, ("left or right", "left"), ("what is left", "liver"), regions=("mask: Kidney", "mask: Spleen"))
    own = later.module.image_encoder.region_head.classifier.weight[0].clone()
    assert later.initialize_from(earlier) == 0.5
    target, source = later.module, earlier.module
    for word in ("left", "what"):
        new, old = later.settings.words.indices([word])[0], earlier.settings.words.indices([word])[0]
        assert torch.equal(target.question_encoder.embedding.weight[new], source.question_encoder.embedding.weight[old])
    liver, old = later.answers.index("liver"), earlier.answers.index("liver")
    assert torch.equal(target.head[5].weight[liver], source.head[5].weight[old])
    assert torch.equal(
        target.image_encoder.region_head.classifier.weight[1], source.image_encoder.region_head.classifier.weight[1]
    )
    assert torch.equal(
        target.image_encoder.region_head.embedding.weight[:, 1], source.image_encoder.region_head.embedding.weight[:, 1]
    )
    assert torch.equal(target.image_encoder.region_head.classifier.weight[0], own)
    assert torch.equal(target.image_encoder.stem[0].weight, source.image_encoder.stem[0].weight)
    assert torch.equal(target.question_encoder.gru.weight_hh_l0, source.question_encoder.gru.weight_hh_l0)


@pytest.mark.parametrize("presence_weight", [0.0, 0.1])
def test_the_same_rows_give_the_earlier_models_answers_before_any_training(tmp_path, presence_weight):
    earlier = built(1, *EARLIER, regions=("mask: Liver",), presence_weight=presence_weight)
    earlier.save(tmp_path)
    later = built(2, *EARLIER, initial=tmp_path)
    assert later.settings.regions == earlier.settings.regions
    query = Query("q", "is it left", "a", PIXELS, "yes")
    assert torch.allclose(later.logits([query]), earlier.logits([query]), atol=1e-6)
    assert later.answer([query], Decoding()) == earlier.answer([query], Decoding())


def test_which_regions_a_picture_shows_is_taken_over_by_their_names():
    earlier = built(1, *EARLIER, regions=("mask: Liver", "mask: Spleen"), presence_weight=0.1)
    later = built(2, *EARLIER, regions=("mask: Kidney", "mask: Spleen"), presence_weight=0.1)
    target, source = later.module.image_encoder.presence_head, earlier.module.image_encoder.presence_head
    own = target.classifier.weight[0].clone()
    later.initialize_from(earlier)
    assert torch.equal(target.classifier.weight[1], source.classifier.weight[1])
    assert torch.equal(target.embedding.weight[:, 1], source.embedding.weight[:, 1])
    assert torch.equal(target.classifier.weight[0], own)


def test_words_of_the_earlier_model_stay_known_and_regions_need_not_be_learned_again(tmp_path):
    built(1, *EARLIER, regions=("mask: Liver",)).save(tmp_path)
    later = built(2, ("where", "here"), initial=tmp_path)
    assert not later.settings.words.unknown("where is it left")
    batch = later.collate([Query("q", "where", "a", PIXELS, "here")])
    assert "regions" not in batch
    later.module.train()
    assert torch.isfinite(later.module(batch))


def test_other_sizes_are_refused(tmp_path):
    built(1, *EARLIER).save(tmp_path)
    with pytest.raises(ModelError, match="same picture and sizes"):
        built(2, *EARLIER, initial=tmp_path, width=32)
