"""What is particular to the compact family."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from medical_vqa.data.cache.regions import FULL, GRID, UNKNOWN
from medical_vqa.data.imaging.preprocessing import PictureSpec
from medical_vqa.errors import BundleError, ModelError
from medical_vqa.models.augment import Augment, compose_affine, resample
from medical_vqa.models.base import Query
from medical_vqa.models.compact.image_encoder import EncodedImages, foreground_frame, local_contrast
from medical_vqa.models.compact.model import Compact, CompactVision, Regularization
from medical_vqa.models.compact.network import CompactNet, ImageMemory, WordLayout
from medical_vqa.models.compact.quantization import dequantized
from medical_vqa.models.compact.question_understanding import ImageTypes
from medical_vqa.models.compact.region_heads import presence_loss, region_loss
from medical_vqa.models.compact.settings import WEIGHTS_FILE, CompactSettings, Sizes
from medical_vqa.models.vocabulary import AnswerVocabulary, WordVocabulary
from medical_vqa.pipelines.bundles import shipped_bundle
from medical_vqa.schema.bundle_card import Decoding
from medical_vqa.schema.records import Prediction

SIZES = Sizes(channels=(8, 16), width=16, heads=2, layers=2, dropout=0.0, question_words=8)


PICTURE = PictureSpec(32, "L", "stretch")
TRAINING = {field.name for field in dataclasses.fields(Regularization)}


def compact(words=("is", "it", "left"), answers=("yes", "no"), **changes):
    torch.manual_seed(1)
    training = {name: changes.pop(name) for name in TRAINING & changes.keys()}
    vocabularies = {"words": WordVocabulary(words), "answers": AnswerVocabulary(answers)}
    settings = CompactSettings(**{"picture": PICTURE, "sizes": SIZES, **vocabularies, **changes})
    return Compact(settings, Regularization(**training))


def net(sizes=SIZES, **changes):
    torch.manual_seed(0)
    return CompactNet(sizes, **{"side": 32, "words": 20, "answers": 5, **changes})


def test_the_real_size_is_two_and_a_third_million_parameters():
    sizes = Sizes(channels=(32, 64, 128, 192), width=192, heads=4, layers=2, dropout=0.0, question_words=32)
    model = net(sizes, side=160, words=300, answers=220)
    assert 2.2e6 < sum(p.numel() for p in model.parameters()) < 2.5e6


def test_words_are_laid_out_by_question_and_by_image_and_packed_again():
    mask = torch.tensor([[True, True], [True, False], [True, True], [True, True]])
    layout = WordLayout(mask, torch.tensor([2, 0, 2, 2]), images=3)
    x = torch.arange(1.0, 8.0).unsqueeze(1)  # seven words in all
    by_image, by_question = layout.by_image.unpack(x), layout.by_question.unpack(x)
    assert by_image.shape == (3, 6, 1)
    assert by_image[1].abs().sum() == 0  # nobody asks about image 1
    assert by_question.squeeze(2).tolist() == [[1, 2], [3, 0], [4, 5], [6, 7]]
    assert torch.equal(layout.by_image.pack(by_image), x)
    assert torch.equal(layout.by_question.pack(by_question), x)
    assert layout.mean(x).squeeze(1).tolist() == [1.5, 3.0, 4.5, 6.5]


def test_questions_grouped_by_image_give_the_logits_of_questions_one_by_one():
    model = net().eval()
    pictures = torch.rand(3, 1, 32, 32)
    image_of = torch.tensor([1, 0, 1, 2, 1])
    words = torch.randint(1, 20, (5, 6))
    words[0, 3:] = 0
    memory = model.memory(model.image_encoder(pictures))
    grouped = model.logits(memory, image_of, words)
    for row in range(5):
        image = image_of[row]
        of_image = ImageMemory(*(part[image : image + 1] for part in memory))
        alone = model.logits(of_image, torch.tensor([0]), words[row : row + 1])
        assert torch.allclose(grouped[row], alone[0], atol=1e-5)


def test_keys_and_values_of_an_image_are_computed_once_for_any_number_of_questions():
    model = compact()
    calls = []
    for layer in model.module.layers:
        for projection in (layer.cross_attention.key, layer.cross_attention.value):
            projection.register_forward_hook(lambda *_: calls.append(1))
    features = model.vision.encode([query_with_regions().visual])[0]
    projections = len(calls)
    assert projections == 2 * len(model.module.layers)
    for question in ("is it left", "is it right"):
        model.answer([Query("q", question, "a", features)], Decoding())
    model.attention_weights([Query("q", "is it left", "a", features)])
    assert len(calls) == projections


def test_the_fingerprint_of_the_features_follows_keys_values_and_encoder_and_no_other_weights():
    model = compact()
    before = model.vision.fingerprint
    with torch.no_grad():
        model.module.layers[0].cross_attention.query.weight.add_(1)
        assert model.vision.fingerprint == before
        model.module.layers[0].cross_attention.key.weight.add_(1)
        assert model.vision.fingerprint != before


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
    memory = model.memory(model.image_encoder(torch.rand(1, 1, 32, 32)))
    words = torch.tensor([[3, 4, 5]])
    padded = torch.tensor([[3, 4, 5, 0, 0, 0]])
    image_of = torch.tensor([0])
    assert torch.allclose(model.logits(memory, image_of, words), model.logits(memory, image_of, padded), atol=1e-6)


def test_word_order_matters():
    model = net().eval()
    memory, image_of = model.memory(model.image_encoder(torch.rand(1, 1, 32, 32))), torch.tensor([0])
    forth, back = torch.tensor([[3, 4, 5]]), torch.tensor([[5, 4, 3]])
    assert not torch.allclose(model.logits(memory, image_of, forth), model.logits(memory, image_of, back), atol=1e-4)


def test_the_position_in_the_picture_matters():
    model = net().eval()
    left = torch.zeros(1, 1, 32, 32)
    left[..., :16] = 1.0
    image_of, words = torch.tensor([0]), torch.tensor([[3, 4]])
    logits = [model.logits(model.memory(model.image_encoder(p)), image_of, words) for p in (left, left.flip(-1))]
    assert not torch.allclose(*logits, atol=1e-4)


@pytest.mark.parametrize("picture", [PictureSpec(32, "RGB", "stretch"), PictureSpec(32, "L", "inside")])
def test_pictures_it_cannot_take_are_refused(picture):
    with pytest.raises(ModelError, match="square grayscale"):
        compact(picture=picture)


def test_a_width_that_is_no_multiple_of_the_heads_is_refused():
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


def test_the_network_of_the_shipped_bundle_names_its_weights_as_the_bundle_does():
    model = Compact.load(shipped_bundle(), device=torch.device("cpu"))
    stored = dequantized(load_file(shipped_bundle() / WEIGHTS_FILE))
    assert model.module.state_dict().keys() == stored.keys()
    assert {name.partition(".")[0] for name in stored} == {"image_encoder", "question_encoder", "layers", "head"}


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
    shifted = Augment(rotate=10, shift=0.06, scale=0.1, intensity=0.0)(bright_left)
    assert (shifted[..., :16].mean((1, 2, 3)) > 3 * shifted[..., 16:].mean((1, 2, 3))).all()


# --- regions, local contrast and foreground


def regional(**changes):
    words, answers = ("is", "it", "left", "right"), ("Left Lung", "Right Lung", "no")
    return compact(words, answers, regions=("mask: Left Lung", "mask: Right Lung", "box: Mass"), **changes)


def query_with_regions(question="is it left", target="Left Lung", known=True):
    grids = np.full((3, GRID, GRID), 0 if known else UNKNOWN, np.uint8)
    if known:
        grids[0, :, : GRID // 2] = FULL
    pixels = np.zeros((32, 32, 1), np.uint8)
    pixels[:, :16] = 200
    return Query("q", question, "a", pixels, target, grids)


def test_regions_add_to_the_loss_only_where_they_are_known():
    losses = {}
    for weight in (0.0, 1.0):
        for known in (True, False):
            model = regional(region_weight=weight)
            model.module.eval()
            losses[weight, known] = model.module(model.collate([query_with_regions(known=known)])).item()
    assert losses[1.0, True] > losses[0.0, True]
    assert losses[1.0, False] == losses[0.0, False] == losses[0.0, True]


def test_regions_move_with_the_picture():
    grids = torch.from_numpy(query_with_regions().regions)[None]
    shifted = Augment(rotate=0, shift=0.0, scale=0.0, intensity=0).transforms(torch.zeros(1, 1, 8, 8))
    shifted[:, 0, 2] = 1.0  # half a picture to the left: what lay on the left is gone
    certain = torch.full((1, 3, 4, 4), -20.0)
    assert region_loss(certain, grids, shifted).item() == pytest.approx(0.0, abs=1e-3)
    assert region_loss(certain, grids, None).item() == pytest.approx(10.0, abs=1e-3)  # half the cells, 20 nats each


def test_which_regions_a_picture_shows_is_learned_where_they_are_known():
    grids = np.full((3, GRID, GRID), UNKNOWN, np.uint8)
    grids[0], grids[1] = 0, 0
    grids[0, 3, 5] = 1  # a corner of it is enough
    regions = torch.from_numpy(grids)[None]
    right, wrong = torch.tensor([[20.0, -20.0, 0.0]]), torch.tensor([[-20.0, 20.0, 0.0]])
    assert presence_loss(right, regions).item() == pytest.approx(0.0, abs=1e-6)
    assert presence_loss(wrong, regions).item() == pytest.approx(40.0, abs=1e-3)  # two of them, 20 nats each


def test_what_a_picture_shows_reaches_the_tokens_and_is_trained_by_its_own_loss():
    model = regional(presence=True, presence_weight=0.5)
    head = model.module.image_encoder.presence_head
    assert regional().module.image_encoder.presence_head is None
    picture = torch.rand(1, 1, 32, 32)
    model.module.eval()
    before = model.module.image_encoder(picture)
    with torch.no_grad():
        head.classifier.bias[0] += 5.0
    assert not torch.equal(before, model.module.image_encoder(picture))
    batch = model.collate([query_with_regions()])
    batch["target"][:] = -100  # no answer is learned, only what is in the picture
    model.module.region_weight = 0.0
    model.module(batch).backward()
    assert head.classifier.bias.grad[0] != 0
    assert torch.equal(head.embedding.weight.grad, torch.zeros_like(head.embedding.weight))


def test_a_model_that_learns_regions_refuses_questions_without():
    with pytest.raises(ModelError, match="without them"):
        regional().collate([Query("q", "is it", "a", np.zeros((32, 32, 1), np.uint8), "no")])


def test_local_contrast_is_the_same_at_any_exposure_and_nothing_in_the_dark():
    pictures = torch.rand(2, 1, 80, 80)
    contrast = local_contrast(pictures)
    assert contrast.shape == pictures.shape
    darker = local_contrast(0.5 * pictures + 0.1)
    assert np.corrcoef(contrast.flatten(), darker.flatten())[0, 1] > 0.99
    assert (contrast.mean().abs(), contrast.std()) == (pytest.approx(0, abs=0.05), pytest.approx(0.85, abs=0.15))
    assert local_contrast(torch.full((1, 1, 32, 32), 0.3)).abs().max() < 1e-3


def test_a_faint_finding_stands_out_from_its_bright_surroundings():
    picture = torch.full((1, 1, 160, 160), 0.8)
    picture[..., 80:90, 80:90] += 0.05
    contrast = local_contrast(picture)
    assert contrast[..., 80:90, 80:90].min() > 0.5
    assert contrast[..., :40, :40].abs().max() < 0.01


def body(top=0.25, left=0.5, side=80):
    """A bright square of a third of the picture, above a thin line such as a table makes."""
    picture = torch.zeros(1, 1, side, side)
    y, x, size = round(top * side), round(left * side), side // 3
    picture[..., y : y + size, x : x + size] = torch.linspace(0.3, 0.9, size)
    picture[..., -3, :] = 1.0
    return picture


def test_the_foreground_is_a_square_around_bright_areas_and_lines_do_not_count():
    frame = foreground_frame(body())
    half, _, x = frame[0, 0].tolist()
    assert half == pytest.approx(0.45)  # never less, so that small structures are not enlarged much
    assert x == pytest.approx(2 * (0.5 + 1 / 6) - 1, abs=0.03)
    assert frame[0, 1].tolist() == [0, pytest.approx(0.45), pytest.approx(2 * (0.25 + 1 / 6) - 1, abs=0.03)]
    cut = resample(body(), frame, (40, 40))
    assert (cut > 0.1).float().mean() == pytest.approx((1 / 3 / 0.45) ** 2, abs=0.05)


@pytest.mark.parametrize("picture", [torch.zeros(1, 1, 33, 33), torch.full((1, 1, 48, 48), 0.5)])
def test_a_picture_all_dark_or_all_bright_is_not_cropped(picture):
    assert foreground_frame(picture)[0].tolist() == [[1, 0, 0], [0, 1, 0]]


def test_regions_of_the_foreground_are_learned_and_returned_in_the_coordinates_of_the_picture():
    picture = body(side=64)
    frame = foreground_frame(picture)
    logits = torch.full((1, 3, 16, 16), -30.0)
    logits[0, 0] = 60.0 * (resample(picture, frame, (16, 16))[0, 0] > 0.1) - 30.0  # the bright square, in the frame
    regions = EncodedImages(torch.zeros(1), logits, frame).region_probabilities()
    bright = torch.nn.functional.adaptive_avg_pool2d((picture > 0.1).float(), 16)[0, 0]
    bright[-1] = 0  # the line lies outside
    assert (regions[0, 0] - bright).abs().mean() < 0.02
    assert regions[0, 1].max() < 1e-6
    grids = torch.zeros(1, 3, GRID, GRID, dtype=torch.uint8)
    grids[0, 0] = (torch.nn.functional.interpolate(picture, (GRID, GRID), mode="area")[0, 0] > 0.1) * FULL
    sharp = logits.clamp(-4, 4)
    assert region_loss(sharp, grids, frame) < 0.3 * region_loss(sharp, grids, None)
    transform = Augment(rotate=20, shift=0.1, scale=0.1, intensity=0).transforms(picture)
    rotated = resample(picture, transform, (64, 64))
    frame = foreground_frame(rotated)
    twice = resample(rotated, frame, (16, 16))
    once = resample(picture, compose_affine(transform, frame), (16, 16))
    assert (once - twice).abs().mean() < 0.1 * twice.mean()  # resampled twice it is a little softer


def test_a_model_of_the_foreground_answers_alike_wherever_the_body_is_and_attends_to_it(tmp_path):
    model = regional(picture=PictureSpec(64, "L", "stretch"), foreground=32, local_contrast=True)
    model.save(tmp_path)
    model = Compact.load(tmp_path, device=torch.device("cpu"))
    assert model.settings.foreground == 32
    assert model.module.image_encoder.cells == 8
    queries = [
        Query("q", "is it left", str(left), np.uint8(255 * body(0.25, left, 64)[0, 0, :, :, None].numpy()))
        for left in (0.125, 0.5)
    ]
    near, far = model.logits(queries)
    assert torch.allclose(near, far, atol=1e-3)
    maps = model.attention(queries)
    assert all(weights.sum() == pytest.approx(1, abs=1e-5) for weights in maps)
    columns = [float((weights.sum(0) * np.arange(8)).sum()) for weights in maps]
    assert columns[1] - columns[0] == pytest.approx(3, abs=0.6)  # 0.375 of eight columns


def test_a_foreground_larger_than_the_picture_is_refused():
    with pytest.raises(ModelError, match="foreground has 64 pixels a side and the picture 32"):
        compact(foreground=64)


def test_local_contrast_is_saved_and_a_bundle_without_the_key_still_answers(tmp_path):
    query = Query("q", "is it left", "a", query_with_regions().visual)
    for contrast in (True, False):
        model = compact(local_contrast=contrast)
        assert model.module.image_encoder.stem[0].in_channels == 1 + contrast
        model.save(tmp_path)
        if not contrast:
            settings = json.loads((tmp_path / "compact.json").read_text())
            del settings["local_contrast"]
            (tmp_path / "compact.json").write_text(json.dumps(settings))
        read = Compact.load(tmp_path, device=torch.device("cpu"))
        assert torch.equal(read.logits([query]), model.logits([query]))


def test_a_mirrored_batch_swaps_picture_words_answers_and_regions():
    model = regional(mirror=0.999999)
    batch = model.collate([query_with_regions(), query_with_regions("is it right", "no")])
    turned = model.module.mirror(batch)
    assert torch.equal(turned["pictures"], batch["pictures"].flip(2))
    assert turned["words"][0].tolist() == model.parser.encode("is it right", limit=8)
    assert turned["words"][1].tolist() == model.parser.encode("is it left", limit=8)
    assert turned["target"].tolist() == [model.answers.index("Right Lung"), model.answers.index("no")]
    assert torch.equal(turned["regions"][0, 1], batch["regions"][0, 0].flip(1))
    assert torch.equal(turned["regions"][0, 2], batch["regions"][0, 2].flip(1))


def test_an_answer_without_a_mirror_image_is_left_out_of_the_loss():
    model = compact(("is", "it"), ("Left Eye", "no"), mirror=0.999999)
    model.module.train()
    pixels = np.zeros((32, 32, 1), np.uint8)
    assert model.module(model.collate([Query("q", "is it", "a", pixels, "Left Eye")])).item() == 0.0
    assert model.module(model.collate([Query("q", "is it", "a", pixels, "no")])).item() > 0.0


def test_a_bundle_contains_what_the_model_needs_to_answer_and_to_abstain(tmp_path):
    model = regional(image_types=ImageTypes("is it?", {"no": ("mass",)}))
    model.save(tmp_path, quantize=True)
    assert (tmp_path / "weights.safetensors").stat().st_size < 2.5 * sum(
        p.numel() for p in model.module.parameters()
    ) + 9_000
    read = Compact.load(tmp_path, device=torch.device("cpu"))
    query = Query("q", "is it left", "a", query_with_regions().visual)
    assert read.answer([query], Decoding())[0].confidence == pytest.approx(
        model.answer([query], Decoding())[0].confidence, abs=5e-3
    )
    assert read.settings.image_types.question == "is it?"
    assert read.settings.image_types.is_unfamiliar("left lung", "no")


# --- abstention and attention maps


def confident(model, answer):
    """The same answer to everything."""
    model.module.head[-1].bias.data[model.answers.index(answer)] = 50.0
    return model


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("is it left", None),
        ("Is it leftt", None),
        ("is it purple", "the word 'purple'"),
        ("где это", "one that it reads: English."),
        ("is left lung it", "no training picture like it shows the left lung"),
        ("is mass it", None),
        ("is there a mass", None),
        ("is there left lung", None),
        ("is there mass in left lung", "no training picture like it shows the left lung"),
    ],
)
def test_it_abstains_on_unknown_words_scripts_and_entities_unfamiliar_in_the_image_type(question, reason):
    words, answers = ("is", "it", "left", "lung", "mass"), ("Head", "no")
    image_types = ImageTypes("is it", {"head": ("mass",)})
    model = compact(words, answers, regions=("mask: Left Lung", "box: Mass"), image_types=image_types)
    query = Query("q", question, "a", query_with_regions().visual)
    confident(model, "Head")
    abstention = model.abstention_reason(query, model.answer([query], Decoding())[0])
    assert (abstention is None) if reason is None else (reason in (abstention or ""))


@pytest.mark.parametrize(("answer", "abstains"), [("yes", True), ("no", False)])
def test_an_organ_unfamiliar_in_the_image_type_may_be_absent_and_not_present(answer, abstains):
    image_types = ImageTypes("which part", {"yes": ("mass",), "no": ("mass",)})
    model = compact(
        ("is", "there", "left", "lung"), ("yes", "no"), regions=("mask: Left Lung",), image_types=image_types
    )
    query = Query("q", "is there left lung", "a", query_with_regions().visual)
    reason = confident(model, answer).abstention_reason(query, model.answer([query], Decoding())[0])
    assert ("no training picture like it shows the left lung" in (reason or "")) is abstains


def test_an_attention_map_sums_to_one_and_follows_the_picture():
    model = compact()
    first, second = model.attention_maps(
        [
            Query("q", "is it", "a", query_with_regions().visual),
            Query("r", "is it", "b", query_with_regions().visual[:, ::-1]),
        ]
    )
    assert first.shape == (8, 8)
    assert first.dtype == np.float32
    assert first.min() >= 0
    assert first.sum() == pytest.approx(1.0, abs=1e-5)
    assert not np.allclose(first, second)
    assert model.attention_maps([]) == []


def test_attention_maps_encode_every_image_once(monkeypatch):
    batch_sizes = []
    encode = CompactVision.encode

    def counted(self, pictures):
        batch_sizes.append(len(pictures))
        return encode(self, pictures)

    monkeypatch.setattr(CompactVision, "encode", counted)
    regional().attention_maps([Query(str(n), "is left lung it", "a", query_with_regions().visual) for n in range(3)])
    assert sum(batch_sizes) == 1


def test_the_map_of_a_localized_entity_is_its_localization():
    model = confident(regional(), "no")
    head = model.module.image_encoder.region_head
    for layer in (head.classifier, head.embedding):
        torch.nn.init.zeros_(layer.weight)
    head.classifier.bias.data = torch.tensor([-9.0, 0.0, 9.0])
    left, nothing = model.attention_maps(
        [Query("q", f"is {word} it", "a", query_with_regions().visual) for word in ("left lung", "it")]
    )
    assert left.shape == (16, 16)  # the grid of regions is twice as fine as that of tokens
    assert np.allclose(left, 1 / 256, atol=1e-4)
    assert nothing.shape == (8, 8)
    features = model.vision.encode([query_with_regions().visual])[0]
    from_features = model.attention_maps([Query("q", "is left lung it", "a", features)])[0]
    assert np.allclose(from_features, left, atol=1e-4)
    assert np.allclose(model.attention_maps([Query("q", "左肺有异常吗?", "a", features)])[0], left, atol=1e-4)


def test_what_a_question_or_its_answer_names_is_localized_outlines_before_boxes():
    regions = ("box: Left Lung", "box: Mass", "mask: Left Lung", "mask: Right Lung", "mask: Left Lung Mass")
    model = compact(("is", "there", "it"), ("Left Lung", "no", "Lung"), regions=regions)
    visual = query_with_regions().visual

    def localized(question, answer):
        query = Query("q", question, "a", visual)
        return [(item.name, item.learned_from) for item in model.localizations(query, Prediction("q", answer))]

    left = [("Left Lung", "mask"), ("Left Lung", "box")]
    assert localized("is left lung it", "no") == left
    assert localized("is it", "Left Lung") == left
    assert localized("左肺有异常吗?", "no") == []  # the answer may deny it
    assert localized("左肺在哪里?", "it") == left
    assert localized("is there a mass", "yes") == [("Left Lung Mass", "mask"), ("Mass", "box")]
    assert localized("is there a mass", "No") == []
    assert localized("is it", "it") == []
    assert localized("which lung is it", "it")[:2] == [("Left Lung", "mask"), ("Right Lung", "mask")]
    (item, _) = model.localizations(Query("q", "is left lung it", "a", visual), Prediction("q", "no"))
    assert item.probability.shape == (16, 16)
    assert model.localizations(
        Query("q", "is left lung it", "a", model.vision.encode([visual])[0]), Prediction("q", "")
    )
    assert compact().localizations(Query("q", "is it left", "a", visual), Prediction("q", "yes")) == []


def test_training_questions_are_reworded_and_others_never(monkeypatch):
    model = compact(reword=0.999999)
    monkeypatch.setattr("medical_vqa.models.compact.model.reword", lambda question, pick: "left")
    pixels = np.zeros((32, 32, 1), np.uint8)
    assert model.collate([Query("q", "is it", "a", pixels, "yes")])["words"].tolist() == [[4]]
    assert model.encode_words(["is it"]).tolist() == [[2, 3]]
