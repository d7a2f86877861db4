"""Independent products of a method: what two share one-to-one, and intervals over products."""

import numpy as np
import pytest
import scipy.stats

from experiments.pooling import pools, products, scoring
from experiments.pooling.pools import Pooling
from experiments.pooling.products import ALL, EXPLAINED, LIVE, LONG, Figures
from tests.experiments.dictionaries import unit
from tests.experiments.pooling.test_claim import COMMON, THETA, D, F, score

OWN = [unit(F, D, rng=np.random.default_rng(50 + i)) for i in range(3)]


def rows(shared, own):
    return np.concatenate([COMMON[:shared], OWN[own][: F - shared]])


def test_a_planted_share_comes_back():
    one, other = score(rows(45, 0), 0.8), score(rows(45, 1)[::-1], 0.8)
    assert scoring.shared(one, other, THETA, F) == scoring.overlap(one, other, THETA) == pytest.approx(45 / F)
    assert scoring.shared(one, one, THETA, F) == 1.0 and scoring.shared(score(OWN[0], 0), score(OWN[1], 0), THETA, F) == 0.0
    assert scoring.share_in(score(COMMON[:10], 0), other, THETA) == 1.0  # one direction alone


def test_silent_missing_and_copied_features_count_nothing():
    whole = score(COMMON, 0.8)
    silent = score(COMMON, 0.8, silent=F // 3)
    assert scoring.shared(silent, silent, THETA, F) == scoring.shared(silent, whole, THETA, F) == pytest.approx((F - F // 3) / F)
    few = score(COMMON[:15], 0.8)
    assert scoring.shared(few, few, THETA, F) == pytest.approx(15 / F) and scoring.shared(few, few, THETA, 15) == 1.0
    copies = score(np.tile(COMMON[: F // 3], (3, 1)), 0.8)
    assert scoring.overlap(copies, copies, THETA) == 1.0 and scoring.shared(copies, copies, THETA, F) == pytest.approx(1 / 3)
    nothing = score(COMMON, 0.8, silent=F)
    assert scoring.shared(nothing, whole, THETA, F) == 0.0


def test_one_feature_that_two_resemble_is_matched_once():
    """Two of one SAE lie within θ of one of the other, and not within `COPY` of each other."""
    between = COMMON[0] + COMMON[1]
    merged = np.concatenate([(between / np.linalg.norm(between))[None], OWN[0][: F - 1]])
    split = np.concatenate([COMMON[:2], OWN[1][: F - 2]])
    one, other = score(merged.astype(np.float32), 0.8), score(split, 0.8)
    assert scoring.share_in(other, one, 0.6) == pytest.approx(2 / F) and scoring.shared(one, other, 0.6, F) == pytest.approx(1 / F)


def figures(units, explained=None, seed=0, long_units=()):
    rng = np.random.default_rng(seed)
    n = len(units)
    table = rng.random((n, n))
    table = (table + table.T) / 2
    np.fill_diagonal(table, np.nan)
    long = rng.random((n, len(long_units)))
    long[np.array([[a == b for b in long_units] for a in units], bool).reshape(long.shape)] = np.nan
    explained = rng.random(n) if explained is None else np.array(explained)
    return Figures(tuple(units), tuple(long_units), table, table / 2, long, explained, np.full(n, 9.0), {ALL: 0.01, LIVE: 0.02})


def test_two_sets_that_are_independent_are_compared_by_welch():
    a, b = [0.81, 0.84, 0.86], [0.7, 0.72, 0.71, 0.69, 0.75]
    e = products.difference(figures("abc", a), figures("vwxyz", b), EXPLAINED, 0.95)
    welch = scipy.stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (e.value, e.low, e.high) == pytest.approx((np.mean(a) - np.mean(b), welch.low, welch.high))
    assert e.n == (8, "independent products")


def test_two_sets_of_the_same_groups_are_compared_in_pairs():
    a, b = [0.81, 0.84, 0.86], [0.75, 0.79, 0.80]
    e = products.difference(figures("abc", a), figures("cab", [b[2], b[0], b[1]]), EXPLAINED, 0.95)
    paired = scipy.stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (e.low, e.high) == pytest.approx((paired.low, paired.high))
    fewer = products.difference(figures("abc", a), figures("bcd", [*b[1:], 0.1]), EXPLAINED, 0.95)  # those that both have
    assert fewer.value == pytest.approx(np.mean(a[1:]) - np.mean(b[1:]))


def test_pairs_have_an_interval_from_three_products_on():
    f = figures("abc")
    e = products.estimate(f, ALL, 0.95)
    without = np.array([f.all_GG[1, 2], f.all_GG[0, 2], f.all_GG[0, 1]])
    half = scipy.stats.t.ppf(0.975, 2) * np.sqrt(2 / 3 * np.sum((without - without.mean()) ** 2))
    assert e.value == pytest.approx(without.mean()) and e.null == 0.01
    assert (e.low, e.high) == pytest.approx(tuple(np.clip([e.value - half, e.value + half], 0, 1)))
    assert products.estimate(figures("ab"), LIVE, 0.95).low is None and products.estimate(figures("ab"), LIVE, 0.95).value is not None
    assert products.estimate(figures("a"), LIVE, 0.95).value is None and products.estimate(figures("a"), EXPLAINED, 0.95).low is None


def test_intervals_of_pairs_cover():
    """Agreement of two products is the mean of what each has, and noise of the pair: the jackknife over products is not too narrow."""
    rng, truth, inside = np.random.default_rng(0), 0.6, 0
    for _ in range(300):
        own, noise = 0.05 * rng.normal(size=3), 0.05 * rng.normal(size=(3, 3))
        table = truth + own[:, None] + own[None] + np.triu(noise, 1) + np.triu(noise, 1).T
        np.fill_diagonal(table, np.nan)
        e = products.estimate(figures("abc")._replace(all_GG=table), ALL, 0.95)
        inside += e.low <= truth <= e.high
    assert inside / 300 > 0.93


def test_saes_trained_longer_judge_each_other_and_not_themselves():
    long = figures("vwxyz", long_units="vwxyz")
    e = products.estimate(long, LONG, 0.95)
    assert e.value == pytest.approx(np.nanmean(long.long_GL)) and e.n.number == 5
    pool = figures("abc", long_units="vwxyz", seed=1)
    assert products.value(pool, LONG, "w") == pytest.approx(np.delete(pool.long_GL, 1, axis=1).mean())
    d = products.difference(pool, long, LONG, 0.95)
    assert d.value == pytest.approx(np.mean(pool.long_GL) - np.nanmean(long.long_GL)) and d.low < d.value < d.high


def test_competitors_are_trained_on_alike():
    assert products.competitors(Pooling()) == ("trained longer", "single SAE, tuned")
    assert products.competitors(Pooling(headline="pool, decoder held")) == ("trained longer", "single SAE, decoder held")
    assert products.competitors(Pooling(headline="stable features")) == ("trained longer",)


def test_groups_have_names_of_their_own():
    groups = pools.groups(14, 3, 4)
    assert list(groups.by_name) == ["one", "other", "group-3", "group-4"] == list(pools.group_names(4))
    assert groups.by_name["group-4"] == (9, 10, 11) and groups.fresh == (12, 13)
