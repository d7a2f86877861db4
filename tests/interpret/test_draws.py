"""Random firings of every feature: uniform, the same however they come, and without a part the rest of them stays."""

import numpy as np

from interpret.draws import NONE, Draws, parts, splitmix64

ROWS, F, M, PARTS = 600, 4, 20, 5
RNG = np.random.default_rng(0)
FIRES = RNG.random((ROWS, F)) < [0.5, 0.3, 0.05, 0.0]


def drawn(step=ROWS, salt=0):
    draws = Draws(F, M, PARTS)
    for first in range(0, ROWS, step):
        row, feature = np.nonzero(FIRES[first : first + step])
        row += first
        draws.offer(parts(row, ROWS, PARTS), feature, splitmix64(row, salt), row)
    return draws


def test_draws_are_firings_and_do_not_depend_on_where_batches_end():
    rows = drawn().rows()
    for f in range(F):
        chosen = rows[f][rows[f] != NONE]
        assert len(set(chosen.tolist())) == len(chosen) == min(M, FIRES[:, f].sum()) and FIRES[chosen, f].all()
    np.testing.assert_array_equal(rows, drawn(step=37).rows())
    assert (rows != drawn(salt=1).rows()).any()


def test_without_a_part_only_its_firings_are_replaced():
    every = drawn().rows()
    for part in range(PARTS):
        some = drawn().rows(part)
        there = some[some != NONE]
        assert not (parts(there, ROWS, PARTS) == part).any()
        for f in (0, 1):
            left = [row for row in every[f] if parts(row, ROWS, PARTS) != part]
            assert set(left) <= set(some[f].tolist()) and (some[f] != NONE).all()


def test_every_firing_is_as_likely():
    counts = np.zeros(ROWS)
    for salt in range(300):
        counts[drawn(salt=salt).rows()[0]] += 1
    expected = 300 * M / FIRES[:, 0].sum()
    assert counts[~FIRES[:, 0]].sum() == 0
    assert np.square(counts[FIRES[:, 0]] - expected).mean() < 1.3 * expected
