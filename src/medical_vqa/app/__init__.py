"""The page: upload an image, ask, and see an answer that one can judge."""
