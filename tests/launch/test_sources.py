"""Which of many rows are taken."""

import numpy as np

from launch import sources


def test_evenly_spaced_places_are_the_middles_of_equal_stretches():
    assert sources.evenly_spaced(10, 2).tolist() == [2, 7] and sources.evenly_spaced(9, 3).tolist() == [1, 4, 7]
    assert (
        sources.evenly_spaced(5, 50).tolist() == [0, 1, 2, 3, 4]
        and sources.evenly_spaced(0, 3).size == 0 == sources.evenly_spaced(3, 0).size
    )
    for rows, count in ((1000, 7), (2**40, 1000)):
        found = sources.evenly_spaced(rows, count)
        assert found[0] == rows // (2 * count) and np.abs(np.diff(found) - rows / count).max() < 1 and found[-1] < rows
