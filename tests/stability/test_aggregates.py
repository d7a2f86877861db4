import numpy as np
import pytest

from stability import aggregates, resampling
from stability.estimates import percentile_interval

RNG = np.random.default_rng(0)


def hits(s=6, f=40, p=None):
    p = RNG.random(f) if p is None else p
    x = RNG.random((s, s, f)) < p
    x[np.arange(s), np.arange(s)] = False
    return x


def test_pair_mean_drops_self_pairs_and_weighs_by_multiplicity():
    values = np.array([[np.nan, 1.0, 2.0], [3.0, np.nan, 4.0], [5.0, 6.0, np.nan]])
    assert resampling.pair_mean(values, np.ones(3)) == 3.5
    assert resampling.pair_mean(values, np.array([2, 1, 0])) == 2.0
    assert np.isnan(resampling.pair_mean(values, np.array([3, 0, 0])))


def test_resamples_never_hold_one_seed_alone():
    weights = resampling.seed_weights(0, 2, 500)
    assert (weights == 1).all()
    weights = resampling.seed_weights(0, 5, 500)
    assert (weights.sum(1) == 5).all() and ((weights > 0).sum(1) >= 2).all()
    with pytest.raises(ValueError, match="at least 2"):
        resampling.seed_weights(0, 1, 5)


def test_labels_under_weights_equal_labels_on_the_repeated_seeds():
    x, weights = hits(), np.array([2, 0, 1, 1, 1, 1])
    stable, unstable = aggregates.label_masks(x, 0.2, weights)
    for a in range(6):
        others = np.repeat(np.arange(6), weights)
        others = others[others != a]
        counts = x[a, others].sum(0)
        slack = int(0.2 * len(others))
        assert (stable[a] == (counts >= len(others) - slack)).all() and (unstable[a] == (counts <= slack)).all()


def test_share_reappearing_by_hand():
    x, among = hits(3, 10), RNG.random((3, 10)) < 0.5
    among[2] = False
    share = aggregates.share_reappearing(x, among)
    np.testing.assert_allclose(share[0, 1], x[0, 1][among[0]].mean())
    assert np.isnan(share[2]).all() and np.isnan(share[1, 1])


def test_intervals_of_pair_means_cover():
    """Simulated seeds with seed effects: the bootstrap over seeds covers about nominally, the one over pairs would not."""
    s, truth, inside = 12, 0.0, 0
    for trial in range(120):
        rng = np.random.default_rng(trial)
        effect = rng.normal(size=s)
        values = effect[:, None] + effect[None] + 0.1 * rng.normal(size=(s, s))
        np.fill_diagonal(values, np.nan)
        e = aggregates.bootstrapped(lambda w, v=values: resampling.pair_mean(v, w), s, 200, 0.95, null=None, unit="")
        inside += e.low <= truth <= e.high
    assert 0.85 <= inside / 120 <= 0.99


def test_jackknife_of_a_mean_is_the_t_interval():
    x = RNG.normal(size=9)
    e = aggregates.jackknifed(lambda w: resampling.seed_mean(x, w), 9, 0.95, null=None, unit="")
    half = 2.306004 * x.std(ddof=1) / 3
    np.testing.assert_allclose([e.value, e.low, e.high], [x.mean(), x.mean() - half, x.mean() + half], rtol=1e-5)


def test_jackknife_is_undefined_where_it_should_be():
    assert aggregates.jackknifed(lambda w: 1.0, 2, 0.95, null=None, unit="").low is None
    assert aggregates.jackknifed(lambda w: float("nan"), 5, 0.95, null=None, unit="").value is None
    clipped = aggregates.jackknifed(lambda w: 0.9 + 0.1 * w[0], 4, 0.95, null=None, unit="", bounds=(0.0, 1.0))
    assert clipped.high == 1.0


def test_label_shares_and_ratio_by_hand():
    x = hits(4, 30, p=np.repeat([0.0, 0.5, 1.0], 10))
    live = np.ones((4, 30), bool)
    stable = aggregates.label_share(x, live, 0.05, True)(np.ones(4))
    assert stable >= 1 / 3 and stable == (x.sum(1) == 3).mean()
    values = np.where(x.sum(1) == 3, 4.0, 2.0)
    assert aggregates.label_ratio(values, x, live, 0.05)(np.ones(4)) == 2.0
    assert np.isnan(aggregates.label_ratio(values, x, np.zeros_like(live), 0.05)(np.ones(4)))


def test_split_half_difference():
    live = np.ones((8, 60), bool)
    two_kinds = hits(8, 60, p=np.repeat([0.02, 0.98], 30))
    alike = hits(8, 60, p=np.full(60, 0.5))
    difference = lambda x: aggregates.split_half_difference(x, live, 0.05)(np.ones(8))
    assert difference(two_kinds) > 0.8
    assert abs(difference(alike)) < 0.15  # labels made of luck do not carry over
    assert np.isnan(aggregates.split_half_difference(two_kinds[:2, :2], live[:2], 0.05)(np.ones(2)))


def test_percentiles_leave_nan_out():
    assert percentile_interval(np.array([np.nan, 0.0, 1.0]), 0.5) == (0.25, 0.75)
