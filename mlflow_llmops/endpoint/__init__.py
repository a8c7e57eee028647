"""Ask an OpenAI-compatible endpoint: a few requests at a time, no prompt twice, within a budget."""
