"""MLflow's /invocations: plain lists of texts go with those of other requests, all else is MLflow's own to read."""

import json
import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import numpy as np
from fastapi import Request, Response
from fastapi.responses import JSONResponse
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.scoring_server import DF_RECORDS, DF_SPLIT, INPUTS, INSTANCES, invocations

from mlflow_llmops.batching.scorer import softmax
from mlflow_llmops.errors import LLMOpsError
from mlflow_llmops.flavors._labels import LabelPredictor
from mlflow_llmops.serving.asked import JSON
from mlflow_llmops.serving.engine import Engine
from mlflow_llmops.serving.refusals import Refused
from mlflow_llmops.serving.version import Version
from mlflow_llmops.serving.work import Row, call
from mlflow_llmops.tracking.signature import LABEL, SCORE

log = logging.getLogger(__name__)
TYPES = (JSON, "text/csv", "application/vnd.apache.parquet")


def plain_texts(version: Version, body: bytes, content_type: str) -> list[str] | None:
    """The texts of a body that holds nothing else, for a classifier of ours; None where MLflow is to read it."""
    if not isinstance(version.raw, LabelPredictor) or content_type.replace(" ", "").lower() not in PLAIN:
        return None
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(asked, dict) or len(asked) != 1:
        return None
    ((form, given),) = asked.items()
    texts: Any = None
    if form in (INPUTS, INSTANCES):
        texts = given
    elif form == DF_SPLIT and isinstance(given, dict) and given.keys() == {"columns", "data"}:
        if isinstance(given["columns"], list) and len(given["columns"]) == 1 and isinstance(given["data"], list):
            texts = [row[0] if isinstance(row, list) and len(row) == 1 else None for row in given["data"]]
    elif form == DF_RECORDS and isinstance(given, list) and all(isinstance(row, dict) for row in given):
        same = len({tuple(row) for row in given}) == 1 and len(given[0]) == 1
        texts = [next(iter(row.values())) for row in given] if same else None
    whole = isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts)
    return texts if whole else None


PLAIN = (JSON, f"{JSON};charset=utf-8")


def predictions(labels: Sequence[str], rows: Sequence[Row]) -> dict[str, Any]:
    """As MLflow writes what the pyfunc gives."""
    probabilities = softmax(np.stack([row.values for row in rows]))
    best = zip(probabilities.argmax(axis=1), probabilities.max(axis=1), strict=True)
    return {"predictions": [{LABEL: labels[i], SCORE: float(score)} for i, score in best]}


async def by_mlflow(engine: Engine, version: Version, body: bytes, request: Request) -> Response:
    """What the scoring server of MLflow answers, but for its tracebacks."""
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip() not in TYPES:
        said = f"Content-Type is {content_type or 'missing'}; send one of {', '.join(TYPES)}"
        raise Refused(415, said, None, "content_type")
    schema = version.model.metadata.get_input_schema()
    try:
        answer = await call(engine, invocations, body, content_type, version.model, schema)
    except MlflowException as error:
        cause = error.__cause__ or error.__context__
        message = str(cause) if isinstance(cause, LLMOpsError) else error.message
        log.info("/invocations refused: %s", message[:300])
        # what follows is MLflow's own stack, or the whole input again
        told = {"error_code": error.error_code, "message": message.partition("Traceback")[0][:1000]}
        return JSONResponse(told, error.get_http_status_code())
    except RecursionError:
        return JSONResponse({"error_code": "BAD_REQUEST", "message": "the body is nested too deep"}, 400)
    if answer.status != HTTPStatus.OK:
        raise Refused(answer.status, answer.response)
    return Response(answer.response, answer.status, media_type=answer.mimetype)
