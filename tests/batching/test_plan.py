"""The plan is a partition of the texts, in order of length, under the budget."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlflow_llmops.batching.plan import TOKEN_BUDGET, plan_batches
from mlflow_llmops.engines import ENGINES

LENGTHS = st.lists(st.integers(0, 600), max_size=80).map(lambda lengths: np.array(lengths, dtype=np.int64))
BUDGETS = st.integers(1, 3000)


@given(LENGTHS, BUDGETS)
def test_every_position_stands_in_one_batch(lengths, budget):
    positions = [int(position) for batch in plan_batches(lengths, budget) for position in batch]
    assert sorted(positions) == list(range(len(lengths)))


@given(LENGTHS, BUDGETS)
def test_padded_tokens_stay_in_the_budget_unless_one_text_is_longer(lengths, budget):
    for batch in plan_batches(lengths, budget):
        assert len(batch) == 1 or len(batch) * lengths[batch].max() <= budget


@given(LENGTHS, BUDGETS)
def test_no_batch_is_cut_short(lengths, budget):
    batches = plan_batches(lengths, budget)
    for batch, following in pairwise(batches):
        assert lengths[batch].max() <= lengths[following].min()
        assert (len(batch) + 1) * max(1, lengths[following].min()) > budget


@given(LENGTHS, BUDGETS)
def test_ties_keep_their_order(lengths, budget):
    order = [int(position) for batch in plan_batches(lengths, budget) for position in batch]
    assert order == sorted(range(len(lengths)), key=lambda position: (lengths[position], position))


def test_every_kind_of_artifact_has_a_budget():
    assert set(TOKEN_BUDGET) == {"torch", *ENGINES}
