"""Intervals, comparisons, breakdowns and calibration."""
