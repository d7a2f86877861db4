"""One-to-one matching against SciPy, and what the auction promises."""

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from stability import matching

RNG = np.random.default_rng(0)


def unit(*shape, rng=RNG):
    w = rng.normal(size=shape).astype(np.float32)
    return w / np.linalg.norm(w, axis=-1, keepdims=True)


def best(a, b):
    cosine = (a @ b.T).astype(np.float64)
    rows, columns = scipy.optimize.linear_sum_assignment(cosine, maximize=True)
    return cosine[rows, columns].sum()


@pytest.mark.parametrize(("f", "g"), [(20, 20), (12, 30), (30, 12), (1, 1), (1, 5), (5, 1)])
@pytest.mark.parametrize("exact", [1000, 4])
def test_nobody_is_matched_twice_and_the_sum_is_the_best_within_the_gap(f, g, exact):
    a, b = unit(f, 8), unit(g, 8)
    got = matching.one_to_one(a, b, exact=exact)
    there = got.partner_F >= 0
    assert there.sum() == min(f, g) == len(set(got.partner_F[there]))
    np.testing.assert_allclose(got.cosine_F[there], np.einsum("fd,fd->f", a[there], b[got.partner_F[there]]), atol=1e-6)
    assert np.isnan(got.cosine_F[~there]).all()
    short = best(a, b) / min(f, g) - got.mean()
    assert -1e-6 < short <= got.gap + 1e-6
    assert (got.gap == 0) == (max(f, g) <= exact)


def shared_in_part(n=1500, d=32):
    common = unit(n // 2, d)
    a = np.concatenate([common, unit(n - n // 2, d)])
    noisy = np.concatenate([common + 0.3 * unit(n // 2, d), unit(n - n // 2, d)])
    order = RNG.permutation(n)
    return a, (noisy / np.linalg.norm(noisy, axis=1, keepdims=True))[order], order


def test_the_auction_is_close_and_knows_it():
    a, b, _ = shared_in_part()
    exact, auction = matching.one_to_one(a, b), matching.one_to_one(a, b, exact=100)
    assert 0 <= exact.mean() - auction.mean() <= auction.gap < 5e-3
    assert matching.agreement(exact.cosine_F >= 0.7, auction.cosine_F >= 0.7) > 0.99


def test_the_auction_finds_a_permuted_copy():
    a = unit(300, 16)
    order = RNG.permutation(300)
    got = matching.one_to_one(a, a[order], exact=10)
    assert (order[got.partner_F] == np.arange(300)).all() and got.gap < 2e-3
    np.testing.assert_allclose(got.cosine_F, 1.0, atol=1e-6)


def test_duplicated_rows_share_what_there_is():
    a = np.repeat(unit(1, 6), 40, axis=0)
    got = matching.one_to_one(a, np.concatenate([a[:20], unit(20, 6)]), exact=4)
    assert (got.cosine_F > 0.999).sum() == 20 and len(set(got.partner_F)) == 40


def test_rows_without_a_direction_take_what_is_left():
    a = unit(900, 8)
    a[100:800] = 0
    got = matching.one_to_one(a, unit(900, 8), exact=50)
    assert sorted(got.partner_F) == list(range(900)) and (got.cosine_F[100:800] == 0).all()


def test_rows_that_are_not_finite_are_refused():
    a = unit(5, 3)
    a[2, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        matching.one_to_one(a, unit(5, 3))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 999))
def test_matching_follows_permutations(seed):
    rng = np.random.default_rng(seed)
    a, b = unit(15, 4, rng=rng), unit(15, 4, rng=rng)
    p, q = rng.permutation(15), rng.permutation(15)
    assert matching.one_to_one(a[p], b[q]).mean() == pytest.approx(matching.one_to_one(a, b).mean(), abs=1e-6)


def test_agreement_of_sets():
    a, b = np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool)
    assert matching.agreement(a, b) == pytest.approx(1 / 3) and matching.agreement(a, a) == 1
    assert np.isnan(matching.agreement(a & ~a, b & ~b))


def test_agreement_by_chance_is_that_of_random_sets():
    a, b = RNG.uniform(size=(2, 200_000)) < np.array([[0.4], [0.7]])
    assert matching.agreement_by_chance(0.4, 0.7) == pytest.approx(matching.agreement(a, b), abs=0.01)
    assert matching.agreement_by_chance(1.0, 1.0) == 1 and np.isnan(matching.agreement_by_chance(0.0, 0.0))
