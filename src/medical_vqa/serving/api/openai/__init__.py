"""OpenAI's protocols: chat completions (`chat`) and responses (`responses`)."""
