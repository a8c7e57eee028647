"""Batch scoring with Spark."""
