"""Computed once per image and kept on disk: prepared pictures, frozen vision features, regions."""
