"""Training: the loop, its batches, its optimiser and its journal; knows no model family."""
