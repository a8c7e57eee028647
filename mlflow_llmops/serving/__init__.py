"""An OpenAI-compatible server for a registered version, with MLflow's own routes beside.

What stood ready, and why it is not enough (looked at with mlflow 3.17.2, transformers 5.23, openvino 2026.4):

- MLflow's scoring server has /invocations alone, runs `predict` in as many threads as requests arrive, and follows no
  alias. Its parsing and its answers are used here for every form of input but the plainest.
- `transformers serve` has the OpenAI routes and continuous batching, but for torch checkpoints of generating models: no
  exported graph, no classifier, no registry, no bound on what waits.
- openvino-genai batches continuously with paged attention, for OpenVINO graphs of its own conversion (tokenizers as
  graphs, a state of its own), so not for the versions that stand in the registry.

FastAPI routes, uvicorn with its supervisor, and prometheus_client are used as they are.
"""
