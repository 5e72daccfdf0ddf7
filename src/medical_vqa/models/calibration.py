"""Temperature scaling: confidence with its log-odds divided by a temperature."""

from __future__ import annotations

import math

MIN_DISTANCE = 1e-6
"""Confidences are moved this far from 0 and 1 before their log-odds are computed."""
_MIN_SCALED_DISTANCE = 1e-12
"""Least distance of a scaled confidence from 0 and 1."""


def temperature_scaled(confidence: float, temperature: float) -> float:
    """The confidence with its log-odds divided by the temperature; 0 and 1 stay almost unchanged."""
    inside = min(max(confidence, MIN_DISTANCE), 1 - MIN_DISTANCE)
    scaled = 1 / (1 + math.exp(-math.log(inside / (1 - inside)) / temperature))
    return min(max(scaled, _MIN_SCALED_DISTANCE), 1 - _MIN_SCALED_DISTANCE)
