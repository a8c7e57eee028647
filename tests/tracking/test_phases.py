"""Every second of a run belongs to one phase."""

from contextlib import suppress

from mlflow_llmops import names
from mlflow_llmops.tracking.phases import Phases


def test_a_phase_inside_another_stops_the_outer_and_what_is_in_none_is_tracking():
    now = [100.0]
    phases = Phases(lambda: now[0])

    def passes(seconds: float) -> None:
        now[0] += seconds

    passes(1)
    with phases.doing(names.WORK_SECONDS):
        passes(60)
    passes(2)
    with phases.doing(names.MEASURING_SECONDS):
        passes(10)
        with phases.doing(names.TRACKING_SECONDS):
            passes(3)
        passes(20)
    with suppress(KeyError), phases.doing(names.PROOF_SECONDS):
        passes(4)
        raise KeyError("the proof failed")
    found = phases.measurements()
    assert [found[phase] for phase in names.PHASES] == [60, 30, 4, 6]
    assert found[names.SHARE_BEYOND] == 0.1
