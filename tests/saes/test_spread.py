"""Variances, moments and explained variance where the mean is large beside the spread, against NumPy in float64 on the same rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.pooling import scoring
from saes import autoencoder, contributions, masking, moments, spread
from saes.dictionary import Dictionary
from saes.evaluation import evaluate, explained_inside
from saes.preprocessing import geometric_median, norm_scale
from stability.function import effects, removal_cost, sums

RATIOS = (0.0, 1.0, 1e2, 1e3, 1e4, 1e5)


def rows(ratio, n=700, d=6, seed=0):
    """Float32 rows whose mean is `ratio` times their spread."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) + ratio * np.ones(d)).astype(np.float32)


def batches(x, size):
    return (x[i : i + size] for i in range(0, len(x), size))


def sae(x, f=10):
    rng = np.random.default_rng(1)
    w = rng.normal(size=(f, x.shape[1])).astype(np.float32)
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    return Dictionary(
        w.T.copy(), np.full(f, -0.3, np.float32), 0.4 * w, x.mean(0, dtype=np.float64).astype(np.float32), architecture="standard"
    )


def explained(d, x):
    x8, w8 = x.astype(np.float64), [np.asarray(a, np.float64) for a in (d.w_enc_DF, d.b_enc_F, d.w_dec_FD, d.b_dec_D)]
    left = x8 - np.maximum((x8 - w8[3]) @ w8[0] + w8[1], 0) @ w8[2] - w8[3]
    return 1 - np.square(left).sum() / np.square(x8 - x8.mean(0)).sum()


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize(("n", "d", "size"), [(700, 6, 256), (700, 6, 1000), (65, 3, 64), (9, 1, 2), (5, 4, 1)])
def test_a_spread_is_numpys(ratio, n, d, size):
    x, of = rows(ratio, n, d), None
    for x_BD in batches(x, size):
        of = spread.with_rows(of, x_BD)
    x8, b = x.astype(np.float64), x[0].astype(np.float64) + 1
    assert of.rows == n and of.variance == pytest.approx(np.square(x8 - x8.mean(0)).sum(), rel=1e-12)
    np.testing.assert_allclose(of.mean_D, x8.mean(0), rtol=1e-14, atol=1e-14)
    assert of.from_point(b) == pytest.approx(np.square(x8 - b).sum(), rel=1e-12)
    one, other = spread.of_rows(x[: n // 2]), spread.of_rows(x[n // 2 :])
    assert spread.added(one, other).variance == pytest.approx(of.variance, rel=1e-11)


def test_rows_that_are_all_alike_have_no_variance_and_nothing_is_a_share_of_it():
    x = np.repeat(rows(1e3, 1), 50, 0)
    of = spread.with_rows(spread.with_rows(None, x[:30]), x[30:])
    assert of.variance == 0 and np.isnan(spread.share(1.0, of.variance))
    d = sae(rows(0))
    assert np.isnan(evaluate(jax.tree.map(lambda a: jnp.asarray(a)[None], d), [x], 1).explained_variance_S).all()
    m = moments.measure(d, [x])
    assert np.isnan(
        effects(m.zz_FF, m.zr_FD, d.w_dec_FD, m.error, m.x.from_point(d.b_dec_D), m.variance, m.z_sum_F, m.r_sum_D, m.rows).left
    )
    assert np.isnan(moments.refitted_explained_variance(m, m, d, np.arange(4)))
    assert np.isnan(scoring.explained_by_means([d, d], x)[0]) and np.isnan(explained_inside([d], x, np.eye(6)[:, :2])).all()
    found = contributions.measure([d, d], [[np.arange(3)] * 2], [[np.arange(3, 6)] * 2], lambda size: batches(x, size), 2)
    assert np.isnan(found.energy_CS).all()


@pytest.mark.parametrize("ratio", RATIOS)
def test_every_place_gives_the_same_explained_variance(ratio):
    x = rows(ratio)
    d = sae(x)
    right = explained(d, x)
    found = evaluate(jax.tree.map(lambda a: jnp.asarray(a)[None], d), batches(x, 256), 1)
    m = moments.added(moments.measure(d, batches(x[:300], 128)), moments.measure(d, batches(x[300:], 128)))
    eff = effects(m.zz_FF, m.zr_FD, d.w_dec_FD, m.error, m.x.from_point(d.b_dec_D), m.variance, m.z_sum_F, m.r_sum_D, m.rows)
    variance = spread.of_rows(x).variance
    of_choices = 1 - masking.errors_of_choices(d, batches(x, 256), np.ones((1, 10), bool))[0] / variance
    of_means = scoring.explained_by_means([d, d], x)[0]
    of_all = explained_inside([d], x, np.eye(6))[0]
    np.testing.assert_allclose([found.explained_variance_S[0], 1 - eff.left, of_choices, of_means, of_all], right, atol=1e-6)
    everything = sums(eff, np.ones((1, 10))).row(0)
    assert eff.left + removal_cost(everything) == pytest.approx(eff.left_by_bias, abs=1e-6)


@pytest.mark.parametrize("mean", [0.0, 1e2, 1e4])
def test_a_feature_that_is_nearly_constant_is_refitted_as_well_as_any(mean):
    """The decoder's bias does not hold the mean: features do."""
    rng = np.random.default_rng(0)
    z = np.concatenate([mean + 8 + rng.normal(size=(600, 1)), np.abs(rng.normal(size=(600, 3)))], axis=1)
    x = z.astype(np.float32)
    d = Dictionary(
        np.eye(4, dtype=np.float32), np.zeros(4, np.float32), np.eye(4, dtype=np.float32), np.zeros(4, np.float32), architecture="standard"
    )
    m = moments.measure(d, batches(x, 256))
    x8 = x.astype(np.float64)
    np.testing.assert_allclose(m.zz_FF, x8.T @ x8, rtol=1e-6)
    assert moments.refitted_explained_variance(m, m, d, np.arange(4)) == pytest.approx(1, abs=1e-5)
    without = 1 - np.square(x8[:, 0] - x8[:, 0].mean()).sum() / m.variance
    assert moments.refitted_explained_variance(m, m, d, np.arange(1, 4)) == pytest.approx(without, abs=1e-2)


@pytest.mark.parametrize("ratio", [0.0, 1e3, 1e5])
def test_training_measures_the_variance_of_its_batch(ratio):
    x = rows(ratio, 4096)
    x8 = x.astype(np.float64)
    right = np.square(x8 - x8.mean(0)).sum(1).mean()
    assert float(autoencoder.variance(jnp.asarray(x))) == pytest.approx(right, rel=1e-5)


@pytest.mark.parametrize("ratio", [1e3, 1e5])
def test_training_starts_at_the_median_of_rows_far_from_zero(ratio):
    x = rows(ratio, 500)
    assert norm_scale(x) > 0  # these are not all alike
    near = geometric_median(jnp.asarray(x.astype(np.float64) - x.mean(0, dtype=np.float64), jnp.float32))
    away = np.asarray(geometric_median(jnp.asarray(x)), np.float64) - x.mean(0, dtype=np.float64)
    np.testing.assert_allclose(away, near, atol=1e-3 + 2e-7 * ratio)
