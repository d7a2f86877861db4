"""Which of many rows are taken, and in what order they may be."""

import numpy as np
import pytest

from experiments.data import sources
from experiments.data.sources import Sampling


def test_evenly_spaced_places_are_the_middles_of_equal_stretches():
    assert sources.evenly_spaced(10, 2).tolist() == [2, 7] and sources.evenly_spaced(9, 3).tolist() == [1, 4, 7]
    assert (
        sources.evenly_spaced(5, 50).tolist() == [0, 1, 2, 3, 4]
        and sources.evenly_spaced(0, 3).size == 0 == sources.evenly_spaced(3, 0).size
    )
    for rows, count in ((1000, 7), (2**40, 1000)):
        found = sources.evenly_spaced(rows, count)
        assert found[0] == rows // (2 * count) and np.abs(np.diff(found) - rows / count).max() < 1 and found[-1] < rows


@pytest.mark.parametrize(("field", "value"), [("shuffle_block", 0), ("shuffle_window", -1), ("data", "noise"), ("eval_rows", 0)])
def test_impossible_sampling_names_the_field(field, value):
    with pytest.raises(ValueError, match=f"config.train.{field}={value!r}: "):
        Sampling(**{field: value})


def test_rows_that_are_drawn_belong_to_no_half_of_the_documents():
    with pytest.raises(ValueError, match="config.train.halves=True: Gaussian rows belong to no document"):
        Sampling(data="gaussian", halves=True)
