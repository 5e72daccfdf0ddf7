"""The compact network: a convolutional image encoder, a question encoder, and attention from question to image.

Shapes: B images, N questions about them, L words in the longest, M words in all, T image tokens, D channels, R regions.
The images of a batch pass the encoder once however many questions ask about them, and so do the keys and values that
words attend to (`ImageMemory`): `image_of` says which image each question belongs to. Words are packed without padding,
(M, D), except where they attend.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medical_vqa.data.cache.regions import FULL, UNKNOWN
from medical_vqa.models.augment import IGNORED_CLASS, Augment, Mirror, resample
from medical_vqa.models.compact.settings import Sizes
from medical_vqa.models.compact.trunk import EfficientNetLite

ANSWER_LAYER = "head.5"
"""Name of the last layer, whose rows are the answers."""
_FOREGROUND_BRIGHTNESS = 0.08
"""Brightness, in [0, 1], above which a cell of the picture is foreground."""
_FOREGROUND_FRACTION = 0.12
"""Fraction of a row's or column's cells above which it belongs to the foreground's square."""
_FOREGROUND_MARGIN = 0.05
"""Added on both sides of the foreground, as a fraction of the picture's side."""
_MIN_FOREGROUND_SIDE = 0.45
"""Least side of the square, as a fraction of the picture's side, so that small structures are not enlarged much."""
_MIN_DEVIATION = 0.05
"""Added to the deviation of a window, so that noise in dark, even areas is not amplified."""


def to_unit_range(pictures: Tensor) -> Tensor:
    """uint8 (B, H, W, C) -> float (B, C, H, W) in [0, 1], in the memory format channels last, fast on a CPU."""
    return pictures.permute(0, 3, 1, 2).float() / 255.0


