"""What all pages share: the templates, and how numbers are written in them."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from medical_vqa.evaluation.reporting import figures, wording
from medical_vqa.io import atomic_write
from medical_vqa.runtime.environment import package_version
from medical_vqa.text import per_cent, printable, shortened


def write_page(path: Path, template: str, **content: object) -> None:
    """Render a template into a file, which appears complete or not at all.

    Args:
        path: The HTML file.
        template: Name of the template. It escapes all content, and fails on a name that is not in `content`.
        content: What the template shows.

    Raises:
        DataError: If the file cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("medical_vqa.evaluation.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": wording.percent,
        "per_cent": per_cent,
        "bounds": wording.bounds,
        "title_of": wording.title,
        "shortened": shortened,
    }
    environment.globals |= {
        "interval_row": figures.interval_row,
        "interval_axis": figures.interval_axis,
        "count": wording.count,
        "version": package_version(),
    }
    atomic_write(path, environment.get_template(template).render(content))


def _printable(value: object) -> object:
    """What a template shows of a value: text without control characters, anything else as it is."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
