"""Products with codes given as places: against products with codes full of zeros, in the way of each platform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saes import autoencoder, sparse

B, D, F, K = 7, 5, 11, 3


@pytest.fixture(params=["cpu", "default"])
def way(request, monkeypatch):
    """Both ways on this platform."""
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, cpu, default: {"cpu": cpu, "default": default}[request.param](*args))


def setup():
    keys = iter(jax.random.split(jax.random.key(0), 5))
    params = autoencoder.init(next(keys), F, jax.random.normal(next(keys), (D,)))
    params = params.replace(w_enc_DF=params.w_enc_DF + jax.random.normal(next(keys), (D, F)))
    x = jax.random.normal(next(keys), (B, D))
    return params, x, jax.random.normal(next(keys), (B, D))


def by_mask(params, x, weights):
    pre = autoencoder.pre_activations(params, x)
    kept = jnp.where(pre >= jax.lax.top_k(pre, K)[0][:, -1:], pre, 0.0)
    return jnp.sum(weights * autoencoder.decode(params, jax.nn.relu(kept)))


def by_place(params, x, weights):
    pre = jax.lax.stop_gradient(autoencoder.pre_activations(params, x))
    largest, index = jax.lax.top_k(pre, K)
    z = jax.nn.relu(sparse.encode_at(params, x, largest, index))
    return jnp.sum(weights * (sparse.decode_at(params.w_dec_FD, z, index) + params.b_dec_D))


def test_value_and_gradients_are_those_of_masked_codes(way):
    params, x, weights = setup()
    expected, found = (jax.value_and_grad(f)(params, x, weights) for f in (by_mask, by_place))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected)
    assert all(np.abs(g).max() > 0.1 for g in jax.tree.leaves(found[1]))


def test_under_a_vmap_every_lane_is_its_own(way):
    params, x, weights = setup()
    two = jax.tree.map(lambda a: jnp.stack([a, -2.0 * a]), params)
    both = jax.vmap(jax.grad(by_place), in_axes=(0, None, None))(two, x, weights)
    for lane in (0, 1):
        alone = jax.grad(by_place)(jax.tree.map(lambda a, i=lane: a[i], two), x, weights)
        jax.tree.map(lambda a, b, i=lane: np.testing.assert_allclose(a[i], b, rtol=1e-5, atol=1e-5), both, alone)


def test_a_feature_of_many_tokens_gets_the_sum_of_all(way):
    index = jnp.zeros((B, 1), jnp.int32) + 4
    rows = jnp.ones((B, D))
    sums = sparse.outer_sums(jnp.arange(1.0, B + 1)[:, None], index, rows, F)
    assert sums[4].tolist() == [28.0] * D and not np.delete(sums, 4, axis=0).any()
    assert sparse.sums_at(jnp.arange(1.0, B + 1)[:, None], index, F).tolist() == [0.0] * 4 + [28.0] + [0.0] * 6