def local_contrast(pictures: Tensor) -> Tensor:
    """(B, 1, H, W) in [0, 1] -> each pixel's difference from its surroundings, in deviations: alike at any exposure."""
    size = (int(pictures.shape[-2]), int(pictures.shape[-1]))  # numbers, so that an exported graph has them fixed
    step = max(1, size[1] // 40)
    mean, square = (_window_mean(F.avg_pool2d(x, step, ceil_mode=True)) for x in (pictures, pictures**2))
    deviation = (square - mean**2).clamp(min=0).sqrt() + _MIN_DEVIATION
    mean, deviation = (F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in (mean, deviation))
    return (pictures - mean) / deviation


def _window_mean(x: Tensor) -> Tensor:
    """The mean over a square window, a fifth of the picture wide, without what is beyond the border."""
    half = int(x.shape[-1]) // 10
    return F.avg_pool2d(x, 2 * half + 1, 1, half, count_include_pad=False)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalization around a shortcut; halves height and width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, ceil_mode=True),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, ceil(H/2), ceil(W/2))."""
        y = F.relu(self.norm1(self.conv1(x)))
        changed: Tensor = self.norm2(self.conv2(y))
        return F.relu(changed + self.shortcut(x))


class ImageEncoder(nn.Module):
    """Grayscale picture -> T tokens, one for each cell of a coarse grid, with a position embedding.

    With `regions` it also localizes R organs and findings, on a grid twice as fine, and adds an embedding of them to
    the tokens; with `presence` it says of the whole picture as well which of them it shows. With `contrast` its input
    has the picture's local contrast as a second channel. With `foreground` its input is a square of that side, cut out
    around what is not dark.
    With `trunk` a pretrained one (`EfficientNetLite`) replaces the residual blocks; its three channels are the picture,
    its local contrast, and the picture again.
    """

    def __init__(
        self,
        side: int,
        channels: tuple[int, ...],
        width: int,
        regions: int = 0,
        *,
        contrast: bool = False,
        foreground: int | None = None,
        trunk: EfficientNetLite | None = None,
        region_stride: int = 8,
        presence: bool = False,
    ) -> None:
        super().__init__()
        self.contrast = contrast
        self.foreground = foreground
        if trunk is None:
            stem, *deeper = channels
            self.stem = nn.Sequential(
                nn.Conv2d(1 + contrast, stem, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(stem), nn.ReLU()
            )
            self.blocks = nn.Sequential(*(ResidualBlock(a, b) for a, b in zip(channels, deeper, strict=False)))
            fine_channels, coarse_channels, stride = channels[-2], channels[-1], 2 ** len(channels)
            finest_channels = None
        else:
            fine_channels, coarse_channels, stride = trunk.fine_channels, trunk.coarse_channels, trunk.fine_stride
            self.fine_projection = nn.Conv2d(fine_channels, width, 1)
            finest_channels = trunk.finest_channels if region_stride < stride else None
        self.trunk = trunk
        self.projection = nn.Conv2d(coarse_channels, width, 1)
        self.cells = -(-(foreground or side) // stride)
        self.position_embedding = nn.Parameter(torch.randn(self.cells**2, width) * 0.02)
        self.norm = nn.LayerNorm(width)
        self.region_head = (
            RegionHead(fine_channels, coarse_channels, width, regions, finest=finest_channels) if regions else None
        )
        self.presence_head = PresenceHead(width, regions) if regions and presence else None

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 1, side, side) in [0, 1] -> (B, T, D)."""
        return self.encode(pictures).tokens

    def encode(self, pictures: Tensor) -> EncodedImages:
        """Pictures (B, 1, side, side) in [0, 1] -> tokens, regions and frame."""
        frame = None
        if self.foreground is not None:
            frame = foreground_frame(pictures)
            pictures = resample(pictures, frame, (self.foreground, self.foreground))
        finest, fine, coarse = self._features(pictures)
        x = self.projection(coarse)
        if self.trunk is not None:
            x = self.fine_projection(fine) + _upsampled(x, fine)
        presence_logits = None
        if self.presence_head is not None:
            presence_logits = self.presence_head(x)
            x = x + self.presence_head.embed(presence_logits)
        region_logits = None
        if self.region_head is not None:
            region_logits = self.region_head(fine, coarse, finest)
            x = x + self.region_head.embed(region_logits, (self.cells, self.cells))
        tokens = self.norm(x.flatten(2).transpose(1, 2) + self.position_embedding)
        return EncodedImages(tokens, region_logits, frame, presence_logits)

    def _features(self, pictures: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        """(B, 1, side, side) in [0, 1] -> features at two or three scales, each half as fine as the one before."""
        x = (pictures - 0.25) * 4.0  # radiographs and slices are mostly dark: mean near 0.25, deviation near 0.25
        contrast = local_contrast(pictures) if self.contrast else None
        if self.trunk is not None:
            features: tuple[Tensor, Tensor, Tensor] = self.trunk(
                torch.cat([x, x if contrast is None else contrast, x], 1)
            )
            return features
        fine = self.blocks[:-1](self.stem(x if contrast is None else torch.cat([x, contrast], 1)))
        return None, fine, self.blocks[-1](fine)


class EncodedImages(NamedTuple):
    """Output of the image encoder."""

    tokens: Tensor
    """Image tokens (B, T, D)."""
    region_logits: Tensor | None
    """A logit for every region and fine cell of the frame (B, R, h, w); None where regions are not learned."""
    frame: Tensor | None
    """Affine maps (B, 2, 3) from the foreground's square to the picture; None where the input was the whole picture."""
    presence_logits: Tensor | None = None
    """A logit for every region, whether the picture shows it (B, R); None where that is not learned."""

    def region_probabilities(self) -> Tensor | None:
        """Probability of each region in each cell of the whole picture (B, R, h, w)."""
        if self.region_logits is None:
            return None
        if self.frame is None:
            return self.region_logits.sigmoid()
        half, shift = self.frame[:, :1, :1], self.frame[:, :, 2:]
        inverse = torch.cat([self.frame[:, :, :2] / half**2, -shift / half], 2)  # the linear part is half the identity
        size = (int(self.region_logits.shape[2]), int(self.region_logits.shape[3]))
        return resample(self.region_logits.sigmoid(), inverse, size)


class ImageMemory(NamedTuple):
    """What questions need of their images, computed once however many ask about one."""

    keys: Tensor
    """Keys of the image tokens in each layer (B, layers, heads, T, D / heads)."""
    values: Tensor
    """Values of the image tokens in each layer, of the same shape."""
    token_mean: Tensor
    """Mean of the image tokens (B, D)."""


def foreground_frame(pictures: Tensor) -> Tensor:
    """(B, 1, side, side) in [0, 1] -> affine maps (B, 2, 3) that cut out a square around what is not dark.

    Thin lines, such as the table under a patient, do not count: a cell is foreground where most cells around it are.
    """
    side = int(pictures.shape[-1])
    step = max(1, side // 40)
    brightness = F.avg_pool2d(pictures, step, ceil_mode=True, count_include_pad=False)[:, 0]
    bright = (brightness > _FOREGROUND_BRIGHTNESS).float()
    foreground = (F.avg_pool2d(bright.unsqueeze(1), 5, 1, 2, count_include_pad=False)[:, 0] > 0.5).float()
    left, right = _extent(foreground.mean(1) > _FOREGROUND_FRACTION, step / side)
    top, bottom = _extent(foreground.mean(2) > _FOREGROUND_FRACTION, step / side)
    half = (torch.maximum(right - left, bottom - top) + _FOREGROUND_MARGIN).clamp(_MIN_FOREGROUND_SIDE, 1.0)
    whole_picture = half > 0.99
    x, y = (torch.where(whole_picture, 0.0, start + end - 1.0) for start, end in ((left, right), (top, bottom)))
    zero = torch.zeros_like(half)
    return torch.stack([torch.stack([half, zero, x], -1), torch.stack([zero, half, y], -1)], 1)


def _extent(mask: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """Start of the first and end of the last true cell of each row (B, cells), as fractions of the side."""
    first, last = mask.float().argmax(1), mask.shape[1] - mask.flip(1).float().argmax(1)
    empty = ~mask.any(1)
    start = torch.where(empty, 0.0, first * step)
    return start, torch.where(empty, 1.0, (last * step).clamp(max=1.0))


class RegionHead(nn.Module):
    """Classifies each cell by features at two or three scales, and embeds the result for the image tokens."""

    def __init__(self, fine: int, coarse: int, width: int, regions: int, *, finest: int | None = None) -> None:
        super().__init__()
        self.finest = nn.Conv2d(finest, width // 2, 1) if finest else None
        self.fine = nn.Conv2d(fine, width // 2, 1)
        self.coarse = nn.Conv2d(coarse, width // 2, 1)
        self.classifier = nn.Conv2d(width // 2, regions, 1)
        self.embedding = nn.Conv2d(regions, width, 1)
        nn.init.constant_(self.classifier.bias, -4.0)  # type: ignore[arg-type]  # most cells contain no region

    def forward(self, fine: Tensor, coarse: Tensor, finest: Tensor | None = None) -> Tensor:
        """Features at two or three scales -> logits (B, R, H, W) at the finest one."""
        x = self.fine(fine) + _upsampled(self.coarse(coarse), fine)
        if self.finest is not None and finest is not None:
            x = self.finest(finest) + _upsampled(x, finest)
        logits: Tensor = self.classifier(F.relu(x))
        return logits

    def embed(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits (B, R, H, W) -> an embedding for each token (B, D, *size)."""
        embedded: Tensor = self.embedding(F.adaptive_avg_pool2d(logits.sigmoid(), size))
        return embedded


class PresenceHead(nn.Module):
    """Says of the whole picture which regions it shows, and embeds the result for the image tokens."""

    def __init__(self, width: int, regions: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(2 * width, regions)
        self.embedding = nn.Linear(regions, width)
        nn.init.constant_(self.classifier.bias, -2.0)  # most pictures show few of them

    def forward(self, x: Tensor) -> Tensor:
        """Features of the tokens (B, D, h, w) -> logits (B, R)."""
        x = F.relu(x).flatten(2)
        logits: Tensor = self.classifier(torch.cat([x.mean(2), x.amax(2)], 1))
        return logits

    def embed(self, logits: Tensor) -> Tensor:
        """Logits (B, R) -> an embedding for all tokens of a picture (B, D, 1, 1)."""
        embedded: Tensor = self.embedding(logits.sigmoid())
        return embedded[:, :, None, None]


def _upsampled(coarse: Tensor, fine: Tensor) -> Tensor:
    """`coarse` (B, C, h, w) at the height and width of `fine`."""
    height, width = (int(n) for n in fine.shape[-2:])  # numbers, so that an exported graph has them fixed
    return F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)


class Attention(nn.Module):
    """Multi-head attention between packed words and the words of their question, or the tokens of their image."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def over_words(self, x: Tensor, layout: WordLayout) -> Tensor:
        """(M, D): every word attends to the words of its own question."""
        rows = layout.by_question
        query, key, value = (self._heads(rows.unpack(layer(x))) for layer in (self.query, self.key, self.value))
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=layout.mask)
        return self._output(attended, rows)

    def keys_and_values(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Image tokens (B, T, D) -> what words compare with and what they receive, (B, heads, T, D / heads) each."""
        return self._heads(self.key(tokens)), self._heads(self.value(tokens))

    def over_tokens(self, x: Tensor, keys: Tensor, values: Tensor, layout: WordLayout) -> Tensor:
        """(M, D), keys and values (B, heads, T, D / heads): every word attends to the tokens of its image."""
        query = self._heads(layout.by_image.unpack(self.query(x)))
        return self._output(F.scaled_dot_product_attention(query, keys, values), layout.by_image)

    def token_weights(self, x: Tensor, keys: Tensor, layout: WordLayout) -> Tensor:
        """(M, D), keys (B, heads, T, D / heads) -> weight of each word on each token, mean over heads (M, T)."""
        query = self._heads(layout.by_image.unpack(self.query(x)))
        weights = (query @ keys.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)
        return layout.by_image.pack(weights.mean(1))

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)  # (B, heads, length, D / heads)

    def _output(self, attended: Tensor, rows: WordRows) -> Tensor:
        out: Tensor = self.out(rows.pack(attended.transpose(1, 2).flatten(2)))
        return out


class FusionLayer(nn.Module):
    """Words attend to each other, then to the image, then pass a feed-forward net; normalized before each."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.self_attention = Attention(width, heads)
        self.cross_attention = Attention(width, heads)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, layout: WordLayout) -> Tensor:
        """x (M, D), keys and values (B, heads, T, D / heads) -> (M, D)."""
        x = x + self.drop(self.self_attention.over_words(self.norms[0](x), layout))
        x = x + self.drop(self.cross_attention.over_tokens(self.norms[1](x), keys, values, layout))
        fed: Tensor = x + self.drop(self.feed_forward(self.norms[2](x)))
        return fed

    def attention(self, x: Tensor, keys: Tensor, layout: WordLayout) -> Tensor:
        """Attention weight of each word on each image token in this layer: (M, T)."""
        x = x + self.self_attention.over_words(self.norms[0](x), layout)
        return self.cross_attention.token_weights(self.norms[1](x), keys, layout)


class WordRows:
    """Unpacks words into rows of one length, zeros where a row has fewer words, and packs them again."""

    def __init__(self, index: Tensor, rows: int, length: int, *, full: bool = False) -> None:
        """Describe the rows.

        Args:
            index: The place of each word among ``rows * length``, (M,).
            rows: Number of rows.
            length: Words of the longest row.
            full: Whether all rows have the same length and the words are in their order: nothing is copied then.
        """
        self.index, self.rows, self.length, self.full = index, rows, length, full

    def unpack(self, x: Tensor) -> Tensor:
        """(M, D) -> (rows, length, D)."""
        if self.full:
            return x.view(self.rows, self.length, -1)
        unpacked = x.new_zeros(self.rows * self.length, x.shape[-1])
        return unpacked.index_copy(0, self.index, x).view(self.rows, self.length, -1)

    def pack(self, x: Tensor) -> Tensor:
        """(rows, length, D) -> (M, D)."""
        return x.flatten(0, 1) if self.full else x.flatten(0, 1).index_select(0, self.index)


class WordLayout:
    """Rows of words by question, and by image: all words that ask about an image attend to it in one product."""

    def __init__(self, mask: Tensor, image_of: Tensor, images: int) -> None:
        """`mask` (N, L): True where a question has a word; `image_of` (N,): the image of each question."""
        self.question = mask.nonzero()[:, 0]  # (M,): the question of each word
        self.words = mask.sum(1)  # (N,): the number of words of each question
        full = len(self.question) == mask.numel()
        self.mask = None if full else mask[:, None, None, :]  # (N, 1, 1, L)
        self.by_question = WordRows(mask.flatten().nonzero()[:, 0], *mask.shape, full=full)
        if images == 1:
            self.by_image = WordRows(self.question, 1, len(self.question), full=True)
            return
        image = image_of[self.question]
        counts = torch.bincount(image, minlength=images)
        order = torch.argsort(image, stable=True)
        slot = torch.empty_like(order)
        slot[order] = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[image[order]]
        most = int(counts.max())
        self.by_image = WordRows(image * most + slot, images, most)

    def mean(self, x: Tensor) -> Tensor:
        """(M, D) -> the mean over each question's words (N, D)."""
        sums = x.new_zeros(len(self.words), x.shape[-1]).index_add(0, self.question, x)
        return sums / self.words.unsqueeze(-1)


class QuestionEncoder(nn.Module):
    """Words -> contextual vectors, by a bidirectional recurrent net."""

    def __init__(self, vocabulary: int, width: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=0)
        self.drop = nn.Dropout(dropout)
        self.gru = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)

    def forward(self, words: Tensor) -> Tensor:
        """Words (N, L), 0 pads -> vectors of the words alone (M, D), question by question."""
        if len(words) == 1 and bool(words.all()):
            vectors: Tensor = self.gru(self.drop(self.embedding(words)))[0]
            return vectors[0]
        return self.padded(words)[words != 0]

    def padded(self, words: Tensor) -> Tensor:
        """Words (N, L), 0 pads -> vectors (N, L, D), zeros where there is no word."""
        mask = words != 0
        packed = nn.utils.rnn.pack_padded_sequence(
            self.drop(self.embedding(words)), mask.sum(1).cpu(), batch_first=True, enforce_sorted=False
        )
        vectors: Tensor = nn.utils.rnn.pad_packed_sequence(
            self.gru(packed)[0], batch_first=True, total_length=words.shape[1]
        )[0]
        return vectors


class CompactNet(nn.Module):
    """Picture and question -> one logit for each answer of the training split."""

    layout: Callable[[Tensor, Tensor, int], WordLayout] = WordLayout
    """Lays out the words; an exported graph replaces it by a simpler one."""

    def __init__(
        self,
        sizes: Sizes,
        *,
        side: int,
        words: int,
        answers: int,
        regions: int = 0,
        region_weight: float = 0.0,
        presence_weight: float = 0.0,
        presence: bool = False,
        region_stride: int = 8,
        contrast: bool = False,
        foreground: int | None = None,
        trunk: EfficientNetLite | None = None,
        smoothing: float = 0.0,
        augment: Augment | None = None,
        mirror: Mirror | None = None,
    ) -> None:
        """Create a network with random weights.

        Args:
            sizes: Sizes of the layers.
            side: Side of the pictures, pixels.
            words: Size of the word vocabulary.
            answers: Number of answers.
            regions: Number of regions that are localized.
            region_weight: Weight of the loss on regions, relative to that on answers.
            presence_weight: Weight of the loss on which regions a picture shows.
            presence: Whether it says of the whole picture which regions it shows.
            region_stride: Pixels per cell of the regions on a pretrained trunk, 8 or 16.
            contrast: Whether the input has the local contrast as a second channel.
            foreground: Side of the square around the foreground that is the input; None for the whole picture.
            trunk: Pretrained trunk in place of the residual blocks.
            smoothing: Label smoothing.
            augment: Random changes of training pictures.
            mirror: Mirrors some training pictures.
        """
        super().__init__()
        self.smoothing = smoothing
        self.region_weight = region_weight
        self.presence_weight = presence_weight
        self.augment = augment
        self.mirror = mirror
        width, dropout = sizes.width, sizes.dropout
        self.image_encoder = ImageEncoder(
            side,
            sizes.channels,
            width,
            regions,
            contrast=contrast,
            foreground=foreground,
            trunk=trunk,
            region_stride=region_stride,
            presence=presence,
        )
        self.question_encoder = QuestionEncoder(words, width, dropout)
        self.layers = nn.ModuleList(FusionLayer(width, sizes.heads, dropout) for _ in range(sizes.layers))
        self.head = nn.Sequential(
            nn.LayerNorm(3 * width),
            nn.Dropout(dropout),
            nn.Linear(3 * width, 2 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, answers),
        )

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Loss summed over the batch's questions: cross entropy with label smoothing, in nats, and that of regions."""
        if self.training and self.mirror is not None:
            batch = self.mirror(batch)
        pictures, transforms = to_unit_range(batch["pictures"]), None
        if self.training and self.augment is not None:
            transforms = self.augment.transforms(pictures)
            pictures = self.augment(pictures, transforms)
        encoded = self.image_encoder.encode(pictures)
        logits = self.logits(self.memory(encoded.tokens), batch["image_of"], batch["words"])
        loss = F.cross_entropy(
            logits.float(), batch["target"], label_smoothing=self.smoothing, reduction="sum", ignore_index=IGNORED_CLASS
        )
        if encoded.region_logits is None or "regions" not in batch:
            return loss
        frame = compose_affine(transforms, encoded.frame)
        region_term = region_loss(encoded.region_logits.float(), batch["regions"], frame)
        loss = loss + self.region_weight * len(logits) * region_term
        if encoded.presence_logits is not None:
            presence_term = presence_loss(encoded.presence_logits.float(), batch["regions"])
            loss = loss + self.presence_weight * len(logits) * presence_term
        return loss

    def memory(self, tokens: Tensor) -> ImageMemory:
        """Image tokens (B, T, D) -> what questions about the images need of them."""
        projected = [layer.cross_attention.keys_and_values(tokens) for layer in self.layers]  # type: ignore[operator, union-attr]
        keys, values = (torch.stack(parts, 1) for parts in zip(*projected, strict=True))
        return ImageMemory(keys, values, tokens.mean(1))

    def logits(self, memory: ImageMemory, image_of: Tensor, words: Tensor) -> Tensor:
        """Memory of B images, image_of (N,), words (N, L) -> (N, answers)."""
        x, layout = self.question_encoder(words), self.layout(words != 0, image_of, len(memory.token_mean))
        question = layout.mean(x)
        for number, layer in enumerate(self.layers):
            x = layer(x, memory.keys[:, number], memory.values[:, number], layout)
        logits: Tensor = self.head(torch.cat([layout.mean(x), question, memory.token_mean[image_of]], -1))
        return logits

    def attention(self, memory: ImageMemory, image_of: Tensor, words: Tensor) -> Tensor:
        """Attention weight of each question on each image token, in the last layer, mean over words: (N, T)."""
        x, layout = self.question_encoder(words), self.layout(words != 0, image_of, len(memory.token_mean))
        *earlier, last = self.layers
        for number, layer in enumerate(earlier):
            x = layer(x, memory.keys[:, number], memory.values[:, number], layout)
        return layout.mean(last.attention(x, memory.keys[:, -1], layout))  # type: ignore[operator]


def image_features(network: CompactNet, encoded: EncodedImages) -> dict[str, Tensor]:
    """What is stored of each image: its memory, the deviation of its tokens (B, D), and where known regions and frame.

    Args:
        network: The network that encoded the images.
        encoded: The output of its image encoder.
    """
    memory = network.memory(encoded.tokens)
    deviation = (encoded.tokens - memory.token_mean.unsqueeze(1)).square().mean(1).sqrt()
    features = {**memory._asdict(), "token_deviation": deviation}
    if (regions := encoded.region_probabilities()) is not None:
        features["regions"] = regions.half()  # a server stores them for every image
    if encoded.frame is not None:
        features["frame"] = encoded.frame
    return features


def compose_affine(outer: Tensor | None, inner: Tensor | None) -> Tensor | None:
    """One affine map for two (B, 2, 3): `outer` applied to the result of `inner`; None stands for the identity."""
    if outer is None or inner is None:
        return inner if outer is None else outer
    linear = outer[:, :, :2]
    return torch.cat([linear @ inner[:, :, :2], linear @ inner[:, :, 2:] + outer[:, :, 2:]], 2)


def region_loss(logits: Tensor, regions: Tensor, transforms: Tensor | None) -> Tensor:
    """Binary cross entropy of localized regions, summed over the regions known of an image, mean over cells and images.

    Args:
        logits: Logits (B, R, H, W).
        regions: Targets as `data.cache.regions` stores them, uint8 (B, R, h, w).
        transforms: Affine maps (B, 2, 3) by which the pictures were resampled; None where they were not.
    """
    known = (regions[:, :, :1, :1] != UNKNOWN).float()
    targets = regions.float() / FULL * known
    size = (logits.shape[2], logits.shape[3])
    targets = F.adaptive_avg_pool2d(targets, size) if transforms is None else resample(targets, transforms, size)
    each = F.binary_cross_entropy_with_logits(logits, targets.clamp(0, 1), reduction="none") * known
    return each.sum(1).mean()


def presence_loss(logits: Tensor, regions: Tensor) -> Tensor:
    """Binary cross entropy of which regions pictures show, summed over those known of an image, mean over images.

    Args:
        logits: Logits (B, R).
        regions: Targets as `data.cache.regions` stores them, uint8 (B, R, h, w).
    """
    known = (regions[:, :, 0, 0] != UNKNOWN).float()
    visible = (regions.amax((2, 3)) > 0).float() * known
    each = F.binary_cross_entropy_with_logits(logits, visible, reduction="none") * known
    return each.sum(1).mean()
