"""The exceptions of the package, one tree; each message says what was expected, what was received, and what to do.

    MedicalVqaError
    ├── DataError              a dataset, an image or a predictions file is not as expected
    │   ├── ImageError         an image cannot be read or is out of bounds
    │   │   ├── TooLargeError          it exceeds a limit, noticed before it was decoded
    │   │   └── UnsupportedImageError  a known format that is not supported
    │   └── IncompleteError    part of a dataset is missing; `--partial` prepares the rest
    ├── ConfigError            a recipe or an option is wrong
    ├── ModelError             a model cannot be built, or received a question that it does not take
    │   ├── EndpointError      a remote model cannot be asked: its address, key or name is wrong
    │   │   └── EndpointDownError      it does not answer now
    │   └── BundleError        a bundle is damaged, or of another format version
    ├── TrainingError          training cannot continue; the last good checkpoint is saved
    ├── MissingDependencyError an optional package is not installed
    └── OfflineError           a download needs the network, which is not available

The command line prints one of these as a single sentence on stderr and exits with status 2; any other exception is a
bug and keeps its traceback.
"""

from __future__ import annotations


class MedicalVqaError(Exception):
    """Base of every exception that this package raises on purpose."""


class DataError(MedicalVqaError):
    """A dataset, an image or a predictions file is not as expected."""


class ImageError(DataError):
    """An image cannot be read, or its size is out of bounds."""


class TooLargeError(ImageError):
    """An image exceeds a limit of bytes, pixels or frames, noticed before it was decoded."""


class UnsupportedImageError(ImageError):
    """An image seems undamaged, but its format or encoding is not supported."""


class DicomwebError(DataError):
    """A DICOMweb server does not answer, refuses, or has nothing under an address."""


class IncompleteError(DataError):
    """Part of a dataset is missing; preparing with ``partial=True`` uses the rest."""


class ConfigError(MedicalVqaError):
    """A recipe or an option is wrong."""


class ModelError(MedicalVqaError):
    """A model cannot be built, or received a question that it does not take."""


class ContextLengthError(ModelError):
    """A question, with what precedes it, is longer than the model reads."""

    def __init__(self, message: str, for_client: str = "") -> None:
        """Describe the error.

        Args:
            message: For the person who runs the model.
            for_client: The same for a client of a server, who cannot change the model's settings; empty: the message.
        """
        super().__init__(message)
        self.for_client = for_client or message


class EndpointError(ModelError):
    """A remote model cannot be asked: its address, key or name is wrong, or it sees no pictures."""


class EndpointDownError(EndpointError):
    """A remote model does not answer now; the same request may succeed later."""


class BundleError(ModelError):
    """A bundle is damaged, or was written in another format version."""


class TrainingError(MedicalVqaError):
    """Training cannot continue; the last good checkpoint is saved."""


class MissingDependencyError(MedicalVqaError):
    """An optional package is not installed; the message has the command that installs it."""


class OfflineError(MedicalVqaError):
    """A download needs the network, which is not available."""
