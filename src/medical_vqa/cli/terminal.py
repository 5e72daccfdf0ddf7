"""Terminal output shared by the commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

EPILOG = "Research software: not a medical device and not for diagnosis."


def console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A rich console that leaves long lines unbroken; `quiet` prints nothing."""
    from rich.console import Console

    return Console(stderr=stderr, soft_wrap=True, quiet=quiet)
