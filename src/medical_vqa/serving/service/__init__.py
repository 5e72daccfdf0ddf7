"""The use cases of the server, without HTTP: accept an upload, answer questions about it, describe the model."""
