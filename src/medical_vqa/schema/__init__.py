"""The data that crosses a stage boundary: examples, predictions, selections and cards, typed and versioned."""
