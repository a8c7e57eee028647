"""MLflow's own entry points: one file a group, named after it."""
