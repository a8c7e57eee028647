"""Text models, whatever they are made of: a torch network or an exported graph, with its tokenizer, task and labels."""
