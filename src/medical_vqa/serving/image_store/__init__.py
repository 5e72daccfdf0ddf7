"""Uploaded images: where their bytes live and how they are found again."""
