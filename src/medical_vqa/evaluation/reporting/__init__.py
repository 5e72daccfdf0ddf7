"""Results as HTML pages, terminal tables and sentences."""
