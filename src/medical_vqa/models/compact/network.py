"""The compact network: an image encoder, a question encoder, and attention from question to image.

Shapes: B images, N questions about them, L words in the longest, M words in all, T image tokens, D channels.
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

from medical_vqa.models.augment import IGNORED_CLASS, Augment, Mirror, compose_affine
from medical_vqa.models.compact.image_encoder import EncodedImages, ImageEncoder, to_unit_range
from medical_vqa.models.compact.region_heads import presence_loss, region_loss
from medical_vqa.models.compact.settings import Sizes
from medical_vqa.models.compact.trunk import EfficientNetLite

ANSWER_LAYER = "head.5"
"""Name of the last layer, whose rows are the answers."""


class ImageMemory(NamedTuple):
    """What questions need of their images, computed once however many ask about one."""

    keys: Tensor
    """Keys of the image tokens in each layer (B, layers, heads, T, D / heads)."""
    values: Tensor
    """Values of the image tokens in each layer, of the same shape."""
    token_mean: Tensor
    """Mean of the image tokens (B, D)."""


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


class Layers(nn.Sequential):
    """A sequence that leaves out dropout when it only answers: each module that is called costs time of its own."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape that the layers take."""
        for layer in self:
            if self.training or not isinstance(layer, nn.Dropout):
                x = layer(x)
        return x


class FusionLayer(nn.Module):
    """Words attend to each other, then to the image, then pass a feed-forward net; normalized before each."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.self_attention = Attention(width, heads)
        self.cross_attention = Attention(width, heads)
        self.feed_forward = Layers(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, layout: WordLayout) -> Tensor:
        """x (M, D), keys and values (B, heads, T, D / heads) -> (M, D)."""
        x = x + self._dropped(self.self_attention.over_words(self.norms[0](x), layout))
        x = x + self._dropped(self.cross_attention.over_tokens(self.norms[1](x), keys, values, layout))
        return x + self._dropped(self.feed_forward(self.norms[2](x)))

    def _dropped(self, x: Tensor) -> Tensor:
        dropped: Tensor = self.drop(x) if self.training else x
        return dropped

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
        self.head = Layers(
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
