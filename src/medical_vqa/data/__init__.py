"""Datasets: published formats in, checked and laid out; pictures prepared once; no torch."""
