import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from saes.preprocessing import geometric_median, norm_scale

RNG = np.random.default_rng(0)


def test_scale_makes_the_mean_norm_root_width():
    x = RNG.normal(size=(500, 9)) * 3 + 1
    np.testing.assert_allclose(np.linalg.norm(norm_scale(x) * x, axis=1).mean(), 3.0, rtol=1e-12)


def test_geometric_median_minimises_the_sum_of_distances():
    x = RNG.normal(size=(200, 4)) ** 3 + [1, 2, 3, 4]
    best = scipy.optimize.minimize(lambda m: np.linalg.norm(x - m, axis=1).sum(), x.mean(0), tol=1e-12)
    np.testing.assert_allclose(geometric_median(jnp.asarray(x, jnp.float32)), best.x, atol=2e-3)


def test_geometric_median_at_a_data_point_and_of_equal_rows():
    x = jnp.asarray([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [9.0, 9.0]])
    np.testing.assert_allclose(geometric_median(x), 0.0, atol=1e-4)
    assert (geometric_median(jnp.ones((5, 3))) == 1).all()


def test_unusable_activations_are_refused():
    with pytest.raises(ValueError, match="zero variance"):
        norm_scale(np.ones((10, 3)))
    with pytest.raises(ValueError, match="NaN"):
        norm_scale(np.array([[1.0, np.nan]]))
