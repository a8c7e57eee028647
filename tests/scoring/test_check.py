"""What is wrong with a job's tables is told before any work."""

import pandas as pd
import pytest

from mlflow_llmops.errors import DataError
from mlflow_llmops.scoring.check import check_tables


def test_a_column_that_scoring_would_overwrite_is_refused(tmp_path):
    pd.DataFrame({"text": ["a"], "prediction": ["mine"]}).to_parquet(tmp_path / "in.parquet")
    with pytest.raises(DataError, match="has a column prediction already"):
        check_tables(str(tmp_path / "in.parquet"), str(tmp_path / "out"), "text")


@pytest.mark.parametrize("content", [b"text,caf\xe9\na,b\n", b"text,other\n" + b"a,b\n" * 50_000 + b"caf\xe9,b\n"])
def test_a_table_in_another_encoding_is_refused(tmp_path, content):
    (tmp_path / "in.csv").write_bytes(content)
    with pytest.raises(DataError, match="is not UTF-8; convert it"):
        check_tables(str(tmp_path / "in.csv"), str(tmp_path / "out"), "text")


def test_an_output_is_looked_at_without_an_input(tmp_path):
    check_tables(None, str(tmp_path / "new"), "text")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(DataError, match="is no table that Spark wrote"):
        check_tables(None, str(tmp_path / "mine"), "text")
