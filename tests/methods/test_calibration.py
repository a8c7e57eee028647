"""What calibrates a method is never what it is measured on."""

from dataclasses import replace

import pytest

from mlflow_llmops.errors import DataError
from mlflow_llmops.methods._calibration import calibration_texts


def test_texts_of_the_test_split_calibrate_nothing_unless_it_was_allowed(tiny_texts):
    clean = calibration_texts(tiny_texts, 8, 0)
    assert len(clean) == 8 and not set(clean.texts) & set(tiny_texts.test.texts)
    leaking = replace(tiny_texts, train=tiny_texts.test)
    with pytest.raises(DataError, match="^8 of 8 texts for calibration stand in the test split"):
        calibration_texts(leaking, 8, 0)
    assert len(calibration_texts(replace(leaking, overlap_kept=8), 8, 0)) == 8
