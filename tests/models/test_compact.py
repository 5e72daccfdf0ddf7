"""What is particular to the compact family."""

import json

import numpy as np
import pytest
import torch

from medical_vqa.data.images import PictureSpec
from medical_vqa.errors import BundleError, ModelError
from medical_vqa.models.augment import Augment
from medical_vqa.models.compact import Compact, Sizes
from medical_vqa.models.compact_net import CompactNet, Place
from medical_vqa.models.model import Query
from medical_vqa.models.vocabulary import AnswerVocabulary, WordVocabulary

SIZES = Sizes(channels=(8, 16), width=16, heads=2, layers=2, dropout=0.0, question_words=8)


def compact(**changes):
    picture = changes.pop("picture", PictureSpec(32, "L", "stretch"))
    sizes = changes.pop("sizes", SIZES)
    torch.manual_seed(1)
    words, answers = WordVocabulary(("is", "it", "left")), AnswerVocabulary(("yes", "no"))
    return Compact(picture=picture, sizes=sizes, words=words, answers=answers, **changes)


def net(**changes):
    torch.manual_seed(0)
    sizes = {"side": 32, "channels": (8, 16), "width": 16, "heads": 2, "layers": 2, "dropout": 0.0}
    return CompactNet(**{**sizes, "words": 20, "answers": 5, **changes})


def test_the_real_size_is_two_and_a_third_million_parameters():
    model = net(side=160, channels=(32, 64, 128, 192), width=192, heads=4, words=300, answers=220)
    assert 2.2e6 < sum(p.numel() for p in model.parameters()) < 2.5e6


def test_place_scatters_and_gathers_back():
    mask = torch.tensor([[True, True], [True, False], [True, True], [True, True]])
    place = Place(mask, torch.tensor([2, 0, 2, 2]), images=3)
    x = torch.arange(1.0, 8.0).unsqueeze(1)  # seven words in all
    scattered = place.scatter(x)
    assert scattered.shape == (3, 6, 1)
    assert torch.equal(place.gather(scattered), x)
    assert scattered[1].abs().sum() == 0  # nobody asks about image 1
    assert place.mean(x).squeeze(1).tolist() == [1.5, 3.0, 4.5, 6.5]
    together = place.together[2, 0]
    assert together[0, 1] and not together[1, 2]  # words of one question see each other and no others


def test_questions_grouped_by_image_give_the_logits_of_questions_one_by_one():
    model = net().eval()
    pictures = torch.rand(3, 1, 32, 32)
    image_of = torch.tensor([1, 0, 1, 2, 1])
    words = torch.randint(1, 20, (5, 6))
    words[0, 3:] = 0
    tokens = model.image(pictures)
    grouped = model.logits(tokens, image_of, words)
    for row in range(5):
        alone = model.logits(tokens[image_of[row]][None], torch.tensor([0]), words[row : row + 1])
        assert torch.allclose(grouped[row], alone[0], atol=1e-5)


def test_grouped_gradients_equal_those_of_a_picture_per_question():
    pictures = torch.randint(0, 255, (2, 32, 32, 1), dtype=torch.uint8)
    image_of, words = torch.tensor([0, 0, 1, 0]), torch.randint(1, 20, (4, 5))
    batch = {"image_of": image_of, "words": words, "target": torch.arange(4)}
    grads = []
    for grouped in (True, False):
        model = net().eval()  # batch norm by its running statistics, which do not depend on repetition
        own = batch if grouped else batch | {"image_of": torch.arange(4)}
        model(own | {"pictures": pictures if grouped else pictures[batch["image_of"]]}).backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.allclose(*grads, atol=1e-4)


def test_padding_does_not_change_an_answer():
    model = net().eval()
    tokens = model.image(torch.rand(1, 1, 32, 32))
    words = torch.tensor([[3, 4, 5]])
    padded = torch.tensor([[3, 4, 5, 0, 0, 0]])
    image_of = torch.tensor([0])
    assert torch.allclose(model.logits(tokens, image_of, words), model.logits(tokens, image_of, padded), atol=1e-6)


