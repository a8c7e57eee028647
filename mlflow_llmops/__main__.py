"""`python -m mlflow_llmops`: what MLproject's commands call."""

from mlflow_llmops.cli import main

if __name__ == "__main__":
    main()
