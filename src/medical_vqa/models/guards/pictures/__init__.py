"""Whether a picture can be asked about, what it is compared with, and how much it moves an answer."""
