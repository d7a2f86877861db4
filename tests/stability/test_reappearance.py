import numpy as np
import pytest
import scipy.stats

from stability import reappearance
from stability.reappearance import clopper_pearson, labels, strata


@pytest.mark.parametrize(
    ("comparisons", "epsilon", "stable_from", "unstable_to"),
    [(7, 0.05, 7, 0), (20, 0.05, 19, 1), (19, 0.05, 19, 0), (95, 0.05, 91, 4), (40, 0.05, 38, 2), (10, 0.0, 10, 0), (10, 0.3, 7, 3)],
)
def test_labels_by_integer_counts(comparisons, epsilon, stable_from, unstable_to):
    got = labels(np.arange(comparisons + 1), comparisons, epsilon)
    expected = ["unstable" if c <= unstable_to else "stable" if c >= stable_from else "intermediate" for c in range(comparisons + 1)]
    assert got.tolist() == expected


def test_clopper_pearson_inverts_the_binomial_tails():
    n, confidence = 13, 0.9
    counts = np.arange(n + 1)
    low, high = clopper_pearson(counts, n, confidence)
    assert low[0] == 0 and high[-1] == 1
    np.testing.assert_allclose(scipy.stats.binom.sf(counts[1:] - 1, n, low[1:]), 0.05, rtol=1e-9)
    np.testing.assert_allclose(scipy.stats.binom.cdf(counts[:-1], n, high[:-1]), 0.05, rtol=1e-9)


@pytest.mark.parametrize("p", [0.03, 0.3, 0.5, 0.97])
def test_clopper_pearson_covers_at_least_nominally(p):
    n = 20
    low, high = clopper_pearson(np.arange(n + 1), n, 0.95)
    inside = (low <= p) & (p <= high)
    assert scipy.stats.binom.pmf(np.arange(n + 1), n, p)[inside].sum() >= 0.95


def test_one_comparison():
    low, high = clopper_pearson(np.array([0, 1]), 1, 0.95)
    np.testing.assert_allclose([low, high], [[0, 0.025], [0.975, 1]])
    assert labels(np.array([0, 1]), 1, 0.05).tolist() == ["unstable", "stable"]


def test_strata():
    assert strata(np.array([0, 1, 99, 100, 5000]), 100).tolist() == ["dead", "rare", "rare", "live", "live"]


def test_chance_correction():
    np.testing.assert_allclose(reappearance.chance_corrected(np.array([0.2, 0.6, 1.0]), 0.2), [0, 0.5, 1])
    with pytest.raises(ValueError, match="chance"):
        reappearance.chance_corrected(0.5, 1.0)


@pytest.mark.parametrize("theta", [0.0, -0.5, 1.1, float("nan")])
def test_wrong_theta(theta):
    with pytest.raises(ValueError, match="theta"):
        reappearance.reappears(np.zeros((2, 2, 3)), theta)


@pytest.mark.parametrize("epsilon", [-0.1, 0.5, float("nan")])
def test_wrong_epsilon(epsilon):
    with pytest.raises(ValueError, match="epsilon"):
        labels(np.array([1]), 3, epsilon)


def unit(*shape):
    w = np.random.default_rng(0).normal(size=shape)
    return w / np.linalg.norm(w, axis=-1, keepdims=True)


def test_the_table_is_what_numpy_counts():
    w = unit(6, 20, 5)
    w[3:] = w[:3][:, ::-1]  # every dictionary twice
    got = reappearance.table(w, theta=0.8, epsilon=0.3, seeds=(4, 5, 6, 7, 8, 9))
    cosine = np.einsum("sfd,kgd->skfg", w, w).max(-1)
    cosine[np.arange(6), np.arange(6)] = -1
    counts = (cosine >= 0.8).sum(1)
    assert got["reappearances"].tolist() == counts.ravel().tolist() and set(got["comparisons"]) == {5}
    assert got["seed"].tolist() == np.repeat([4, 5, 6, 7, 8, 9], 20).tolist() and got["feature"].tolist() == [*range(20)] * 6
    assert got["label"].tolist() == labels(counts.ravel(), 5, 0.3).tolist()
    assert (got["p_low"] <= got["p"]).all() and (got["p"] <= got["p_high"]).all()
    assert 0 < got["chance"][0] < 1 and len({len(column) for column in got.values()}) == 1


def test_the_table_of_dictionaries_of_different_size_has_a_direction():
    w = unit(30, 6)
    got = reappearance.table([w, w[:10]], theta=0.999)
    assert got["p"][:30].mean() == pytest.approx(1 / 3) and (got["p"][30:] == 1).all() and len(got["p"]) == 40
    assert got["chance"][0] < got["chance"][-1]


@pytest.mark.parametrize("features", [1, 2])
def test_the_smallest_table(features):
    got = reappearance.table(unit(2, features, 3), theta=1e-6)
    assert len(got["p"]) == 2 * features and set(got["comparisons"]) == {1} and set(got["label"]) <= {"stable", "unstable"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((unit(1, 3, 4),), "at least 2"),
        (([unit(3, 4), unit(3, 5)],), "of one width"),
        ((unit(3, 4),), r"an array of shape \(3, 4\): an array \(S, F, D\)"),
        (([],), "list: an array"),
        (([unit(3, 4), unit(3)],), "features, width"),
        ((np.full((2, 3, 4), np.nan),), "NaN"),
    ],
)
def test_tables_that_cannot_be(arguments, says):
    with pytest.raises(ValueError, match=says):
        reappearance.table(*arguments)


@pytest.mark.parametrize("keywords", [{"theta": 1.5}, {"epsilon": 0.7}, {"confidence": 1.0}, {"seeds": (1,)}])
def test_tables_asked_for_wrongly(keywords):
    with pytest.raises(ValueError, match=next(iter(keywords))):
        reappearance.table(unit(2, 3, 4), **keywords)
