"""What all pages share: the templates, and how numbers are written in them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from jinja2 import Environment, PackageLoader, StrictUndefined

from medical_vqa.evaluation.reporting import figures, wording
from medical_vqa.text import per_cent, squad_normalize


def environment() -> Environment:
    """Templates that escape everything and refuse a name they do not know."""
    made = Environment(
        loader=PackageLoader("medical_vqa.evaluation.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "percent": wording.percent,
        "share": per_cent,
        "bounds": wording.bounds,
        "title_of": wording.title,
        "plain": squad_normalize,
    }
    made.globals |= {
        "interval_row": figures.interval_row,
        "interval_axis": figures.interval_axis,
        "count": wording.count,
        "version": package(),
    }
    return made


def package() -> str:
    """The version of this package, for a page's footer."""
    try:
        return version("medical-vqa")
    except PackageNotFoundError:
        return "unknown"
