"""What can go wrong, as one tree; every message says what was expected, what came, and what to do.

    MedicalVqaError
    ├── DataError              a dataset, an image or a predictions file is not what it should be
    │   ├── ImageError         one image cannot be read or is out of bounds
    │   │   ├── TooLargeError          it is over a limit, seen before it was decoded
    │   │   └── UnsupportedImageError  a known format, but not one that is read
    │   └── IncompleteError    part of a dataset is missing; `--partial` goes on without it
    ├── ConfigError            a recipe or an option is wrong
    ├── ModelError             a model cannot be built, or was asked something it cannot take
    │   └── BundleError        a bundle is damaged, or of another version
    ├── TrainingError          training cannot go on; the last good checkpoint is kept
    ├── MissingDependencyError an optional package is not installed
    └── OfflineError           something had to be downloaded and the network is not there

The command line shows one of these as a single sentence on stderr and exits with 2; any other exception is a
defect of ours and keeps its traceback.
"""

from __future__ import annotations


class MedicalVqaError(Exception):
    """The root of everything this package raises on purpose."""


class DataError(MedicalVqaError):
    """A dataset, an image or a predictions file is not what it should be."""


class ImageError(DataError):
    """One image cannot be read, or its size is out of bounds."""


class TooLargeError(ImageError):
    """An image is over a limit of bytes, pixels or frames, which was seen before it was decoded."""


class UnsupportedImageError(ImageError):
    """An image is whole as far as one can tell, but of a format or an encoding that is not read."""


class IncompleteError(DataError):
    """Part of a dataset is missing; preparing with ``partial=True`` goes on without it."""


class ConfigError(MedicalVqaError):
    """A recipe or an option is wrong."""


class ModelError(MedicalVqaError):
    """A model cannot be built, or was asked something it cannot take."""


class BundleError(ModelError):
    """A bundle is damaged, or was written in another format version."""


class TrainingError(MedicalVqaError):
    """Training cannot go on; the last good checkpoint is kept."""


class MissingDependencyError(MedicalVqaError):
    """An optional package is not installed; the message carries the line that installs it."""


class OfflineError(MedicalVqaError):
    """Something had to be downloaded and the network is not there."""
