"""The order of the trials: each chain once, the cheap ones first, whatever is killed in between."""

import pytest

from mlflow_llmops import names
from mlflow_llmops.measure.limits import Wanted
from mlflow_llmops.measure.measurement import Estimate
from mlflow_llmops.search.space import is_trained, read_space, said
from mlflow_llmops.search.study import DONE, FAILED, LEFT, Study, Trial

TASK = "text-classification"
SPACE = read_space(
    "none | prune.layers(count=1; recovery=none) | prune.layers(count=2; recovery=none) > none | "
    "prune.neurons(recovery=none) > distill.logits > none | prune.vocabulary > export.onnx | export.openvino",
    TASK,
)
WANTED = Wanted(max_quality_drop=0.02)


def speed_of(chain: str) -> float:
    return 1.0 + len(chain) % 7 + 10 * ("count=2" in chain)


def drop_of(chain: str) -> float:
    return 0.05 if "count=2" in chain else 0.01


def ended(number: int, chain: str, outcome: str = DONE) -> Trial:
    speed, drop = speed_of(chain), drop_of(chain)
    measured = {
        names.SPEEDUP: Estimate(speed, speed - 0.5, float("inf")),
        names.QUALITY_CHANGE: Estimate(-drop, -drop - 0.005, 0.0),
        names.DISK: 2.0,
    }
    return Trial(number, chain, outcome, "", f"run{number}", measured if outcome == DONE else {}, 2.0)


def go_on(study: Study, most: int = 100, outcome: str = DONE) -> list[str]:
    seen = []
    while len(seen) < most and (found := study.next()) is not None:
        trial, chain = found
        now = ended(len(study.trials()), said(chain), outcome)
        study.tell(trial, now, WANTED, WANTED.missed(now.measured))
        seen.append(said(chain))
    return seen


@pytest.mark.parametrize("sampler", ["tpe", "grid"])
def test_every_chain_once_and_those_without_training_first(tmp_path, sampler):
    study = Study(tmp_path / "study.journal", SPACE, sampler, seed=0)
    seen = go_on(study)
    assert sorted(seen) == sorted(map(said, SPACE.chains))
    trained = {said(chain): is_trained(chain) for chain in SPACE.chains}
    assert [trained[each] for each in seen] == sorted(trained.values())
    assert study.next() is None
    assert study.spent() == 2.0 * len(seen)
    if sampler == "grid":
        assert seen == [said(chain) for chain in SPACE.chains]


def test_after_a_kill_what_was_finished_is_not_tried_again_and_what_was_at_work_is(tmp_path):
    study = Study(tmp_path / "study.journal", SPACE, "grid", seed=0)
    before = go_on(study, 5)
    _, at_work = study.next()
    again = Study(tmp_path / "study.journal", SPACE, "grid", seed=0)
    assert again.trials() == study.trials()
    assert [trial.chain for trial in again.trials()] == before
    after = go_on(again)
    assert after[0] == said(at_work)
    assert sorted(before + after) == sorted(map(said, SPACE.chains))


@pytest.mark.parametrize("outcome", [LEFT, FAILED])
def test_what_was_given_up_is_not_tried_again(tmp_path, outcome):
    study = Study(tmp_path / "study.journal", SPACE, "tpe", seed=0)
    go_on(study, 3, outcome)
    assert len(go_on(study)) == len(SPACE.chains) - 3


def test_what_is_passed_over_is_not_asked(tmp_path):
    study = Study(tmp_path / "study.journal", SPACE, "tpe", seed=0)
    trained = [said(chain) for chain in SPACE.chains if is_trained(chain)]
    go_on(study, len(SPACE.chains) - len(trained))
    assert study.next(trained) is None
    _, chain = study.next(trained[1:])
    assert said(chain) == trained[0]


@pytest.mark.slow
def test_the_sampler_learns_which_chains_keep_the_limits(tmp_path):
    """Those that cut two blocks are the fastest and miss the limit: after the first it takes few more of them than
    drawing by chance would."""
    shares = []
    for seed in range(3):
        study = Study(tmp_path / f"{seed}.journal", WIDE, "tpe", seed)
        seen = go_on(study, 20)
        shares.append(sum("count=2" in chain for chain in seen[10:]) / 10)
    by_chance = sum("count=2" in said(chain) for chain in WIDE.chains) / len(WIDE.chains)
    assert sum(shares) / 3 < by_chance


WIDE = read_space(
    "prune.layers(count=1; recovery=none) | prune.layers(count=2; recovery=none) > "
    "none | prune.neurons(fraction=0.2; recovery=none) | prune.neurons(fraction=0.5; recovery=none) > "
    "distill.logits(epochs=1) | distill.logits(epochs=2) | distill.hidden(epochs=1) | distill.hidden(epochs=2) > "
    "none | prune.vocabulary > export.onnx | export.openvino",
    TASK,
)
