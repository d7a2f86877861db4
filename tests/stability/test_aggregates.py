import numpy as np
import pytest
import scipy.stats

from stability import aggregates
from stability.estimates import Count, Estimate
from stability.reappearance import allowed_misses

RNG = np.random.default_rng(0)


def hits(s=6, f=40, p=None):
    p = RNG.random(f) if p is None else p
    x = RNG.random((s, s, f)) < p
    x[np.arange(s), np.arange(s)] = False
    return x


def test_pair_mean_drops_self_pairs_and_weighs_by_multiplicity():
    values = np.array([[np.nan, 1.0, 2.0], [3.0, np.nan, 4.0], [5.0, 6.0, np.nan]])
    assert aggregates.pair_mean(values, np.ones(3)) == 3.5
    assert aggregates.pair_mean(values, np.array([2, 1, 0])) == 2.0
    assert np.isnan(aggregates.pair_mean(values, np.array([3, 0, 0])))


def test_labels_under_weights_equal_labels_on_the_repeated_seeds():
    x, weights = hits(), np.array([2, 0, 1, 1, 1, 1])  # as many comparisons as without weights
    stable, unstable = aggregates.label_masks(x, 0.2, weights)
    for a in range(6):
        others = np.repeat(np.arange(6), weights)
        others = others[others != a]
        counts = x[a, others].sum(0)
        slack = allowed_misses(5, 0.2)
        assert (stable[a] == (counts >= len(others) - slack)).all() and (unstable[a] == (counts <= slack)).all()


def test_share_reappearing_by_hand():
    x, among = hits(3, 10), RNG.random((3, 10)) < 0.5
    among[2] = False
    share = aggregates.share_reappearing(x, among)
    np.testing.assert_allclose(share[0, 1], x[0, 1][among[0]].mean())
    assert np.isnan(share[2]).all() and np.isnan(share[1, 1])


@pytest.mark.parametrize("s", [5, 8, 21])
def test_intervals_of_pair_means_cover(s):
    """Simulated seeds with seed effects, which every pair shares: the interval covers as often as it says."""
    inside, trials = 0, 300
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        effect = rng.normal(size=s)
        values = effect[:, None] + effect[None] + 0.1 * rng.normal(size=(s, s))
        np.fill_diagonal(values, np.nan)
        e = aggregates.jackknifed(lambda w, v=values: aggregates.pair_mean(v, w), s, 0.95, null=None, unit="")
        inside += e.low <= 0.0 <= e.high
    assert 0.92 <= inside / trials <= 0.99


@pytest.mark.parametrize("s", [8, 21, 22])
def test_leaving_one_out_of_a_label_share_stays_near_the_share(s):
    """Also where one seed fewer would lower the number of comparisons that a label may miss (21 → 20)."""
    x = hits(s, 4000, p=np.full(4000, 0.93))
    share = aggregates.label_share(x, np.ones((s, 4000), bool), 0.05, True)
    without = [share(1.0 - np.eye(s)[i]) for i in range(s)]
    assert abs(np.mean(without) - share(np.ones(s))) < 0.06


def test_jackknife_of_a_mean_is_the_t_interval():
    x = RNG.normal(size=9)
    e = aggregates.jackknifed(lambda w: aggregates.seed_mean(x, w), 9, 0.95, null=None, unit="")
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


def test_means_among_features_leave_out_what_is_undefined():
    values = np.arange(12.0).reshape(2, 2, 3)
    values[0, 1, 2] = np.nan
    among = np.array([[True, False, True], [True, True, True]])
    np.testing.assert_allclose(aggregates.mean_among(values, among), [[np.nan, 3.0], [7.0, np.nan]])
    assert np.isnan(aggregates.mean_among(values, np.zeros((2, 3), bool))).all()


def test_the_rise_per_doubling_has_the_interval_of_its_difference():
    before, after = (RNG.uniform(size=(6, 6)) for _ in range(2))
    rise = aggregates.rise_per_doubling(before, after, 2.0)
    off = ~np.eye(6, dtype=bool)
    assert rise(np.ones(6)) == pytest.approx((after[off].mean() - before[off].mean()) / 2)
    flat = aggregates.jackknifed(aggregates.rise_per_doubling(before, before, 1.0), 6, 0.95, null=0.0, unit="")
    assert (flat.value, flat.low, flat.high) == (0, 0, 0)


