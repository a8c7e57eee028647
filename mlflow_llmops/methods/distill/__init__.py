"""Train a smaller student to answer as its teacher does."""
