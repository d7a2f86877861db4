"""Closed forms against brute force on small cases."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from stability import function
from stability.function import effects, explained_alone, redundancy, removal_cost, sums

N, F, D = 60, 5, 4
RNG = np.random.default_rng(0)
Z_NF = np.maximum(RNG.normal(size=(N, F)), 0) * RNG.uniform(0.2, 2, F)
W_FD = RNG.normal(size=(F, D))
B_D = RNG.normal(size=D)
X_ND = Z_NF @ W_FD + B_D + 0.3 * RNG.normal(size=(N, D))
VARIANCE = np.square(X_ND - X_ND.mean(0)).sum()


def error(members):
    """Share of the variance that is left when only these features are there."""
    members = sorted(members)
    return np.square(X_ND - B_D - Z_NF[:, members] @ W_FD[members]).sum() / VARIANCE


def of_data():
    r_ND = X_ND - B_D - Z_NF @ W_FD
    return effects(
        Z_NF.T @ Z_NF, Z_NF.T @ r_ND, W_FD, np.square(r_ND).sum(), np.square(X_ND - B_D).sum(), VARIANCE, Z_NF.sum(0), r_ND.sum(0), N
    )


EFFECTS = of_data()
ALL = set(range(F))
SUBSETS = [set(c) for n in range(F + 1) for c in itertools.combinations(range(F), n)]


def mask(members):
    return np.isin(np.arange(F), list(members))


def test_removing_and_keeping_any_set_is_what_brute_force_says():
    of_sets = sums(EFFECTS, np.stack([mask(m) for m in SUBSETS]))
    np.testing.assert_allclose(EFFECTS.left + removal_cost(of_sets), [error(ALL - m) for m in SUBSETS], rtol=1e-10)
    np.testing.assert_allclose(EFFECTS.left_by_bias - explained_alone(of_sets), [error(m) for m in SUBSETS], rtol=1e-10, atol=1e-12)


def test_putting_the_mean_in_the_place_of_any_set_is_what_brute_force_says():
    def left(gone):
        z_NF = np.where(mask(gone), Z_NF.mean(0), Z_NF)
        return np.square(X_ND - B_D - z_NF @ W_FD).sum() / VARIANCE

    of_sets = sums(EFFECTS, np.stack([mask(m) for m in SUBSETS]), function.MEAN)
    np.testing.assert_allclose(EFFECTS.left + removal_cost(of_sets), [left(m) for m in SUBSETS], rtol=1e-10)
    np.testing.assert_allclose(left(ALL) - explained_alone(of_sets), [left(ALL - m) for m in SUBSETS], rtol=1e-10, atol=1e-12)
    # A feature that is always as active tells nothing: its mean does as well, zero does not.
    constant = effects(np.full((1, 1), 4.0 * N), np.zeros((1, 2)), np.eye(1, 2), 1.0, 5.0 * N, 2.0, np.array([2.0 * N]), np.zeros(2), N)
    assert removal_cost(sums(constant, np.ones((1, 1)), function.MEAN)) == pytest.approx(0, abs=1e-12)
    assert removal_cost(sums(constant, np.ones((1, 1)))) == pytest.approx(2.0 * N)


def test_removing_nothing_changes_nothing_and_removing_everything_leaves_the_bias():
    nothing, everything = (sums(EFFECTS, mask(m)[None]).row(0) for m in (set(), ALL))
    assert removal_cost(nothing) == 0.0 and EFFECTS.left == error(ALL)
    assert EFFECTS.left + removal_cost(everything) == pytest.approx(EFFECTS.left_by_bias, rel=1e-12) == pytest.approx(error(set()))


def test_the_marginal_effect_is_that_of_one_feature_token_by_token():
    """STUDY's formula: f²‖d‖² − 2f⟨x̂ − x, d⟩, before removal."""
    r_ND = Z_NF @ W_FD + B_D - X_ND
    by_token = Z_NF**2 * np.square(W_FD).sum(1) - 2 * Z_NF * (r_ND @ W_FD.T)
    np.testing.assert_allclose(EFFECTS.marginal_F, by_token.sum(0) / VARIANCE, rtol=1e-10)


@pytest.mark.parametrize("m", range(F))
def test_means_over_random_choices_are_means_over_all_choices(m):
    of_set = sums(EFFECTS, mask({0, 1, 2, 4})[None]).row(0)
    choices = [set(c) for c in itertools.combinations([0, 1, 2, 4], m)]
    if m > 4:
        return
    assert removal_cost(of_set, m) == pytest.approx(np.mean([error(ALL - c) for c in choices]) - error(ALL), abs=1e-12)
    assert explained_alone(of_set, m) == pytest.approx(error(set()) - np.mean([error(c) for c in choices]), abs=1e-12)


