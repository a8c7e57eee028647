"""Entry points of an MLflow Project on a user's Spark cluster."""
