"""Evaluation: predictions, scores with their intervals and floors, and the report."""
