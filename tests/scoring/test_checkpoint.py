"""A job that dies goes on: each id exactly once, finished rows not scored again, never rows of another job."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from mlflow_llmops.errors import DataError
from mlflow_llmops.scoring import score
from mlflow_llmops.scoring.fingerprint import Fingerprint

pytestmark = pytest.mark.spark


@pytest.fixture
def frame(spark):
    def made(texts):
        return spark.createDataFrame(pd.DataFrame({"id": range(len(texts)), "text": texts}))

    return made


def answers(df):
    return {row["id"]: row["prediction"] for row in df.collect()}


def test_a_resumed_job_scores_new_changed_and_failed_rows_and_no_others(frame, moody, tmp_path):
    model = moody()
    job = {"model_uri": model.uri, "id_col": "id", "checkpoint": str(tmp_path / "kept"), "checkpoint_rows": 4}
    texts = [f"text {i}" for i in range(9)] + ["boom"]
    first = answers(score(frame(texts), **job))
    assert first == {**dict.fromkeys(range(9), 6.0), 9: None}
    with pytest.raises(DataError, match=r"^checkpoint=.* holds an earlier job; give resume=true"):
        score(frame(texts), **job)
    before = len(model.asked)
    assert answers(score(frame(texts), resume=True, **job)) == first
    assert len(model.asked) == before
    changed = ["another text", *texts[1:], "new"]
    assert answers(score(frame(changed), resume=True, **job)) == {**first, 0: 12.0, 10: 3.0}
    assert sorted(model.asked[before:]) == ["another text", "new"]
    before = len(model.asked)
    assert answers(score(frame(changed), resume=True, retry_failed=True, **job))[9] is None
    assert set(model.asked[before:]) == {"boom"}


def test_a_checkpoint_of_another_job_is_refused_with_the_part_that_differs(frame, moody, tmp_path):
    model, other = moody(), moody(seconds=0.001)
    job = {"id_col": "id", "checkpoint": str(tmp_path / "kept"), "resume": True}
    score(frame(["a"]), model.uri, **job)
    with pytest.raises(DataError, match=r"differs in model \(it has \w+, this job \w+\): its rows would not be"):
        score(frame(["a"]), other.uri, **job)
    renamed = frame(["a"]).withColumnRenamed("text", "body")
    with pytest.raises(DataError, match=r"differs in input_col \(it has text, this job body\)"):
        score(renamed, model.uri, input_col="body", **job)


def test_each_part_of_a_fingerprint_counts():
    parts = {"model": "m", "params": "{}", "input_col": "text", "id_col": "id", "id_type": "int", "code": "1"}
    stored = Fingerprint(**parts).write()
    Fingerprint(**parts).check("here", stored)
    for name in parts:
        with pytest.raises(DataError, match=f"differs in {name} "):
            Fingerprint(**{**parts, name: "other"}).check("here", stored)


def test_too_many_errors_are_told_when_all_is_done(frame, moody, tmp_path):
    job = {"id_col": "id", "checkpoint": str(tmp_path / "kept"), "max_error_rate": 0.4, "checkpoint_rows": 1}
    with pytest.raises(DataError, match=r"^max_error_rate=0.4: 2 of 4 rows failed; they are in checkpoint="):
        score(frame(["boom 1", "boom 2", "c", "d"]), moody().uri, **job)


def test_limits_and_a_checkpoint_go_together(frame, moody, tmp_path, endpoint):
    model = moody(url=endpoint.url)
    job = {"id_col": "id", "checkpoint": str(tmp_path / "kept"), "checkpoint_rows": 3, "concurrency": 2, "dedupe": True}
    texts = [f"prompt {i % 8}" for i in range(16)]
    assert answers(score(frame(texts), model.uri, **job)) == dict.fromkeys(range(16), 8.0)
    assert sorted(endpoint.texts) == sorted(set(texts))
    assert endpoint.most_at_once <= 2


DRIVER = """
import sys
from mlflow_llmops.scoring import score
from mlflow_llmops.scoring.table import spark_session
model, rows, kept = sys.argv[1:]
spark = spark_session("local[1]")
score(spark.read.parquet(rows), model, id_col="id", checkpoint=kept, checkpoint_rows=5)
"""


@pytest.mark.slow
def test_a_driver_that_is_killed_at_half_goes_on(spark, moody, tmp_path):
    model, kept = moody(seconds=0.05), tmp_path / "kept"
    texts = [f"text {i:03}" for i in range(60)]
    pd.DataFrame({"id": range(60), "text": texts}).to_parquet(tmp_path / "in.parquet")
    command = [sys.executable, "-c", DRIVER, model.uri, str(tmp_path / "in.parquet"), str(kept)]
    with (tmp_path / "driver.log").open("w") as log:
        driver = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + 120
    while len(list((kept / "rows").glob("part-*.parquet"))) < 5:
        assert driver.poll() is None and time.monotonic() < deadline, (tmp_path / "driver.log").read_text()
        time.sleep(0.05)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    finished = pd.concat(pd.read_parquet(file) for file in (kept / "rows").glob("part-*.parquet"))
    before = len(model.asked)
    assert 0 < len(finished) < 60
    rows = spark.read.parquet(str(tmp_path / "in.parquet"))
    found = score(rows, model.uri, id_col="id", checkpoint=str(kept), checkpoint_rows=5, resume=True).collect()
    assert sorted(row["id"] for row in found) == list(range(60))
    assert all(row["prediction"] == 8.0 for row in found)
    done = {texts[i] for i in finished["id"]}
    assert not done & set(model.asked[before:])
    assert done | set(model.asked[before:]) == set(texts)
    assert Path(kept / "fingerprint").is_dir()