def test_labels_chosen_without_a_comparison_leave_it_unbiased():
    """Where all features match alike by chance, unstable ones do so too in the comparison that did not label them."""
    hits = np.random.default_rng(0).uniform(size=(8, 8, 4000)) < 0.2
    hits[np.arange(8), np.arange(8)] = False
    everyone = np.ones((8, 4000), bool)
    table = aggregates.held_out(hits, hits, everyone, 0.05, stable=False)
    assert np.isnan(np.diag(table)).all() and np.nanmean(table) == pytest.approx(0.2, abs=0.01)
    unstable = aggregates.label_masks(hits, 0.05, np.ones(8))[1]
    assert np.nanmean(aggregates.share_reappearing(hits, unstable)) == 0  # what the labels make of it
    cosine = np.where(hits, 0.9, 0.1)
    np.testing.assert_allclose(aggregates.held_out(cosine, hits, everyone, 0.05, stable=False), 0.1 + 0.8 * table, atol=1e-9)


def test_a_null_that_could_not_be_measured_is_none():
    e = aggregates.jackknifed(lambda w: 1.0, 4, 0.95, null=float("nan"), unit="")
    assert e.null is None and e.value == 1.0


def test_two_seeds_have_no_other_comparison_to_label_by():
    hits = np.ones((2, 2, 5), bool)
    assert np.isnan(aggregates.held_out(hits, hits, np.ones((2, 5), bool), 0.05, stable=False)).all()


def test_strata_are_left_out_each_around_its_own_mean():
    """A mean of two sets of different spread, against its standard error; what leaving one out shifts in common is no spread."""
    rng = np.random.default_rng(0)
    covered, halves = 0, []
    for _ in range(400):
        values = np.concatenate([rng.normal(0, 1, 8), rng.normal(0, 0.2, 5)])
        strata = (range(8), range(8, 13))

        def statistic(k, values=values, strata=strata):
            kept = [[i for i in s if i != k] for s in strata]
            return float(sum(values[i].mean() for i in kept)) + (0.5 if k is not None else 0.0)

        e = aggregates.stratified_jackknifed(statistic, strata, 0.95, null=0.0, unit="")
        covered += e.low <= 0 <= e.high
        halves.append((e.high - e.low) / 2)
    assert 0.92 <= covered / 400 <= 0.985 and e.n.number == 13
    assert np.mean(halves) == pytest.approx(2.3 * np.sqrt(1 / 8 + 0.04 / 5), rel=0.1)
    nothing = aggregates.stratified_jackknifed(lambda k: float("nan"), strata, 0.95, null=0.1, unit="")
    assert nothing.value is None and nothing.null == 0.1
    exact = aggregates.stratified_jackknifed(lambda k: 0.9, strata, 0.95, null=None, unit="", bounds=(0.0, 1.0))
    assert (exact.low, exact.value, exact.high) == (0.9, 0.9, 0.9)


def test_groups_have_an_interval_of_their_own():
    e = aggregates.of_groups([0.2, 0.4], 0.95, null=0.1, unit="share", bounds=(0.0, 1.0))
    assert (e.value, e.low, e.high, e.null, e.n.number, e.n.of) == (pytest.approx(0.3), 0.0, 1.0, 0.1, 2, "groups")  # 12.7 · 0.1, cut
    three = aggregates.of_groups([1.0, 2.0, 3.0], 0.95, null=None, unit="")
    assert (three.high - three.low) / 2 == pytest.approx(4.3027 / np.sqrt(3), rel=1e-3)
    assert aggregates.of_groups([0.2], 0.95, null=None, unit="").low is None
    assert aggregates.of_groups([0.2, float("nan")], 0.95, null=None, unit="").value is None


