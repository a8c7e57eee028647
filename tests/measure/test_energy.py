"""Energy as Linux shows a processor's counters: a folder for each package, in microjoules."""

from pathlib import Path

from mlflow_llmops import names
from mlflow_llmops.measure import speed
from mlflow_llmops.measure.energy import energy_counter


def zone(powercap: Path, name: str, count: str, most: int = 999) -> Path:
    folder = powercap / name
    folder.mkdir()
    (folder / "energy_uj").write_text(count + "\n")
    (folder / "max_energy_range_uj").write_text(f"{most}\n")
    return folder


def test_packages_are_added_up_and_their_parts_are_not(tmp_path):
    first, second = zone(tmp_path, "intel-rapl:0", "100"), zone(tmp_path, "intel-rapl:1", "900")
    zone(tmp_path, "intel-rapl:0:0", "50")
    counter = energy_counter(tmp_path)
    assert counter is not None
    before = counter.read()
    assert before == (100, 900)
    (first / "energy_uj").write_text("350")
    (second / "energy_uj").write_text("40")  # it started again at 0 behind 999
    assert counter.joules(before, counter.read()) == (250 + 140) / 1e6


def test_without_a_counter_there_is_none(tmp_path):
    assert energy_counter(tmp_path) is None
    assert energy_counter(tmp_path / "missing") is None
    zone(tmp_path, "intel-rapl:0", "denied")
    assert energy_counter(tmp_path) is None


def test_what_was_counted_is_a_metric_and_what_was_not_is_none(tmp_path, monkeypatch):
    folder = zone(tmp_path, "intel-rapl:0", "0", most=10**12)

    def score(texts) -> None:
        spent = int((folder / "energy_uj").read_text())
        (folder / "energy_uj").write_text(str(spent + 2_000_000 * len(texts)))

    def measured() -> dict:
        return speed.measure_speed({"a": score}, [f"text {i}" for i in range(40)], len, 0.0)["a"].measurements()

    assert names.JOULES_PER_TEXT not in measured() or speed.energy_counter() is not None
    monkeypatch.setattr(speed, "energy_counter", lambda: energy_counter(tmp_path))
    assert measured()[names.JOULES_PER_TEXT].value == 2.0