def test_more_than_there_are_cannot_be_removed():
    of_set = sums(EFFECTS, mask({0, 1})[None]).row(0)
    assert np.isnan(removal_cost(of_set, 3)) and np.isnan(explained_alone(of_set, 3))


def test_shapley_values_are_means_over_all_orders_and_add_up():
    by_hand = np.zeros(F)
    for order in itertools.permutations(range(F)):
        there = set()
        for feature in order:
            by_hand[feature] += error(there) - error(there | {feature})
            there.add(feature)
    np.testing.assert_allclose(EFFECTS.shapley_F, by_hand / math.factorial(F), rtol=1e-9, atol=1e-12)
    assert EFFECTS.shapley_F.sum() == pytest.approx(error(set()) - error(ALL), rel=1e-10)


def test_features_that_stand_in_for_each_other_have_weak_marginals_and_a_strong_joint_effect():
    """Two features share one direction, each holding half: with both gone everything of it is lost, with one gone a quarter of that."""
    z = np.abs(RNG.normal(size=(N, 1))).repeat(2, axis=1) / 2
    w = np.array([[1.0, 0], [1, 0]])
    x = z @ w
    of = effects(z.T @ z, np.zeros((2, 2)), w, 0.0, np.square(x).sum(), np.square(x).sum(), z.sum(0), np.zeros(2), len(z))
    of_both = sums(of, np.ones((1, 2))).row(0)
    assert (
        removal_cost(of_both) == pytest.approx(1.0) and of_both.marginal == pytest.approx(0.5) and redundancy(of_both) == pytest.approx(0.5)
    )


def test_partial_correlation_takes_out_what_is_given():
    rng = np.random.default_rng(1)
    rate = rng.normal(size=2000)
    noise = rng.normal(size=(2, 2000))
    x, y = rate + 0.5 * noise[0], rate + 0.5 * noise[1]
    assert scipy.stats.spearmanr(x, y).statistic > 0.7
    assert abs(function.partial_correlation(x, y, rate[:, None])) < 0.06
    assert function.partial_correlation(x, y + noise[0], rate[:, None]) > 0.5
    assert np.isnan(function.partial_correlation(rate, y, rate[:, None]))  # nothing of x is left
    once = function.partial_correlation(x, y + noise[0], rate[:, None])
    twice = np.stack([rate, 2 * rate, np.ones_like(rate)], axis=1)  # what is said twice counts once, a constant says nothing
    assert function.partial_correlation(x, y + noise[0], twice) == pytest.approx(once, abs=1e-9)
    assert np.isnan(function.partial_correlation(x[:3], y[:3], rate[:3, None]))  # too few


def test_without_anything_given_it_is_spearmans():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 50))
    assert function.partial_correlation(x, y, np.zeros((50, 0))) == pytest.approx(scipy.stats.spearmanr(x, y).statistic)


def test_within_bins_compares_like_with_like():
    rate = np.arange(40.0)
    one = np.arange(40) % 2 == 0
    one[30:] = False  # the most frequent are all of the other kind
    means = function.within_bins(rate + 5 * one, rate, one, ~one, 4)
    assert means[2].tolist() == [5, 5, 5, 0] and means[3].tolist() == [5, 5, 5, 10] and np.isnan(means[0][3])
    for b in range(3):
        assert means[0][b] - means[1][b] == pytest.approx(5 - 1)  # evens lie one below odds
    assert np.isnan(function.within_bins(rate, rate, one & False, one & False, 4)[0]).all()


def test_sign_flips_are_exact_for_few_seeds_and_drawn_for_many():
    d = np.array([0.3, 0.5, -0.1, 0.2])
    by_hand = np.mean([abs(np.dot(s, d)) >= abs(d.sum()) - 1e-15 for s in itertools.product([1, -1], repeat=4)])
    assert function.sign_flips(d) == by_hand
    assert function.sign_flips(np.ones(8)) == 2 / 2**8
    assert function.sign_flips(np.array([np.nan, *d])) == by_hand and np.isnan(function.sign_flips(np.array([np.nan])))
    rng = np.random.default_rng(0)
    assert function.sign_flips(rng.normal(size=40) + 2) < 1e-4 < 0.05 < function.sign_flips(np.tile([1.0, -1.1], 20))


def test_grid():
    assert function.grid(9) == [1, 2, 4, 8] and function.grid(1) == [1] and function.grid(0) == []
