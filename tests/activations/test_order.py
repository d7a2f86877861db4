import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activations.order import ShuffledOrder


@settings(max_examples=150, deadline=None)
@given(
    size=st.integers(1, 60),
    seed=st.integers(0, 5),
    block=st.integers(1, 9),
    window=st.integers(0, 70),
    start=st.integers(0, 150),
    count=st.integers(0, 90),
)
def test_a_place_is_an_integer_and_every_epoch_holds_every_row_once(size, seed, block, window, start, count):
    order = ShuffledOrder(size, seed, block, window)
    stream = order.rows(0, start + count + size)
    assert (order.rows(start, count) == stream[start : start + count]).all()
    for epoch in range((start + count) // size + 1):
        part = stream[epoch * size : (epoch + 1) * size]
        assert len(part) < size or sorted(part) == list(range(size))


def test_epochs_and_seeds_differ():
    order = ShuffledOrder(100, 0, 4, 20)
    assert (order.rows(0, 100) != order.rows(100, 100)).any()
    assert (order.rows(0, 100) != ShuffledOrder(100, 1, 4, 20).rows(0, 100)).any()


def test_a_window_touches_few_blocks_and_mixes_their_rows():
    order = ShuffledOrder(1000, 3, 10, 100)
    for window in range(10):
        rows = order.rows(window * 100, 100)
        assert len(set(rows // 10)) == 10
        assert (np.diff(rows) == 1).sum() < 10
    assert len({tuple(sorted(set(order.rows(w * 100, 100) // 10))) for w in range(10)}) == 10


def test_a_window_of_all_rows_is_a_plain_permutation():
    whole = ShuffledOrder(50, 7).rows(0, 50)
    for window in (0, 50, 80):
        assert (ShuffledOrder(50, 7, block=6, window=window).rows(0, 50) == whole).all()


@pytest.mark.parametrize("block", [1, 7])
def test_rows_are_uniform_over_places(block):
    """Over many epochs a row is in every tenth of the epoch about equally often (chi-squared, 9 degrees: 33 is p = 1e-4)."""
    order = ShuffledOrder(100, 11, block, 30)
    places = np.stack([np.argsort(order.rows(e * 100, 100)) for e in range(600)])
    for row in (0, 50, 99):
        counts = np.bincount(places[:, row] // 10, minlength=10)
        assert ((counts - 60) ** 2 / 60).sum() < 33
