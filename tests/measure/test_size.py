"""What zeros take is counted, and what a packer would make of them is another number."""

from copy import deepcopy

import pytest
import torch

from mlflow_llmops import names
from mlflow_llmops.measure.size import compressed_mib, measure_size, measure_sparsity


def test_zeros_take_as_much_as_other_numbers_until_they_are_packed(tiny_model, tmp_path):
    zeroed = tiny_model.with_net(deepcopy(tiny_model.network))
    with torch.no_grad():
        for parameter in zeroed.network.parameters():
            parameter.flatten()[::2] = 0
    for name, model in (("whole", tiny_model), ("zeroed", zeroed)):
        model.save(tmp_path / name)
    found = measure_sparsity(zeroed, tmp_path / "zeroed")
    assert found[names.SPARSITY] == pytest.approx(0.5, abs=0.02)
    sizes = [measure_size(tiny_model, tmp_path / name)[names.DISK] for name in ("whole", "zeroed")]
    assert sizes[0] == sizes[1]
    assert found[names.COMPRESSED] == compressed_mib(tmp_path / "zeroed") < 0.8 * compressed_mib(tmp_path / "whole")


def test_a_file_of_one_letter_packs_to_almost_nothing(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_bytes(b"a" * 3 * 2**20)
    assert 0 < compressed_mib(tmp_path) < 0.01
