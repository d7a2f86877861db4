import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saes.selection import kth_largest, largest, top_k_mask


def test_exactly_k_also_under_ties():
    values = jnp.asarray([[1.0, 1.0, 1.0, 0.0], [2.0, 3.0, 3.0, 3.0], [0.0, 0.0, 0.0, 0.0]])
    mask = np.asarray(top_k_mask(values, 2))
    assert mask.tolist() == [[True, True, False, False], [False, True, True, False], [True, True, False, False]]


@pytest.mark.parametrize(("features", "k"), [(1, 1), (7, 7), (20, 3), (33, 32), (640, 10)])
@pytest.mark.parametrize("steps", [0, 2])  # of rounding, for ties
def test_largest_is_what_xla_gives(features, k, steps):
    values = jax.random.normal(jax.random.key(features), (50, features))
    if steps:
        values = jnp.asarray(np.round(np.asarray(values) * steps) / steps + 0.0)  # no −0, which XLA ranks below 0
    for got, expected in zip(jax.jit(largest, static_argnums=1)(values, k), jax.lax.top_k(values, k), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_largest_takes_no_place_twice_where_too_few_are_finite():
    values = jnp.full((3, 12), -jnp.inf).at[:, 7].set(1.0)
    _, index = largest(values, 12)
    assert (jnp.sort(index) == jnp.arange(12)).all() and (index[:, 0] == 7).all()


@pytest.mark.parametrize("of_them", [0, 1, 3, 5])
def test_fewer_than_k_are_the_largest_of_them(of_them):
    values = jax.random.normal(jax.random.key(0), (9, 20))
    got = jax.jit(lambda v, n: top_k_mask(v, 5, n))(values, jnp.int32(of_them))
    assert (got == top_k_mask(values, of_them)).all() if of_them else not got.any()


@pytest.mark.parametrize("seed", range(5))
def test_kth_largest_is_what_sorting_gives(seed):
    rng = np.random.default_rng(seed)
    values = np.maximum(rng.normal(size=(3, 40)), 0).astype(np.float32) * np.float32(10.0 ** rng.integers(-20, 20))
    values[0, :5] = values[1, 3]  # ties
    by_sorting = np.sort(values.ravel())[::-1]
    for k in (1, 2, 17, 60, 120):
        assert float(jax.jit(kth_largest)(jnp.asarray(values), jnp.int32(k))) == by_sorting[k - 1]


def test_kth_largest_of_many_at_once_and_below_zero():
    values = jnp.asarray([[-3.0, -0.0, 0.0, -1e-30], [5.0, -7.0, 2.0, 4.0]])
    assert jax.vmap(kth_largest)(values, jnp.asarray([1, 2])).tolist() == [0.0, 4.0]
