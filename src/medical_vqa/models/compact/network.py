"""The compact network: a convolutional image encoder, a question encoder, and attention from question to image.

Shapes: B images, N questions about them, L words in the longest, M words in all, T image tokens, D channels, R kinds of
region. The images of a batch pass the encoder once however many questions ask about them: `image_of` says which image
each question belongs to. Words travel without padding, (M, D), except where they attend.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medical_vqa.data.cache.regions import FULL, UNKNOWN
from medical_vqa.models.augment import UNSAID, Augment, Mirror, moved

_LIT, _ENOUGH = 0.08, 0.12  # a cell that is not dark; the share of a row or column that has to be lit
_MARGIN, _SMALLEST = 0.05, 0.45  # around the foreground; the least of the side that is cut out
_DARK = 0.05  # deviation below which a window is as good as even: noise in the dark is not raised


def to_unit(pictures: Tensor) -> Tensor:
    """uint8 (B, H, W, C) -> float (B, C, H, W) in [0, 1], channels last in memory, as CPU convolutions like it."""
    return pictures.permute(0, 3, 1, 2).float() / 255.0


def local_contrast(pictures: Tensor) -> Tensor:
    """(B, 1, H, W) in [0, 1] -> each pixel against what lies around it, in deviations: the same at any exposure."""
    size = (int(pictures.shape[-2]), int(pictures.shape[-1]))  # numbers, so that an exported graph has them fixed
    step = max(1, size[1] // 40)
    mean, square = (_around(F.avg_pool2d(x, step, ceil_mode=True)) for x in (pictures, pictures**2))
    spread = (square - mean**2).clamp(min=0).sqrt() + _DARK
    mean, spread = (F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in (mean, spread))
    return (pictures - mean) / spread


def _around(x: Tensor) -> Tensor:
    """The mean over a square window, a fifth of the picture wide; beyond the border lies nothing."""
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
    """Grayscale picture -> T tokens, one for each cell of a coarse grid, each knowing where it lies.

    With `regions` it also says, cell by cell on a grid twice as fine, which of R organs and findings lie there, and
    every token carries what was said about its cells. With `contrast` it sees the picture's local contrast as well.
    With `foreground` it sees a square of that side, cut out around what is not dark.
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
    ) -> None:
        super().__init__()
        stem, *deeper = channels
        self.contrast, self.foreground = contrast, foreground
        self.stem = nn.Sequential(
            nn.Conv2d(1 + contrast, stem, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(stem), nn.ReLU()
        )
        self.blocks = nn.Sequential(*(ResidualBlock(a, b) for a, b in zip(channels, deeper, strict=False)))
        self.projection = nn.Conv2d(channels[-1], width, 1)
        self.cells = -(-(foreground or side) // 2 ** len(channels))
        self.position_embedding = nn.Parameter(torch.randn(self.cells**2, width) * 0.02)
        self.norm = nn.LayerNorm(width)
        self.region_head = RegionHead(channels[-2], channels[-1], width, regions) if regions else None

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 1, side, side) in [0, 1] -> (B, T, D)."""
        return self.see(pictures).tokens

    def see(self, pictures: Tensor) -> Seen:
        """What is in pictures (B, 1, side, side) in [0, 1]."""
        frame = None
        if self.foreground is not None:
            frame = foreground_of(pictures)
            pictures = moved(pictures, frame, (self.foreground, self.foreground))
        x = (pictures - 0.25) * 4.0  # radiographs and slices are mostly dark: mean near 0.25, deviation near 0.25
        if self.contrast:
            x = torch.cat([x, local_contrast(pictures)], 1)
        fine = self.blocks[:-1](self.stem(x))
        coarse = self.blocks[-1](fine)
        x, found = self.projection(coarse), None
        if self.region_head is not None:
            found = self.region_head(fine, coarse)
            x = x + self.region_head.tell(found, (self.cells, self.cells))
        return Seen(self.norm(x.flatten(2).transpose(1, 2) + self.position_embedding), found, frame)


class Seen(NamedTuple):
    """What an image encoder makes of pictures."""

    tokens: Tensor
    """(B, T, D)."""
    regions: Tensor | None
    """A logit for every kind of region and fine cell (B, R, h, w), in the frame; None where regions are not learned."""
    frame: Tensor | None
    """Affine maps (B, 2, 3) from the square that was seen to the picture; None where all of it was."""

    def found(self) -> Tensor | None:
        """The share of each kind of region in each cell of the whole picture (B, R, h, w), in [0, 1]."""
        if self.regions is None or self.frame is None:
            return None if self.regions is None else self.regions.sigmoid()
        half, shift = self.frame[:, :1, :1], self.frame[:, :, 2:]
        back = torch.cat([self.frame[:, :, :2] / half**2, -shift / half], 2)  # its linear part is half the identity
        return moved(self.regions.sigmoid(), back, (int(self.regions.shape[2]), int(self.regions.shape[3])))


def foreground_of(pictures: Tensor) -> Tensor:
    """(B, 1, side, side) in [0, 1] -> affine maps (B, 2, 3) that cut out a square around what is not dark.

    Thin lines, such as the table under a patient, do not count: a cell is lit where most cells around it are.
    """
    side = int(pictures.shape[-1])
    step = max(1, side // 40)
    lit = (F.avg_pool2d(pictures, step, ceil_mode=True, count_include_pad=False)[:, 0] > _LIT).float()
    lit = (F.avg_pool2d(lit.unsqueeze(1), 5, 1, 2, count_include_pad=False)[:, 0] > 0.5).float()
    left, right = _ends(lit.mean(1) > _ENOUGH, step / side)
    top, bottom = _ends(lit.mean(2) > _ENOUGH, step / side)
    half = (torch.maximum(right - left, bottom - top) + _MARGIN).clamp(_SMALLEST, 1.0)
    whole = half > 0.99
    x, y = (torch.where(whole, 0.0, first + last - 1.0) for first, last in ((left, right), (top, bottom)))
    zero = torch.zeros_like(half)
    return torch.stack([torch.stack([half, zero, x], -1), torch.stack([zero, half, y], -1)], 1)


def _ends(on: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """Where the first cell of each row (B, cells) that is on begins and the last one ends, as shares of the side."""
    first, last = on.float().argmax(1), on.shape[1] - on.flip(1).float().argmax(1)
    none = ~on.any(1)
    begin = torch.where(none, 0.0, first * step)
    return begin, torch.where(none, 1.0, (last * step).clamp(max=1.0))


class RegionHead(nn.Module):
    """What lies in each cell, from features at two scales; and what of it the image tokens get to know."""

    def __init__(self, fine: int, coarse: int, width: int, regions: int) -> None:
        super().__init__()
        self.fine = nn.Conv2d(fine, width // 2, 1)
        self.coarse = nn.Conv2d(coarse, width // 2, 1)
        self.classifier = nn.Conv2d(width // 2, regions, 1)
        self.embedding = nn.Conv2d(regions, width, 1)
        nn.init.constant_(self.classifier.bias, -4.0)  # type: ignore[arg-type]  # most cells hold none of them

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Features at two scales -> logits (B, R, H, W) at the finer one."""
        height, width = (int(n) for n in fine.shape[-2:])  # numbers, so that an exported graph has them fixed
        raised = F.interpolate(self.coarse(coarse), size=(height, width), mode="bilinear", align_corners=False)
        logits: Tensor = self.classifier(F.relu(self.fine(fine) + raised))
        return logits

    def tell(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits (B, R, H, W) -> what they add to the tokens' channels (B, D, *size)."""
        embedded: Tensor = self.embedding(F.adaptive_avg_pool2d(logits.sigmoid(), size))
        return embedded


class Attention(nn.Module):
    """Multi-head attention between packed words and the words of their question, or the tokens of their image."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def among(self, x: Tensor, place: Place) -> Tensor:
        """(M, D): every word attends to the words of its own question."""
        rows = place.own
        query, key, value = (self._split(rows.scatter(layer(x))) for layer in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=place.mask)
        return self._gathered(mixed, rows)

    def towards(self, x: Tensor, tokens: Tensor, place: Place) -> Tensor:
        """(M, D), tokens (B, T, D): every word attends to the tokens of its image."""
        query = self._split(place.image.scatter(self.query(x)))
        mixed = F.scaled_dot_product_attention(query, self._split(self.key(tokens)), self._split(self.value(tokens)))
        return self._gathered(mixed, place.image)

    def weights(self, x: Tensor, tokens: Tensor, place: Place) -> Tensor:
        """(M, D), tokens (B, T, D) -> how much each word attends to each token, mean over heads (M, T)."""
        query, key = self._split(place.image.scatter(self.query(x))), self._split(self.key(tokens))
        shares = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)
        return place.image.gather(shares.mean(1))

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)  # (B, heads, length, D / heads)

    def _gathered(self, mixed: Tensor, rows: Rows) -> Tensor:
        out: Tensor = self.out(rows.gather(mixed.transpose(1, 2).flatten(2)))
        return out


class Layer(nn.Module):
    """Words look at each other, then at the image, then pass a feed-forward net; normalized before each."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.self_attention = Attention(width, heads)
        self.cross_attention = Attention(width, heads)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, tokens: Tensor, place: Place) -> Tensor:
        """x (M, D), tokens (B, T, D) -> (M, D)."""
        x = x + self.drop(self.self_attention.among(self.norms[0](x), place))
        x = x + self.drop(self.cross_attention.towards(self.norms[1](x), tokens, place))
        fed: Tensor = x + self.drop(self.feed_forward(self.norms[2](x)))
        return fed

    def attention(self, x: Tensor, tokens: Tensor, place: Place) -> Tensor:
        """How much each word looks at each image token in this layer: (M, T)."""
        x = x + self.self_attention.among(self.norms[0](x), place)
        return self.cross_attention.weights(self.norms[1](x), tokens, place)


class Rows:
    """Packed words laid out in rows of one length, zeros where a row has no more of them."""

    def __init__(self, index: Tensor, rows: int, length: int) -> None:
        """`index` (M,): the place of each word among ``rows * length``."""
        self.index, self.rows, self.length = index, rows, length

    def scatter(self, x: Tensor) -> Tensor:
        """(M, D) -> (rows, length, D)."""
        places = x.new_zeros(self.rows * self.length, x.shape[-1])
        return places.index_copy(0, self.index, x).view(self.rows, self.length, -1)

    def gather(self, x: Tensor) -> Tensor:
        """(rows, length, D) -> (M, D)."""
        return x.flatten(0, 1).index_select(0, self.index)


class Place:
    """Where each word lies: in its question, and among those that ask about its image, which attend in one product."""

    def __init__(self, mask: Tensor, image_of: Tensor, images: int) -> None:
        """`mask` (N, L): True where a question has a word; `image_of` (N,): the image of each question."""
        self.question = mask.nonzero()[:, 0]  # (M,): the question of each word
        self.words = mask.sum(1)  # (N,)
        self.mask = mask[:, None, None, :]  # (N, 1, 1, L)
        self.own = Rows(mask.flatten().nonzero()[:, 0], *mask.shape)
        image = image_of[self.question]
        counts = torch.bincount(image, minlength=images)
        order = torch.argsort(image, stable=True)
        slot = torch.empty_like(order)
        slot[order] = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[image[order]]
        most = int(counts.max())
        self.image = Rows(image * most + slot, images, most)

    def mean(self, x: Tensor) -> Tensor:
        """(M, D) -> the mean over each question's words (N, D)."""
        sums = x.new_zeros(len(self.words), x.shape[-1]).index_add(0, self.question, x)
        return sums / self.words.unsqueeze(-1)


class QuestionEncoder(nn.Module):
    """Words -> contextual vectors, by a bidirectional recurrent net over the words as they stand."""

    def __init__(self, vocabulary: int, width: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=0)
        self.drop = nn.Dropout(dropout)
        self.gru = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)

    def forward(self, words: Tensor) -> Tensor:
        """Words (N, L), 0 pads -> vectors of the words alone (M, D), question by question."""
        mask = words != 0
        packed = nn.utils.rnn.pack_padded_sequence(
            self.drop(self.embedding(words)), mask.sum(1).cpu(), batch_first=True, enforce_sorted=False
        )
        vectors, _ = nn.utils.rnn.pad_packed_sequence(
            self.gru(packed)[0], batch_first=True, total_length=words.shape[1]
        )
        return vectors[mask]


