"""From texts to logits at the speed the engine allows: distinct texts once, sorted by length, batches of equal cost."""
