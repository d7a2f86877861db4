"""Laws of true p that fit counts of hits, and how far p̂ repeats itself between halves of the comparisons."""

import itertools

import numpy as np
import pytest

from stability import mixing

MIDDLE = (0.2, 0.8)


def hits(p_SF, seed=0, quality=0.0):
    """Features found with their own p in every other seed, independently; seeds differ by `quality` on the scale of log odds."""
    rng = np.random.default_rng(seed)
    seeds, _ = p_SF.shape
    odds_SF = np.log(np.clip(p_SF, 1e-9, 1 - 1e-9)) - np.log1p(-np.clip(p_SF, 1e-9, 1 - 1e-9))
    shift_S = rng.normal(0, quality, seeds) if quality else np.zeros(seeds)
    out = rng.random((seeds, *p_SF.shape)).transpose(1, 0, 2) < 1 / (1 + np.exp(-(odds_SF[:, None] + shift_S[None, :, None])))
    return out & ~np.eye(seeds, dtype=bool)[:, :, None]


def law(name, seeds, features, seed=0):
    rng = np.random.default_rng((seed, 1))
    shape = (seeds, features)
    return {
        "two kinds": lambda: np.where(rng.random(shape) < 0.4, 0.01, 0.99),
        "uniform": lambda: rng.random(shape),
        "middle": lambda: rng.beta(6, 6, shape),
        "one": lambda: np.full(shape, 0.5),
    }[name]()


@pytest.mark.parametrize(
    ("name", "truth", "low", "high"),
    [("two kinds", 0.0, 0, 0.05), ("uniform", 0.6, 0.0, 1.0), ("middle", 0.98, 0.5, 1.0), ("one", 1.0, 0.8, 1.0)],
)
def test_bounds_hold_the_truth(name, truth, low, high):
    among = np.ones((8, 400), bool)
    middle = mixing.shares(hits(law(name, 8, 400)), among, [MIDDLE], 0.95)
    assert low <= middle.low_I[0] <= truth + 0.02 and truth - 0.02 <= middle.high_I[0] <= high
    assert middle.low_I[0] <= middle.value_I[0] <= middle.high_I[0]


def test_shares_of_the_ends_cannot_be_told_by_few_comparisons_and_can_by_many():
    """At p uniform, 5 % lie above 0.95, while 12 % are found in all of seven comparisons."""
    ends = [mixing.shares(hits(law("uniform", s, 600)), np.ones((s, 600), bool), [(0.95, 1.0)], 0.95) for s in (5, 24)]
    assert all(e.low_I[0] <= 0.05 <= e.high_I[0] for e in ends)
    assert ends[0].high_I[0] > 0.25 > ends[1].high_I[0]


def test_with_certain_counts_a_law_is_held_to_its_moments():
    """Of two comparisons E p and E p² are known: p is ½ for all, or 0 and 1 for half each."""
    certain = lambda shares: mixing.bounds(np.array(shares), np.eye(3), np.full(3, 1e-6), [MIDDLE, (0.45, 0.55)])
    one, two = certain([0.25, 0.5, 0.25]), certain([0.5, 0.0, 0.5])
    assert one.low_I[1] > 0.95 and two.high_I[0] < 0.05
    assert one.misfit <= 1 + 1e-5 and two.misfit <= 1 + 1e-5
    assert certain([0.0, 1.0, 0.0]).misfit > 1  # no law gives one hit of two always


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [5, 8, 21])
@pytest.mark.parametrize("name", ["two kinds", "uniform", "middle"])
def test_bounds_cover_though_seeds_differ(name, seeds):
    """The truth is of seeds drawn anew: p averaged over the quality of seeds."""
    quality, covered, draws = 0.3, 0, 60
    shift = np.random.default_rng(5).normal(0, quality, 400)
    p = np.clip(law(name, 1, 4000, 7)[0], 1e-9, 1 - 1e-9)
    true = (1 / (1 + np.exp(-(np.log(p / (1 - p))[:, None] + shift)))).mean(1)
    middle = ((true >= 0.2) & (true <= 0.8)).mean()
    for draw in range(draws):
        found = mixing.shares(hits(law(name, seeds, 300, draw), draw, quality), np.ones((seeds, 300), bool), [MIDDLE], 0.95)
        covered += found.low_I[0] - 0.01 <= middle <= found.high_I[0] + 0.01
    assert covered >= 0.93 * draws


def test_too_few_seeds_or_features_have_no_bounds():
    assert mixing.shares(hits(law("uniform", 3, 50)), np.ones((3, 50), bool), [MIDDLE], 0.95) is None
    assert mixing.shares(hits(law("uniform", 6, 50)), np.zeros((6, 50), bool), [MIDDLE], 0.95) is None


def test_reliability_is_the_mean_over_all_splits():
    found = hits(law("uniform", 6, 40))
    among = np.random.default_rng(3).random((6, 40)) < 0.8
    pairs = []
    for anchor in range(6):
        others = [s for s in range(6) if s != anchor]
        for half in itertools.combinations(others, 2):
            rest = [s for s in others if s not in half]
            pairs += zip(found[anchor, list(half)].mean(0)[among[anchor]], found[anchor, rest].mean(0)[among[anchor]], strict=True)
    x, y = np.array(pairs).T
    np.testing.assert_allclose(mixing.reliability(found, among)(np.ones(6)), np.corrcoef(x, y)[0, 1], rtol=1e-12)


def test_reliability_is_high_for_two_kinds_nil_for_one_and_counts_only_who_is_there():
    among = np.ones((8, 500), bool)
    assert mixing.reliability(hits(law("two kinds", 8, 500)), among)(np.ones(8)) > 0.95
    assert abs(mixing.reliability(hits(law("one", 8, 500)), among)(np.ones(8))) < 0.05
    assert np.isnan(mixing.reliability(np.zeros((8, 8, 500), bool), among)(np.ones(8)))
    seven = np.array([1, 1, 1, 0, 1, 1, 1, 1.0])
    found, there = hits(law("uniform", 8, 500)), np.flatnonzero(seven)
    assert mixing.reliability(found, among)(seven) == mixing.reliability(found[np.ix_(there, there)], among[there])(np.ones(7))
