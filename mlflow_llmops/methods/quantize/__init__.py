"""Fewer bits for weights, and for activations where the method says so."""
