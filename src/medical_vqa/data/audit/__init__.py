"""Leaks, near-duplicates and contradictions in a prepared dataset."""
