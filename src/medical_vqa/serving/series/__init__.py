"""Series of slices on the server: reading, showing, and asking about them."""
