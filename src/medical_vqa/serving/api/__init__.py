"""The HTTP routes and their wire types."""
