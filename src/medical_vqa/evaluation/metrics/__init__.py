"""Metrics as per-example counts and a value of their sum."""
