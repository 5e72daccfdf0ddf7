"""Uploaded images: the stores that hold their bytes, and the repository that encodes and finds them."""
