"""Registered models: versions, and the places that they are promoted to."""
