"""Model families that fine-tune published checkpoints through transformers and peft."""
