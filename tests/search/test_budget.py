"""What a chain will take is known from its parts, and a training ends with the budget."""

import pytest

from mlflow_llmops.search.budget import MARGIN, PASS, Budget, OutOfTime, costs_of
from mlflow_llmops.search.space import read_space, sketch_of

SPACE = read_space(
    "prune.layers(count=1; recovery=none) > distill.logits(epochs=2) | distill.hidden(epochs=2) > quantize.int8_static",
    "text-classification",
)
PRUNE, LOGITS, STATIC = SPACE.chains[0]
HIDDEN = SPACE.chains[1][1]


def test_a_first_training_is_estimated_by_what_scoring_takes_and_later_ones_by_what_they_took():
    costs = costs_of(10.0, [], [1.0])
    assert costs.of([PRUNE, LOGITS, STATIC]) == pytest.approx(MARGIN * (2 * PASS * 10 + 1))
    costs.saw(LOGITS, 30.0)
    costs.saw(STATIC, 5.0)
    costs.saw(STATIC, 4.0)
    assert costs.of([LOGITS, STATIC]) == pytest.approx(MARGIN * (30 + 5 + 1))
    assert costs.of([HIDDEN]) == pytest.approx(MARGIN * (2 * PASS * 10 + 1)), "another method was not seen"
    assert costs.of([], measured=0) == 0


def test_what_a_method_takes_without_its_training_says_nothing_of_its_training():
    (chain,) = read_space("prune.neurons(fraction=0.25)", "text-classification").chains
    costs = costs_of(10.0, [], [])
    costs.saw(sketch_of(chain)[0], 0.1)
    assert costs.of(chain, measured=0) == pytest.approx(MARGIN * PASS * 10)


def test_what_an_interrupted_search_saw_counts():
    costs = costs_of(10.0, [(LOGITS, 30.0)], [1.0, 3.0, 2.0])
    assert costs.of([LOGITS]) == pytest.approx(MARGIN * (30 + 3))


def test_the_budget_counts_what_was_spent_and_keeps_time_for_the_end():
    now = [100.0]
    budget = Budget(60.0, spent=20.0, clock=lambda: now[0])
    assert budget.left() == 40
    budget.reserve = 15.0
    now[0] += 24
    assert (budget.used(), budget.left()) == (44, 1)
    budget.check()
    now[0] += 1
    with pytest.raises(OutOfTime, match="the time budget of 1 min is over"):
        budget.check()
