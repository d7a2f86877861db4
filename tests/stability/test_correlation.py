"""Streamed correlations against NumPy's on all tokens at once."""

import jax.numpy as jnp
import numpy as np
import pytest

from stability import correlation
from stability.correlation import Candidates, candidate_correlations

RNG = np.random.default_rng(0)
W = [RNG.normal(size=(6, f)).astype(np.float32) for f in (9, 5)]


def encode(place, x_BD):
    return jnp.maximum(x_BD @ W[place] - 0.5, 0.0)


def test_they_are_pearsons():
    x = RNG.normal(size=(700, 6)).astype(np.float32)
    index = np.array([[0, 3], [4, 1], [2, 2], *[[1, 0]] * 6], np.int32)
    batches = [x[:256], x[256:512], x[512:]]  # the last one shorter
    (got, back), (shifted, _) = candidate_correlations(
        lambda: batches, encode, [Candidates(0, 1, jnp.asarray(index)), Candidates(1, 0, jnp.zeros((5, 1), jnp.int32))]
    )
    a, b = (np.asarray(encode(place, jnp.asarray(x))) for place in (0, 1))
    expected = np.array([[np.corrcoef(a[:, f], b[:, g])[0, 1] for g in row] for f, row in enumerate(index)])
    np.testing.assert_allclose(got, expected, atol=1e-4)
    np.testing.assert_allclose(back[:, 0], [np.corrcoef(b[:, f], a[:, 0])[0, 1] for f in range(5)], atol=1e-4)
    assert np.abs(shifted).max() < 0.25 < np.abs(expected).max()  # tokens that do not belong together


def test_an_equal_feature_correlates_fully_and_a_silent_one_with_nothing():
    x = RNG.normal(size=(400, 3)).astype(np.float32)
    two = lambda place, x_BD: jnp.stack([5 * x_BD[:, 0] + 1, x_BD[:, 2]], 1) if place else jnp.stack([x_BD[:, 0], 0 * x_BD[:, 1]], 1)
    (got,), _ = candidate_correlations(lambda: [x], two, [Candidates(0, 1, jnp.array([[0, 1], [0, 1]], jnp.int32))])
    assert got[0, 0] == pytest.approx(1, abs=1e-5) and abs(got[0, 1]) < 0.2 and np.isnan(got[1]).all()


def test_no_tokens():
    with pytest.raises(ValueError, match="no activations"):
        candidate_correlations(list, encode, [Candidates(0, 1, np.zeros((9, 1), np.int32))])


def test_pairs_some_at_a_time_give_the_same(monkeypatch):
    x = RNG.normal(size=(300, 6)).astype(np.float32)
    pairs = [Candidates(i, 1 - i, RNG.integers(0, 5, (9 if i == 0 else 5, 2)).astype(np.int32)) for i in (0, 1, 0, 0, 1)]
    whole = candidate_correlations(lambda: [x], encode, pairs)
    monkeypatch.setattr(correlation, "PAIRS_AT_ONCE", 2)
    parts = candidate_correlations(lambda: [x], encode, pairs)
    for a, b in zip(whole, parts, strict=True):
        assert all((np.nan_to_num(p) == np.nan_to_num(q)).all() for p, q in zip(a, b, strict=True)) and len(a) == 5


@pytest.mark.parametrize("mean", [0.0, 1e2, 1e3, 1e4, 1e5])
@pytest.mark.parametrize("size", [1, 100, 512, 2000])
def test_features_whose_mean_is_large_beside_their_spread(mean, size):
    rng = np.random.default_rng(3)
    a = rng.normal(size=(1500 if size > 1 else 40, 3))
    x = (np.concatenate([a, 0.6 * a + 0.8 * rng.normal(size=a.shape)], axis=1) + mean).astype(np.float32)
    halves = lambda place, x_BD: x_BD[:, 3 * place : 3 * place + 3]
    index = np.arange(3, dtype=np.int32)[:, None]
    (got,), _ = candidate_correlations(lambda: (x[i : i + size] for i in range(0, len(x), size)), halves, [Candidates(0, 1, index)])
    x8 = x.astype(np.float64)
    np.testing.assert_allclose(got[:, 0], [np.corrcoef(x8[:, i], x8[:, 3 + i])[0, 1] for i in range(3)], atol=2e-5)


def test_a_feature_that_is_always_alike_correlates_with_nothing():
    x = RNG.normal(size=(900, 2)).astype(np.float32)
    always = lambda place, x_BD: jnp.stack([0 * x_BD[:, 0] + 0.1, x_BD[:, 1] + 1], 1)
    (got,), _ = candidate_correlations(lambda: [x[:500], x[500:]], always, [Candidates(0, 1, np.array([[0, 1], [0, 1]], np.int32))])
    assert np.isnan(got[0]).all() and np.isnan(got[1, 0]) and got[1, 1] == pytest.approx(1, abs=1e-5)
