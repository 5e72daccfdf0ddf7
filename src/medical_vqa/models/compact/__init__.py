"""The compact model family: a small classifier trained from scratch, and its ONNX form."""
