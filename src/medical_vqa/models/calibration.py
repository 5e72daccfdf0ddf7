"""Confidence with its log-odds divided by a temperature: what calibration changes, and all it changes."""

from __future__ import annotations

import math

SURE = 1e-6
"""Log-odds are taken of confidences no nearer to 0 and 1 than this."""
_NEVER = 1e-12  # nothing is given a confidence nearer to 0 or 1 than this


def temperature_scaled(confidence: float, temperature: float) -> float:
    """The confidence with its log-odds divided by the temperature; 0 and 1 stay what they are nearly."""
    inside = min(max(confidence, SURE), 1 - SURE)
    return min(max(1 / (1 + math.exp(-math.log(inside / (1 - inside)) / temperature)), _NEVER), 1 - _NEVER)