def test_variance_of_another_source_widens_the_interval_as_if_it_were_known():
    values = RNG.normal(size=8)
    mean = lambda w: float((w * values).sum() / w.sum())
    knife = lambda statistic, other: aggregates.jackknifed(statistic, 8, 0.95, null=None, unit="", other_variance=other)
    of_seeds = values.var(ddof=1) / 8
    for other in (0.0, of_seeds, 100 * of_seeds):
        df = 7 * ((of_seeds + other) / of_seeds) ** 2
        e = knife(mean, other)
        np.testing.assert_allclose((e.high - e.low) / 2, scipy.stats.t.ppf(0.975, df) * np.sqrt(of_seeds + other), rtol=1e-9)
    alike = knife(lambda w: 1.0, 0.04)  # seeds agree: the other source is all there is
    np.testing.assert_allclose(alike.high - 1, scipy.stats.norm.ppf(0.975) * 0.2)


def estimate_of(values_S, documents=(), other=0.0, log=False):
    mean = lambda w: float((w * values_S).sum() / w.sum())
    return aggregates.jackknifed(mean, len(values_S), 0.95, null=None, unit="", documents=list(documents), other_variance=other, log=log)


def test_a_part_of_the_text_left_out_widens_the_interval_by_its_jackknife_variance():
    values, text = RNG.normal(1, 0.1, 8), RNG.normal(1, 0.02, 10)
    of_seeds, of_text = values.var(ddof=1) / 8, 9 / 10 * np.sum((text - text.mean()) ** 2)
    df = (of_seeds + of_text) ** 2 / (of_seeds**2 / 7 + of_text**2 / 9)
    e = estimate_of(values, text)
    np.testing.assert_allclose((e.high - e.low) / 2, scipy.stats.t.ppf(0.975, df) * np.sqrt(of_seeds + of_text), rtol=1e-9)
    assert e.replicates.without_document == tuple(text) and estimate_of(values).replicates.without_document == ()
    # A part without which there is no figure, or no logarithm of it, gives no interval, as a seed does.
    for broken, log in (([1.0, float("nan")], False), (text[:1], False), ([1.0, 0.0], True)):
        none = estimate_of(values, broken, log=log)
        assert none.value == e.value and none.low is none.high is none.replicates is None


def test_the_change_of_a_pair_has_the_interval_of_the_differences():
    """Seeds that differ far more from each other than each does from itself before: the ends alone know nothing of the change, the pair does."""
    before = RNG.normal(0, 1, 8)
    after = before + 0.3 + RNG.normal(0, 0.01, 8)
    text = RNG.normal(0, 0.2, 10)
    one, other = estimate_of(before, text), estimate_of(after, text + 0.3 + RNG.normal(0, 0.001, 10))
    half = aggregates.change(one.replicates, other.replicates)
    of_differences = estimate_of(after - before, np.subtract(other.replicates.without_document, text))
    np.testing.assert_allclose(half, (of_differences.high - of_differences.low) / 2, rtol=1e-9)
    assert half < 0.02 < 0.5 < one.high - one.low
    # Text that only one of them knows, and sources that they do not share, add up.
    apart = aggregates.change(estimate_of(before, text).replicates, estimate_of(after, text[:9]).replicates)
    assert apart > 10 * half
    wide = aggregates.change(estimate_of(before, other=0.04).replicates, estimate_of(after, other=0.05).replicates)
    np.testing.assert_allclose(wide, scipy.stats.norm.ppf(0.975) * 0.3, rtol=1e-2)
    with pytest.raises(ValueError, match="8 and 7 seeds are no pair"):
        aggregates.change(one.replicates, estimate_of(before[:7]).replicates)


def test_replicates_of_ratios_are_of_the_ratio_itself():
    e = estimate_of(RNG.lognormal(0, 0.1, 6), other=0.01, log=True)
    assert e.replicates.other_variance == pytest.approx(0.01 * e.value**2) and min(e.replicates.without_seed) < e.value
    stored = e.as_dict()["replicates"]
    np.testing.assert_allclose(stored["without_seed"], e.replicates.without_seed, rtol=1e-6)
    assert "replicates" not in Estimate(1.0, None, None, None, Count(2, "seeds"), "").as_dict()
