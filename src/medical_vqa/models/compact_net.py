"""The compact network: a convolutional image encoder, a question encoder, and attention from question to image.

Shapes: B images, N questions about them, L words, T image tokens, D channels. The images of a batch pass the
encoder once however many questions ask about them: `image_of` says which image each question belongs to.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medical_vqa.models.augment import Augment


def to_unit(pictures: Tensor) -> Tensor:
    """uint8 (B, H, W, C) -> float (B, C, H, W) in [0, 1], channels last in memory, as CPU convolutions like it."""
    return pictures.permute(0, 3, 1, 2).float() / 255.0


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation around a shortcut; halves height and width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, ceil_mode=True),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, ceil(H/2), ceil(W/2))."""
        y = F.relu(self.first_norm(self.first(x)))
        changed: Tensor = self.second_norm(self.second(y))
        return F.relu(changed + self.shortcut(x))


class ImageEncoder(nn.Module):
    """Greyscale picture -> T tokens, one for each cell of a coarse grid, each knowing where it lies."""

    def __init__(self, side: int, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        stem, *deeper = channels
        self.stem = nn.Sequential(
            nn.Conv2d(1, stem, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(stem), nn.ReLU()
        )
        self.blocks = nn.Sequential(*(ResidualBlock(a, b) for a, b in zip(channels, deeper, strict=False)))
        self.project = nn.Conv2d(channels[-1], width, 1)
        self.cells = -(-side // 2 ** len(channels))
        self.position = nn.Parameter(torch.randn(self.cells**2, width) * 0.02)
        self.norm = nn.LayerNorm(width)

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 1, side, side) in [0, 1] -> (B, T, D)."""
        x = (pictures - 0.25) * 4.0  # radiographs and slices are mostly dark: mean near 0.25, deviation near 0.25
        x = self.project(self.blocks(self.stem(x)))
        tokens: Tensor = self.norm(x.flatten(2).transpose(1, 2) + self.position)
        return tokens


class Attention(nn.Module):
    """Multi-head attention whose keys and values are computed once and may serve many queries."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """(R, S, D) attends to (R, T, D); `mask` (R, 1, 1, T) is True where a key may be seen."""
        query, key, value = (
            self._split(layer(t)) for layer, t in ((self.query, x), (self.key, memory), (self.value, memory))
        )
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)  # (R, heads, length, D / heads)


class Layer(nn.Module):
    """Words look at each other, then at the image, then pass a feed-forward net; normalised before each."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.words = Attention(width, heads, dropout)
        self.image = Attention(width, heads, dropout)
        self.feed = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, tokens: Tensor, place: Place) -> Tensor:
        """x (N, L, D), mask (N, L), tokens (B, T, D) -> (N, L, D)."""
        y = self.norms[0](x)
        x = x + self.drop(self.words(y, y, mask[:, None, None, :]))
        x = x + self.drop(place.gather(self.image(place.scatter(self.norms[1](x)), tokens)))
        fed: Tensor = x + self.drop(self.feed(self.norms[2](x)))
        return fed


class Place:
    """Where each question lies among those of its image, so that all of them attend to it in one product."""

    def __init__(self, image_of: Tensor, images: int, length: int) -> None:
        """`image_of` (N,): the image of each question; `length`: words per question."""
        counts = torch.bincount(image_of, minlength=images)
        order = torch.argsort(image_of, stable=True)
        starts = counts.cumsum(0) - counts
        slot = torch.empty_like(order)
        slot[order] = torch.arange(len(order), device=order.device) - starts[image_of[order]]
        self.index = image_of * int(counts.max()) + slot  # (N,): row among images * most
        self.images, self.most, self.length = images, int(counts.max()), length

    def scatter(self, x: Tensor) -> Tensor:
        """(N, L, D) -> (B, most * L, D), zeros where an image has fewer questions."""
        rows = x.new_zeros(self.images * self.most, self.length, x.shape[-1])
        return rows.index_copy(0, self.index, x).view(self.images, self.most * self.length, -1)

    def gather(self, x: Tensor) -> Tensor:
        """(B, most * L, D) -> (N, L, D)."""
        return x.view(self.images * self.most, self.length, -1).index_select(0, self.index)


class QuestionEncoder(nn.Module):
    """Words -> contextual vectors, by a bidirectional recurrent net over the words as they stand."""

    def __init__(self, vocabulary: int, width: int, dropout: float) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width, padding_idx=0)
        self.drop = nn.Dropout(dropout)
        self.read = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)

    def forward(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """Words (N, L), 0 pads -> vectors (N, L, D), mask (N, L)."""
        mask = words != 0
        packed = nn.utils.rnn.pack_padded_sequence(
            self.drop(self.embed(words)), mask.sum(1).cpu(), batch_first=True, enforce_sorted=False
        )
        vectors, _ = nn.utils.rnn.pad_packed_sequence(
            self.read(packed)[0], batch_first=True, total_length=words.shape[1]
        )
        return vectors, mask


class CompactNet(nn.Module):
    """Picture and question -> one logit for each answer of the training split."""

    place: Callable[[Tensor, int, int], Place] = Place
    """How the questions of an image are brought together; an exported graph has a simpler one."""

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
        smoothing: float = 0.0,
        augment: Augment | None = None,
    ) -> None:
        super().__init__()
        self.smoothing, self.augment = smoothing, augment
        self.image = ImageEncoder(side, channels, width)
        self.question = QuestionEncoder(words, width, dropout)
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
        """Loss summed over the batch's questions: cross entropy with label smoothing, in nats."""
        pictures = to_unit(batch["pictures"])
        if self.training and self.augment is not None:
            pictures = self.augment(pictures)
        logits = self.logits(self.image(pictures), batch["image_of"], batch["words"])
        return F.cross_entropy(logits.float(), batch["target"], label_smoothing=self.smoothing, reduction="sum")

    def logits(self, tokens: Tensor, image_of: Tensor, words: Tensor) -> Tensor:
        """tokens (B, T, D), image_of (N,), words (N, L) -> (N, answers)."""
        x, mask = self.question(words)
        place = self.place(image_of, tokens.shape[0], words.shape[1])
        read = _mean(x, mask)
        for layer in self.layers:
            x = layer(x, mask, tokens, place)
        logits: Tensor = self.head(torch.cat([_mean(x, mask), read, tokens.mean(1)[image_of]], -1))
        return logits


def _mean(x: Tensor, mask: Tensor) -> Tensor:
    weight = mask.unsqueeze(-1).to(x.dtype)
    return (x * weight).sum(1) / weight.sum(1)
