"""The backend: upload an image once, ask many questions about it."""
