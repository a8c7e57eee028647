"""Train a model on labels (classification) or on the texts themselves (generation)."""
