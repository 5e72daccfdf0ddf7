"""Training: the loop, its batches, its optimizer and its journal; knows no model family."""
