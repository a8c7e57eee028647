"""Where the work meets MLflow: runs, references to models, lineage, the proof by reloading, and reports."""