def test_word_order_matters():
    model = net().eval()
    tokens, image_of = model.image(torch.rand(1, 1, 32, 32)), torch.tensor([0])
    forth, back = torch.tensor([[3, 4, 5]]), torch.tensor([[5, 4, 3]])
    assert not torch.allclose(model.logits(tokens, image_of, forth), model.logits(tokens, image_of, back), atol=1e-4)


def test_the_position_in_the_picture_matters():
    model = net().eval()
    left = torch.zeros(1, 1, 32, 32)
    left[..., :16] = 1.0
    image_of, words = torch.tensor([0]), torch.tensor([[3, 4]])
    logits = [model.logits(model.image(p), image_of, words) for p in (left, left.flip(-1))]
    assert not torch.allclose(*logits, atol=1e-4)


@pytest.mark.parametrize("picture", [PictureSpec(32, "RGB", "stretch"), PictureSpec(32, "L", "inside")])
def test_pictures_it_cannot_take_are_refused(picture):
    with pytest.raises(ModelError, match="square greyscale"):
        compact(picture=picture)


def test_a_width_that_the_heads_cannot_share_is_refused():
    with pytest.raises(ModelError, match="3 heads"):
        compact(sizes=Sizes((8, 16), 16, 3, 1, 0.0, 8))


def test_pictures_of_different_size_are_refused():
    model = compact()
    rows = [Query(str(n), "is it", str(n), np.zeros((n, n, 1), np.uint8), "yes") for n in (32, 48)]
    with pytest.raises(ModelError, match="differ in size"):
        model.collate(rows)


def test_features_are_for_answering_only():
    model = compact()
    features = model.vision.encode([np.zeros((32, 32, 1), np.uint8)])[0]
    with pytest.raises(ModelError, match="trains on pictures"):
        model.collate([Query("q", "is it", "a", features, "yes")])


@pytest.mark.parametrize("name", ["compact.json", "weights.safetensors"])
def test_a_damaged_file_is_one_sentence(name, tmp_path):
    compact().save(tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(BundleError, match="damaged") as error:
        Compact.load(tmp_path, device=torch.device("cpu"))
    assert "\n" not in str(error.value)


def test_weights_of_another_shape_are_refused(tmp_path):
    compact().save(tmp_path)
    settings = json.loads((tmp_path / "compact.json").read_text())
    settings["answers"].append("maybe")
    (tmp_path / "compact.json").write_text(json.dumps(settings))
    with pytest.raises(BundleError, match="damaged"):
        Compact.load(tmp_path, device=torch.device("cpu"))


def test_augmentation_keeps_shape_and_range_and_is_off_when_answering():
    torch.manual_seed(0)
    pictures = torch.rand(4, 1, 32, 32)
    changed = Augment(rotate=10, shift=0.1, scale=0.1, intensity=0.1)(pictures)
    assert changed.shape == pictures.shape
    assert not torch.allclose(changed, pictures)
    assert changed.min() >= 0
    model = compact(augment=Augment(rotate=45, shift=0.5, scale=0.5, intensity=0.5))
    batch = model.collate([Query("q", "is it", "a", np.full((32, 32, 1), 99, np.uint8), "yes")])
    model.module.eval()
    assert model.module(batch).item() == model.module(batch).item()


def test_no_augmentation_is_no_change():
    pictures = torch.rand(2, 1, 16, 16).clamp(1e-3, 1)
    assert torch.allclose(Augment(rotate=0, shift=0, scale=0, intensity=0)(pictures), pictures, atol=1e-5)


def test_a_shift_to_the_right_moves_the_picture_and_never_mirrors_it():
    torch.manual_seed(3)
    bright_left = torch.zeros(8, 1, 32, 32)
    bright_left[..., :10] = 1.0
    moved = Augment(rotate=10, shift=0.06, scale=0.1, intensity=0.0)(bright_left)
    assert (moved[..., :16].mean((1, 2, 3)) > 3 * moved[..., 16:].mean((1, 2, 3))).all()
