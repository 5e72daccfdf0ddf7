"""Figures as inline SVG, drawn in the page's own colors (CSS variables), so that dark and light both work.

Horizontal positions are per cent of the width and font sizes are in pixels: a figure fits a phone and a sheet of paper
without scaling its text. Colors: ``--model``, ``--baseline``, ``--wrong``, ``--rule``, ``--muted``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup, escape

from medical_vqa.schema.results import CalibrationBin

Point = tuple[float, float]
_LEFT, _RIGHT = 11.0, 98.0  # per cent: the plot area between the axis labels and the right edge
_TOP, _PLOT = 14, 150  # pixels: above the plot area, and its height
_FOOT = 40  # pixels below the plot area, for tick labels and the axis title
_FEW_ANSWERS = 20  # bins with fewer answers have a smaller dot
_SERIES = ("var(--model)", "var(--baseline)", "var(--wrong)")


def interval_row(
    value: float | None, low: float | None, high: float | None, baseline: float | None, label: str
) -> Markup:
    """A dot with its interval on a scale from 0 to 1, and the baseline as a dashed tick.

    Args:
        value: The score in [0, 1]; no dot for None.
        low: Lower bound; no bar for None.
        high: Upper bound; no bar for None.
        baseline: The baseline's score; no tick for None.
        label: Description of the row, for a screen reader.
    """
    shapes = [_line(0, 12, 100, 12, "var(--rule)")]
    if low is not None and high is not None:
        shapes.append(_line(100 * low, 12, 100 * high, 12, "var(--model)", width=3, cap="round"))
    if baseline is not None:
        shapes.append(_line(100 * baseline, 3, 100 * baseline, 21, "var(--baseline)", width=2, dash="3 2"))
    if value is not None:
        shapes.append(_tag("circle", cx=_percent(100 * value), cy=12, r=5, fill="var(--model)"))
    return _svg(label, shapes, height=24, css="row")


def interval_axis() -> Markup:
    """The scale of `interval_row`: 0, 50 and 100 per cent."""
    anchors = {0: "start", 50: "middle", 100: "end"}
    texts = [_text(tick, 12, str(tick), anchor=anchor) for tick, anchor in anchors.items()]
    return _svg("Scale from 0 to 100 per cent", texts, height=16, css="row")


def confidence_histogram(bins: Sequence[CalibrationBin]) -> Markup:
    """Right answers (lower part) and wrong answers (upper part) by confidence."""
    top = _round_up(max(part.n for part in bins))
    shapes = _horizontal_grid([0, top / 2, top], 0, top, lambda tick: f"{tick:,.0f}")
    all_right = all_wrong = 0
    for part in bins:
        right = round(part.accuracy * part.n)
        wrong = part.n - right
        left, width = _plot_x(100 * part.low), _plot_x(100 * part.high) - _plot_x(100 * part.low)
        shapes += _bar(left, width, 0, right, top, "var(--model)", f"{right} right")
        shapes += _bar(left, width, right, wrong, top, "var(--wrong)", f"{wrong} wrong")
        all_right += right
        all_wrong += wrong
    shapes += [_text(_plot_x(tick), _TOP + _PLOT + 16, f"{tick}") for tick in range(0, 101, 20)]
    shapes.append(_text(_plot_x(50), _TOP + _PLOT + 34, "confidence, per cent"))
    label = f"Confidence of {all_right} right and {all_wrong} wrong answers"
    return _svg(label, shapes, height=_TOP + _PLOT + _FOOT)


def line_chart(name: str, series: Mapping[str, Sequence[Point]], *, x_title: str, mark: float | None = None) -> Markup:
    """Up to three lines over one axis.

    Args:
        name: What the chart shows, for a screen reader.
        series: Label -> points (x, y), in order of x; drawn in the colors of `series_color`.
        x_title: Title of the horizontal axis.
        mark: An x to mark with a dashed line: the epoch of the selected checkpoint.
    """
    points = [point for line in series.values() for point in line]
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    ticks = _ticks(min(y for _, y in points), max(y for _, y in points))
    low, high = ticks[0], ticks[-1]
    span = right - left or 1.0
    shapes = _horizontal_grid(ticks, low, high, _short)
    if mark is not None:
        x = _plot_x(100 * (mark - left) / span)
        shapes.append(_line(x, _TOP, x, _TOP + _PLOT, "var(--muted)", dash="3 3"))
    for number, line in enumerate(series.values()):
        scaled = [(100 * (x - left) / span, 100 * (high - y) / (high - low)) for x, y in line]
        shapes.append(_polyline(scaled, series_color(number)))
    shapes.append(_text(_LEFT, _TOP + _PLOT + 16, _short(left), anchor="start"))
    shapes.append(_text(_RIGHT, _TOP + _PLOT + 16, _short(right), anchor="end"))
    shapes.append(_text(_plot_x(50), _TOP + _PLOT + 34, x_title))
    return _svg(name, shapes, height=_TOP + _PLOT + _FOOT)


def scatter(
    name: str, points: Mapping[str, tuple[float, float, bool]], *, x_label: Callable[[float], str], x_title: str
) -> Markup:
    """Named points; those that are marked are filled.

    Args:
        name: What the chart shows, for a screen reader.
        points: Label -> x, y and whether the point is marked.
        x_label: Writes a value of x.
        x_title: Title of the horizontal axis.
    """
    left, right = min(x for x, _, _ in points.values()), max(x for x, _, _ in points.values())
    ticks = _ticks(min(y for _, y, _ in points.values()), max(y for _, y, _ in points.values()))
    low, high = ticks[0], ticks[-1]
    shapes = _horizontal_grid(ticks, low, high, _short)
    for label, (x, y, marked) in points.items():
        across = _plot_x(4 + 92 * (x - left) / (right - left or 1.0))
        down = round(_TOP + _PLOT * (high - y) / (high - low), 1)
        color = "var(--model)" if marked else "none"
        shapes.append(_tag("circle", cx=_percent(across), cy=down, r=5, fill=color, stroke="var(--model)"))
        is_right = across > _plot_x(60)
        shapes.append(_text(across, down + 4, label, anchor="end" if is_right else "start", dx=-9 if is_right else 9))
    shapes.append(_text(_plot_x(4), _TOP + _PLOT + 16, x_label(left)))
    shapes.append(_text(_plot_x(96), _TOP + _PLOT + 16, x_label(right)))
    shapes.append(_text(_plot_x(50), _TOP + _PLOT + 34, x_title))
    return _svg(name, shapes, height=_TOP + _PLOT + _FOOT)


def reliability_diagram(bins: Sequence[CalibrationBin]) -> Markup:
    """Accuracy by confidence, with intervals; on the dashed line both are equal."""
    shapes = _horizontal_grid([0, 50, 100], 0, 100, lambda tick: f"{tick:.0f}")
    shapes.append(_line(_plot_x(0), _TOP + _PLOT, _plot_x(100), _TOP, "var(--muted)", dash="3 3"))
    circle = Markup('<circle cx="{}" cy="{:.1f}" r="{}" fill="var(--model)"><title>{}</title></circle>')
    for part in bins:
        x = _plot_x(100 * part.confidence)
        if part.interval.low is not None and part.interval.high is not None:
            low, high = _plot_y(100 * part.interval.low), _plot_y(100 * part.interval.high)
            shapes.append(_line(x, low, x, high, "var(--model)", width=2))
        label = f"{part.n:,} answers, {100 * part.confidence:.0f} % sure, {100 * part.accuracy:.0f} % right"
        radius = 4 if part.n >= _FEW_ANSWERS else 2.5
        shapes.append(circle.format(_percent(x), _plot_y(100 * part.accuracy), radius, label))
    shapes += [_text(_plot_x(tick), _TOP + _PLOT + 16, str(tick)) for tick in (0, 50, 100)]
    shapes.append(_text(_plot_x(50), _TOP + _PLOT + 34, "confidence, per cent"))
    return _svg("Share of right answers by confidence, per cent", shapes, height=_TOP + _PLOT + _FOOT)


def series_color(number: int) -> str:
    """The color of a line of `line_chart`, for its legend."""
    return _SERIES[number % len(_SERIES)]


def _plot_x(per_cent: float) -> float:
    """Horizontal position of a point in the plot area."""
    return _LEFT + per_cent / 100 * (_RIGHT - _LEFT)


def _plot_y(per_cent: float) -> float:
    """Vertical position of a point in the plot area."""
    return round(_TOP + _PLOT * (1 - per_cent / 100), 1)


def _svg(label: str, shapes: Sequence[Markup], *, height: int, css: str = "plot") -> Markup:
    head = Markup('<svg class="{}" role="img" width="100%" height="{}"><title>{}</title>')
    return head.format(css, height, label) + Markup("").join(shapes) + Markup("</svg>")


def _tag(name: str, content: str = "", /, **attributes: object) -> Markup:
    pairs = (Markup(' {}="{}"').format(key.replace("_", "-"), value) for key, value in attributes.items())
    return Markup("<{}{}>{}</{}>").format(Markup(name), Markup("").join(pairs), escape(content), Markup(name))


def _line(
    x1: float, y1: float, x2: float, y2: float, color: str, *, width: float = 1, dash: str = "", cap: str = "butt"
) -> Markup:
    ends = {"x1": _percent(x1), "y1": y1, "x2": _percent(x2), "y2": y2}
    extra = {"stroke_dasharray": dash} if dash else {}
    return _tag("line", **ends, stroke=color, stroke_width=width, stroke_linecap=cap, **extra)


def _text(x: float, y: float, content: str, *, anchor: str = "middle", dx: int = 0) -> Markup:
    shift = {"dx": dx} if dx else {}
    return _tag("text", content, x=_percent(x), y=y, text_anchor=anchor, fill="var(--muted)", font_size=12, **shift)


def _bar(left: float, width: float, below: int, n: int, top: float, color: str, label: str) -> list[Markup]:
    if not n:
        return []
    y, height = _TOP + _PLOT * (1 - (below + n) / top), _PLOT * n / top
    rectangle = Markup('<rect x="{}" width="{}" y="{:.1f}" height="{:.1f}" fill="{}"><title>{}</title></rect>')
    return [rectangle.format(_percent(left + 0.06 * width), _percent(0.88 * width), y, height, color, label)]


def _horizontal_grid(ticks: Sequence[float], low: float, high: float, write: Callable[[float], str]) -> list[Markup]:
    shapes = []
    for tick in ticks:
        y = round(_TOP + _PLOT * (high - tick) / (high - low), 1)
        shapes.append(_line(_LEFT, y, _RIGHT, y, "var(--rule)"))
        shapes.append(_text(_LEFT - 1.5, y + 4, write(tick), anchor="end"))
    return shapes


def _polyline(points: Sequence[Point], color: str) -> Markup:
    """A line in its own coordinate system from 0 to 100, stretched over the plot area."""
    text = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
    frame = Markup(
        '<svg x="{}" y="{}" width="{}" height="{}" viewBox="0 0 100 100" preserveAspectRatio="none" overflow="visible">'
        '<polyline points="{}" fill="none" stroke="{}" stroke-width="2" stroke-linejoin="round"'
        ' vector-effect="non-scaling-stroke"/></svg>'
    )
    return frame.format(_percent(_LEFT), _TOP, _percent(_RIGHT - _LEFT), _PLOT, text, color)


def _percent(value: float) -> str:
    return f"{value:.2f}%"


def _short(value: float) -> str:
    return f"{value:g}" if value == int(value) else f"{value:.2g}"


def _round_up(top: float) -> float:
    """A round number that is at least `top` and has a whole half: 2, 4, 6, 8, 10, 20, 30, 40, 50, 60, 80, 100 ..."""
    scale = 10.0 ** max(math.floor(math.log10(max(top, 1))), 0)
    steps = (2, 4, 6, 8, 10) if scale == 1 else (1, 2, 3, 4, 5, 6, 8, 10)
    return next(step * scale for step in steps if step * scale >= top)


def _ticks(low: float, high: float) -> list[float]:
    """Four to seven round numbers that enclose both bounds."""
    span = high - low or abs(high) or 1.0
    scale: float = 10.0 ** math.floor(math.log10(span))
    step = next(s * scale for s in (0.2, 0.5, 1, 2) if span / (s * scale) <= 5)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]
