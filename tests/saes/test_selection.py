import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saes.selection import kth_largest, top_k_mask


def test_exactly_k_also_under_ties():
    values = jnp.asarray([[1.0, 1.0, 1.0, 0.0], [2.0, 3.0, 3.0, 3.0], [0.0, 0.0, 0.0, 0.0]])
    mask = np.asarray(top_k_mask(values, 2))
    assert mask.tolist() == [[True, True, False, False], [False, True, True, False], [True, True, False, False]]


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
