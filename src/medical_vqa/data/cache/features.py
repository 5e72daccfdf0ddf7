"""Cache of the features that a frozen vision encoder computes from each image: `FeatureStore`.

Each encoder has a folder in the store, named by its fingerprint::

    9f8a2c0d41b7e635/features-3f2a9c1d.safetensors    {"<SHA-256 of the image>/tokens": (257, 1408) bfloat16, ...}

A shard has the features of a few dozen images, is written atomically and never changed. A process that is killed loses
the shard that it was writing, and two processes that fill one store at once do the work twice and harm nothing. Shards
are memory-mapped, so runs and servers on one machine share the pages.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from medical_vqa.errors import DataError
from medical_vqa.io import atomic_write
from medical_vqa.runtime import ProgressCallback

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    Features = Mapping[str, Tensor]
    Encode = Callable[[Sequence[NDArray[np.uint8]]], Sequence[Features]]

FORMAT = "1"
"""Version of the layout above."""
SHARD = 32  # images encoded at once and written to one file


class FeatureStore:
    """Named tensors by the SHA-256 of their image, all from the encoder with one fingerprint."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        """Open the features of this encoder in ``folder``; raises `DataError` where another encoder wrote them."""
        self.fingerprint = fingerprint
        self._parent = folder
        self.folder = folder / fingerprint[:16]
        self._shards: dict[str, Any] = {}
        self._places: dict[str, dict[str, tuple[str, str]]] = {}  # digest -> name -> (shard, key)
        self._scan()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, digest: str) -> bool:
        return digest in self._places

    def __getstate__(self) -> tuple[Path, str]:
        return self._parent, self.fingerprint  # the other process maps the files itself

    def __setstate__(self, state: tuple[Path, str]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def get(self, digest: str) -> dict[str, Tensor]:
        """The features of an image, as they were added; raises `DataError` when the store lacks them."""
        if digest not in self:
            self._scan()  # another process may have added them
        if digest not in self:
            raise DataError(f"{self.folder}: has no features of image {digest[:12]}; call ensure() with it first")
        return {name: self._shards[shard].get_tensor(key) for name, (shard, key) in self._places[digest].items()}

    def add(self, features: Mapping[str, Features]) -> None:
        """Store the features of some images in one new shard; raises `DataError` where the disk cannot take it."""
        tensors = {
            f"{digest}/{name}": tensor.detach().cpu().contiguous()
            for digest, named in features.items()
            for name, tensor in named.items()
        }
        content = save(tensors, metadata={"format": FORMAT, "fingerprint": self.fingerprint})
        atomic_write(self.folder / f"features-{secrets.token_hex(4)}.safetensors", content)
        self._scan()

    def missing(self, digests: Sequence[str]) -> list[str]:
        """The images whose features the store lacks, each once."""
        if any(digest not in self for digest in digests):
            self._scan()
        return [digest for digest in dict.fromkeys(digests) if digest not in self]

    def ensure(
        self,
        digests: Sequence[str],
        picture: Callable[[str], NDArray[np.uint8]],
        encode: Encode,
        progress: ProgressCallback | None = None,
    ) -> None:
        """Encode the images whose features the store lacks, a shard at a time.

        Args:
            digests: The images; one may occur several times.
            picture: Function from an image's digest to its prepared picture.
            encode: Function from pictures to the features of each.
            progress: Called with the number of missing images that are done.
        """
        missing = self.missing(digests)
        for start in range(0, len(missing), SHARD):
            batch = missing[start : start + SHARD]
            self.add(dict(zip(batch, encode([picture(digest) for digest in batch]), strict=True)))
            if progress is not None:
                progress(start + len(batch), len(missing))

    def _scan(self) -> None:
        """Map the new shards; a damaged one is ignored, and its images are encoded again."""
        for path in sorted(self.folder.glob("features-*.safetensors")):
            if path.name not in self._shards:
                with contextlib.suppress(SafetensorError, OSError):
                    self._map(path)

    def _map(self, path: Path) -> None:
        shard = safe_open(path, framework="pt")
        metadata = shard.metadata() or {}
        if metadata.get("fingerprint") != self.fingerprint:
            raise DataError(
                f"{path}: these features were written by another model (fingerprint "
                f"{str(metadata.get('fingerprint'))[:16]}, expected {self.fingerprint[:16]}); delete the folder "
                f"{self.folder}, and they are computed again"
            )
        if metadata.get("format") != FORMAT:
            return
        self._shards[path.name] = shard
        for key in shard.keys():  # noqa: SIM118 - not a dictionary: it cannot be iterated
            digest, _, name = key.partition("/")
            self._places.setdefault(digest, {})[name] = (path.name, key)
