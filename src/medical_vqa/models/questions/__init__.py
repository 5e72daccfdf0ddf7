"""Questions as models and guards read them: medical terms, forms, and the bank of training questions."""
