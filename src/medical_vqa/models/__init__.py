"""Models: what answers, what learns, and the bundle in which a trained one travels."""
