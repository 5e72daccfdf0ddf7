"""The scoring rules behind published numbers."""
