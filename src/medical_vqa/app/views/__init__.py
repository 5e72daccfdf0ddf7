"""Parts of the page, one per module."""
