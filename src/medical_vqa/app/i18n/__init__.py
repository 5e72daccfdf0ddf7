"""The texts of the page in its languages."""
