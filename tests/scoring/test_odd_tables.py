"""Tables, places and options as people have them: each is scored, or told in one line before any work."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlflow_llmops.errors import ConfigError, DataError, ModelError
from mlflow_llmops.scoring import score
from mlflow_llmops.scoring.check import check_checkpoint, check_tables
from mlflow_llmops.scoring.options import Options
from mlflow_llmops.scoring.table import read_table, score_table

MOMENT = "timestamp'2020-01-01 00:00:00'"


@pytest.mark.spark
def test_columns_of_every_type_stand_beside_the_text(spark, moody, tmp_path):
    model = moody()
    types = {
        **{"id": MOMENT, "local": "timestamp_ntz'2020-01-01 00:00:00'", "moments": f"array({MOMENT})"},
        **{"deep": "named_struct('x', array(named_struct('y', 1)))", "by_name": f"map('a', {MOMENT})"},
        **{"exact": "cast(1.5 as decimal(38,18))", "day": "date'2020-01-01'", "span": "interval '1' day"},
        **{"raw": "X'00ff'", "nan": "cast('nan' as double)", "nothing": "null", "json": "parse_json('1')"},
    }
    frame = spark.sql(f"select 'four' as text, {', '.join(f'{said} as {name}' for name, said in types.items())}")
    before = frame.drop("nan", "json").first()
    for options in ({}, {"id_col": "id", "checkpoint": str(tmp_path / "kept")}):
        scored = score(frame, model.uri, **options)
        assert scored.drop("nan", "json", *scored.columns[-3:]).first() == before
        assert scored.first()["prediction"] == 4.0


@pytest.mark.spark
@pytest.mark.parametrize("held", ["map('a', 1)", "named_struct('x', map('a', 1))", "parse_json('1')"])
def test_an_id_that_spark_cannot_compare_is_told_before_a_row_is_scored(spark, moody, tmp_path, held):
    model = moody()
    with pytest.raises(DataError, match="^id_col=id: this column holds .*, which Spark cannot compare; name a column"):
        score(spark.sql(f"select {held} as id, 'a' as text"), model.uri, id_col="id", checkpoint=str(tmp_path / "kept"))
    assert model.asked == []


@pytest.mark.spark
def test_a_checkpoint_that_cannot_be_used_is_told_in_one_line(spark, moody, tmp_path):
    model = moody()

    def job(kept: Path, id_: str = "1") -> list:
        table = spark.sql(f"select {id_} as id, 'four' as text")
        return score(table, model.uri, id_col="id", checkpoint=str(kept), resume=True).collect()

    # Spark would take such a name for a pattern, find nothing, and begin anew
    kept = tmp_path / "kept [1] {a} *"
    assert [row["prediction"] for row in job(kept) + job(kept)] == [4.0, 4.0]
    assert len(model.asked) == 1
    with pytest.raises(DataError, match=r"differs in id_type \(it has int, this job string\)"):
        job(kept, "'1'")
    [part] = [each for each in (kept / "rows").glob("part-*.parquet") if pq.read_metadata(each).num_rows]
    part.with_name(f".{part.name}.crc").unlink()
    part.write_bytes(b"broken")
    with pytest.raises(DataError, match=f"^checkpoint=.*: {part.name} in its rows .* remove that file.*again$") as told:
        job(kept)
    assert "\n" not in str(told.value)
    part.unlink()
    assert [row["prediction"] for row in job(kept)] == [4.0]
    (tmp_path / "file").write_text("mine")
    (tmp_path / "other" / "fingerprint").mkdir(parents=True)
    (tmp_path / "other" / "fingerprint" / "part-0.txt").write_text("no json")
    asked = len(model.asked)
    for place in ("file", "file/below"):
        with pytest.raises(DataError, match=r"^checkpoint=.*file.* cannot be written \(.*\); name a folder") as told:
            job(tmp_path / place)
        assert "\n" not in str(told.value)
    with pytest.raises(DataError, match="^checkpoint=.*other: what it says of its job cannot be read; remove it"):
        job(tmp_path / "other")
    assert len(model.asked) == asked


@pytest.mark.parametrize("kept", ["in.parquet", "in.parquet/kept", "out", "out/kept", "."])
def test_a_checkpoint_stands_beside_what_is_read_and_written(tmp_path, monkeypatch, kept):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"^checkpoint={kept} holds or lies in score_\w+=.*; name a folder beside it"):
        check_checkpoint(kept, "in.parquet", "out")
    check_checkpoint("out-kept", "in.parquet", "out")
    check_checkpoint("hdfs://in.parquet", "in.parquet", "table:out")


@pytest.mark.spark
def test_a_column_that_the_folders_name_is_a_column(spark, moody, tmp_path):
    frame = pd.DataFrame({"text": ["a", "bb"], "day": ["monday", "so so/x"]})
    frame.to_parquet(tmp_path / "in.parquet", partition_cols=["day"])
    source, model = str(tmp_path / "in.parquet"), moody().uri
    score_table(spark, model, source, str(tmp_path / "out"), id_col="day")
    assert sorted(pd.read_parquet(tmp_path / "out")["prediction"]) == [1.0, 2.0]
    score_table(spark, model, source, str(tmp_path / "days"), "day")
    assert sorted(pd.read_parquet(tmp_path / "days")["prediction"]) == [6.0, 7.0]


@pytest.mark.spark
@pytest.mark.parametrize("name", ["in[1].parquet", "in{a,b}.parquet", "in *?.parquet", "in#%20.parquet"])
def test_a_file_may_have_any_name(spark, moody, tmp_path, name):
    pd.DataFrame({"text": ["four"]}).to_parquet(tmp_path / name)
    score_table(spark, moody().uri, str(tmp_path / name), str(tmp_path / f"out-{name}"))
    assert pd.read_parquet(tmp_path / f"out-{name}")["prediction"].tolist() == [4.0]


@pytest.mark.spark
def test_the_case_of_a_suffix_changes_nothing(spark, moody, tmp_path):
    (tmp_path / "IN.CSV").write_text("text\nfour\n")
    score_table(spark, moody().uri, str(tmp_path / "IN.CSV"), str(tmp_path / "OUT.CSV"))
    [part] = (tmp_path / "OUT.CSV").glob("part-*.csv")
    assert pd.read_csv(part)["prediction"].tolist() == [4.0]


@pytest.mark.spark
def test_timestamps_in_nanoseconds_are_told_with_what_to_write(spark, tmp_path):
    pq.write_table(pa.table({"text": ["a"], "at": pa.array([1], pa.timestamp("ns"))}), tmp_path / "in.parquet")
    with pytest.raises(DataError, match=r"in.parquet holds timestamps in nanoseconds.* coerce_timestamps='us'\)$"):
        read_table(spark, str(tmp_path / "in.parquet"))


@pytest.mark.spark
def test_a_place_of_an_unknown_kind_is_told_in_one_line(spark, moody, tmp_path):
    pd.DataFrame({"text": ["four"]}).to_parquet(tmp_path / "in.parquet")
    for source, output, option in [
        ("nofs://b/in.parquet", str(tmp_path / "out"), "score_input"),
        (str(tmp_path / "in.parquet"), "nofs://b/out", "score_output"),
    ]:
        with pytest.raises(DataError, match=f"^{option}=nofs://b/.* cannot be .*No FileSystem for scheme") as told:
            score_table(spark, moody().uri, source, output)
        assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["id,text\n1,boat\n", "text,id\noven,2\n"], r"1.csv has the columns text, id, and 0.csv beside it id, text; "),
        (['id,text\n1,"boat\n2,oven\n'], r"0.csv: a quote is not closed, and Spark would take all after it"),
    ],
)
def test_csv_that_spark_would_mix_up_is_refused(tmp_path, files, said):
    (tmp_path / "in.csv").mkdir()
    for i, content in enumerate(files):
        (tmp_path / "in.csv" / f"{i}.csv").write_text(content)
    with pytest.raises(DataError, match=f"^score_input=.*{said}"):
        check_tables(str(tmp_path / "in.csv"), str(tmp_path / "out"), "text")


@pytest.mark.parametrize(
    "content", ['5" nails', '"a ""b"" c"', '"two\nlines"', 'a "b', '"' + "long " * 50_000 + '" x"']
)
def test_quotes_that_spark_reads_well_are_no_fault(tmp_path, content):
    (tmp_path / "in.csv").write_text(f"id,text\n1,{content}\n2,end\n")
    check_tables(str(tmp_path / "in.csv"), str(tmp_path / "out"), "text")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"concurrency": "4"}, "concurrency='4': .* whole number"),
        ({"concurrency": 2.5}, "concurrency=2.5: .* whole number"),
        ({"concurrency": True}, "concurrency=True"),
        ({"requests_per_second": "3"}, "requests_per_second='3': it must be a number above 0"),
        ({"requests_per_second": float("nan")}, "requests_per_second=nan"),
        ({"max_error_rate": "0.1"}, "max_error_rate='0.1'"),
        ({"checkpoint_rows": 0.5}, "checkpoint_rows=0.5"),
        ({"output_col": ""}, "output_col: give the column"),
        ({"params": "hot"}, "params='hot': give names and values"),
    ],
)
def test_an_option_of_another_type_is_told(options, said):
    with pytest.raises(ConfigError, match=f"^{said}"):
        Options(**options)


@pytest.mark.spark
def test_what_is_no_table_or_no_model_is_told(spark, store):
    with pytest.raises(DataError, match=r"^df: DataFrame of pandas\S* is no table of Spark's; spark.createDataFrame"):
        score(pd.DataFrame({"text": ["a"]}), "models:/m/1")
    with pytest.raises(ModelError, match="^model=http://localhost:1/x "):
        score(spark.sql("select 'a' as text"), "http://localhost:1/x")
