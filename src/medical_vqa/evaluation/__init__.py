"""Evaluation: predictions, scores with their intervals and baselines, and the report."""
