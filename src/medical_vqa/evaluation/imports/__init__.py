"""Prediction files of other programs."""
