import itertools

import numpy as np
import pytest

from stability.combinations import best_combinations, chance_of_combination
from tests.stability import planted

RNG = np.random.default_rng(0)


def test_planted_combinations_come_back():
    b = planted.anywhere(RNG, 200, 40).astype(np.float32)
    weights = np.array([[0.9, -0.6, 0.0], [0.6, 0.6, 0.5], [1.0, 0.0, 0.0]])
    index = np.array([[3, 7, 11], [20, 21, 22], [50, 51, 52]])
    raw = np.einsum("nm,nmd->nd", weights, b[index])
    size = np.linalg.norm(raw, axis=1, keepdims=True)
    found = best_combinations((raw / size).astype(np.float32), b, 3)
    np.testing.assert_allclose(found.share_FM[:, -1], 1.0, atol=1e-5)
    assert set(np.asarray(found.index_FM[0, :2]).tolist()) == {3, 7} and set(np.asarray(found.index_FM[1]).tolist()) == {20, 21, 22}
    assert int(found.index_FM[2, 0]) == 50 and float(found.share_FM[2, 0]) == pytest.approx(1.0, abs=1e-5)
    again = np.einsum("nm,nmd->nd", np.asarray(found.weight_FM), b[np.asarray(found.index_FM)])
    np.testing.assert_allclose(again, raw / size, atol=1e-3)


def test_greedy_steps_are_the_best_steps():
    """Each next row is, of all rows, the one with which least squares explains most: NumPy's word for it."""
    a, b = planted.anywhere(RNG, 7, 12).astype(np.float32), planted.anywhere(RNG, 15, 12).astype(np.float32)
    found = best_combinations(a, b, 3, block_size=4)

    def share(row, chosen):
        residual = row - b[chosen].T @ np.linalg.lstsq(b[chosen].T, row, rcond=None)[0]
        return 1 - residual @ residual

    for row, shares, chosen in zip(a, np.asarray(found.share_FM), np.asarray(found.index_FM).tolist(), strict=True):
        for m in range(3):
            best = max(share(row, [*chosen[:m], j]) for j in range(15) if j not in chosen[:m])
            assert shares[m] == pytest.approx(best, abs=1e-5) == pytest.approx(share(row, chosen[: m + 1]), abs=1e-5)
    pairs = [max(share(row, list(p)) for p in itertools.combinations(range(15), 2)) for row in a]
    assert (np.asarray(found.share_FM[:, 1]) <= np.array(pairs) + 1e-5).all()  # greedy is not exhaustive, and never better


def test_repeated_and_empty_rows():
    b = np.zeros((4, 6), np.float32)
    b[0, 0] = b[1, 0] = 1.0  # the same row twice, and two of zeros
    a = planted.anywhere(RNG, 2, 6).astype(np.float32)
    found = best_combinations(a, b, 3)
    np.testing.assert_allclose(found.share_FM, np.repeat(a[:, :1] ** 2, 3, axis=1), atol=1e-5)
    assert np.isfinite(np.asarray(found.weight_FM)).all()
    with pytest.raises(ValueError, match="5 of 4 rows cannot be chosen"):
        best_combinations(a, b, 5)


def test_chance():
    assert chance_of_combination(0.9, 3, 50) == 1.0 and chance_of_combination(0.9, 16, 2) == 0.0
    crowded, roomy = chance_of_combination(0.9, 8, 100), chance_of_combination(0.9, 32, 100)
    assert crowded > 0.95 and roomy < 0.01
    assert chance_of_combination(0.8, 12, 50) > chance_of_combination(0.9, 12, 50)
