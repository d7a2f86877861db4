import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saes import contributions
from saes.dictionary import encode
from tests.experiments.dictionaries import listed, unit

RNG = np.random.default_rng(0)
X_ND = RNG.normal(size=(100, 8)).astype(np.float32)
SAES = listed([unit(12, 8, rng=RNG), unit(15, 8, rng=RNG), unit(12, 8, rng=RNG)]).dictionaries
SETS = [[np.array([0, 3, 5]), np.array([1]), np.array([], int)], [np.array([2, 4]), np.array([7, 14]), np.array([9, 11])]]
OTHERS = [[np.array([1]), np.array([2, 3]), np.array([4])], [np.array([0]), np.array([0, 1]), np.array([2])]]


def sums(sets):
    """(S, N, D) of a set, in NumPy."""
    out = []
    for d, members in zip(SAES, sets, strict=True):
        z = np.asarray(encode(d, jnp.asarray(X_ND)))
        out.append(z[:, members] @ d.w_dec_FD[members])
    return np.stack(out).astype(np.float64)


def batches(size):
    return (X_ND[n : n + size] for n in range(0, len(X_ND), size))


@pytest.mark.parametrize("memory", [2**28, 1])
def test_against_numpy(monkeypatch, memory):
    monkeypatch.setattr(contributions, "MEMORY", memory)  # 1: batches of 16, the last not full
    found = contributions.measure(SAES, SETS, OTHERS, batches, 5)
    variance = np.square(X_ND - X_ND.mean(0)).sum()
    for c, (sets, others) in enumerate(zip(SETS, OTHERS, strict=True)):
        own, other = sums(sets), sums(others)
        np.testing.assert_allclose(found.energy_CS[c], np.square(own).sum((1, 2)) / variance, rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose(found.firing_CS[c], (np.abs(own).sum(2) > 0).mean(1), atol=1e-6)
        size = np.sqrt(np.square(own).sum((1, 2)))
        with np.errstate(invalid="ignore"):
            expected = np.einsum("snd,tnd->st", own, own) / (size[:, None] * size)
            against = np.einsum("snd,tnd->st", own, other) / (size[:, None] * np.sqrt(np.square(other).sum((1, 2))))
        for table, by_hand in ((found.cosine_CSS[c], expected), (found.other_CSS[c], against)):
            np.fill_diagonal(by_hand, np.nan)
            np.testing.assert_allclose(table, by_hand, atol=1e-4, equal_nan=True)
        norm_N = np.sqrt(np.square(own).sum(2)).mean(0)
        np.testing.assert_allclose(found.top_values_CN[c], np.sort(norm_N)[::-1][:5], rtol=1e-4)
        np.testing.assert_array_equal(found.top_rows_CN[c], np.argsort(-norm_N)[:5])


def test_equal_sets_of_equal_saes_agree():
    twice = tuple(jax.tree.map(np.copy, SAES[0]) for _ in range(2))
    found = contributions.measure(twice, [[np.array([0, 1, 2, 3])] * 2], [[np.array([5])] * 2], batches, 1)
    np.testing.assert_allclose(found.cosine_CSS[0, 0, 1], 1.0, atol=1e-5)


def test_nothing_to_measure():
    measure = functools.partial(contributions.measure, SAES)
    with pytest.raises(ValueError, match="no sets"):
        measure([], [], batches, 1)
    with pytest.raises(ValueError, match="no activations"):
        measure(SETS, OTHERS, lambda size: [], 1)
