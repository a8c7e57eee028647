"""Texts with labels, from files, a Hugging Face id or the machine's own docstrings, split and fingerprinted."""