class CompactNet(nn.Module):
    """Picture and question -> one logit for each answer of the training split."""

    place: Callable[[Tensor, Tensor, int], Place] = Place
    """How the words that ask about an image are brought together; an exported graph has a simpler one."""

    def __init__(
        self,
        *,
        side: int,
        channels: tuple[int, ...],
        width: int,
        heads: int,
        layers: int,
        dropout: float,
        words: int,
        answers: int,
        regions: int = 0,
        region_weight: float = 0.0,
        contrast: bool = False,
        foreground: int | None = None,
        smoothing: float = 0.0,
        augment: Augment | None = None,
        mirror: Mirror | None = None,
    ) -> None:
        super().__init__()
        self.smoothing, self.region_weight, self.augment, self.mirror = smoothing, region_weight, augment, mirror
        self.image_encoder = ImageEncoder(side, channels, width, regions, contrast=contrast, foreground=foreground)
        self.question_encoder = QuestionEncoder(words, width, dropout)
        self.layers = nn.ModuleList(Layer(width, heads, dropout) for _ in range(layers))
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
        pictures, transforms = to_unit(batch["pictures"]), None
        if self.training and self.augment is not None:
            transforms = self.augment.transforms(pictures)
            pictures = self.augment(pictures, transforms)
        seen = self.image_encoder.see(pictures)
        logits = self.logits(seen.tokens, batch["image_of"], batch["words"])
        loss = F.cross_entropy(
            logits.float(), batch["target"], label_smoothing=self.smoothing, reduction="sum", ignore_index=UNSAID
        )
        if seen.regions is None or "regions" not in batch:
            return loss
        found, placed = seen.regions.float(), chained(transforms, seen.frame)
        return loss + self.region_weight * len(logits) * region_loss(found, batch["regions"], placed)

    def logits(self, tokens: Tensor, image_of: Tensor, words: Tensor) -> Tensor:
        """tokens (B, T, D), image_of (N,), words (N, L) -> (N, answers)."""
        x, place = self.question_encoder(words), self.place(words != 0, image_of, tokens.shape[0])
        read = place.mean(x)
        for layer in self.layers:
            x = layer(x, tokens, place)
        logits: Tensor = self.head(torch.cat([place.mean(x), read, tokens.mean(1)[image_of]], -1))
        return logits

    def attention(self, tokens: Tensor, image_of: Tensor, words: Tensor) -> Tensor:
        """How much each question looks at each image token, in the last layer and as a mean over words: (N, T)."""
        x, place = self.question_encoder(words), self.place(words != 0, image_of, tokens.shape[0])
        shares = x.new_zeros(len(x), tokens.shape[1])
        for layer in self.layers:
            shares = layer.attention(x, tokens, place)  # type: ignore[operator]
            x = layer(x, tokens, place)
        return place.mean(shares)


def chained(outer: Tensor | None, inner: Tensor | None) -> Tensor | None:
    """One affine map for two (B, 2, 3): what `inner` leads to, led on by `outer`; None stands for no change."""
    if outer is None or inner is None:
        return inner if outer is None else outer
    linear = outer[:, :, :2]
    return torch.cat([linear @ inner[:, :, :2], linear @ inner[:, :, 2:] + outer[:, :, 2:]], 2)


def region_loss(found: Tensor, regions: Tensor, transforms: Tensor | None) -> Tensor:
    """Binary cross entropy of logits (B, R, H, W) against `data.regions` (B, R, h, w) moved as the pictures were.

    Summed over the kinds of region that are known of an image, mean over cells and images.
    """
    known = (regions[:, :, :1, :1] != UNKNOWN).float()
    shares = regions.float() / FULL * known
    if transforms is None:
        wanted = F.adaptive_avg_pool2d(shares, (found.shape[2], found.shape[3]))
    else:
        wanted = moved(shares, transforms, found.shape[-2:])
    each = F.binary_cross_entropy_with_logits(found, wanted.clamp(0, 1), reduction="none") * known
    return each.sum(1).mean()
