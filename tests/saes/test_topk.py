"""Loss and gradients against NumPy and finite differences; the traps of the auxiliary loss."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saes import topk
from saes.config import SAEConfig
from saes.dictionary import decode, encode, top_k_mask

SAE = SAEConfig(variant="topk", n_features=24, k=4, aux_k=3, aux_weight=1 / 32, dead_after_tokens=100)
D, B = 10, 16


def setup(seed=0):
    keys = jax.random.split(jax.random.key(seed), 4)
    params = topk.init(keys[0], SAE, 0.1 * jax.random.normal(keys[1], (D,)))
    params = params.replace(b_enc_F=0.1 * jax.random.normal(keys[2], (24,)), w_enc_DF=params.w_enc_DF + 0.1)
    return params, jax.random.normal(keys[3], (B, D)) + 0.5


def numpy_loss(params, x, dead, *, residual=None):
    """From the description (RECIPES: TopK, AuxK), token by token; float64. `residual` freezes the auxiliary target."""
    w_enc, b_enc, w_dec, b_dec = (np.asarray(a, np.float64) for a in (params.w_enc_DF, params.b_enc_F, params.w_dec_FD, params.b_dec_D))
    x = np.asarray(x, np.float64)
    reconstruction, dead_reconstruction = np.zeros_like(x), np.zeros_like(x)
    for i, row in enumerate(x):
        pre = (row - b_dec) @ w_enc + b_enc
        chosen = np.argsort(-pre, kind="stable")[: SAE.k]
        reconstruction[i] = b_dec + sum(max(pre[j], 0) * w_dec[j] for j in chosen)
        dead_order = [j for j in np.argsort(-pre, kind="stable") if dead[j]][: SAE.aux_k]
        dead_reconstruction[i] = sum((max(pre[j], 0) * w_dec[j] for j in dead_order), np.zeros(D))
    main = np.mean(np.sum((x - reconstruction) ** 2, axis=1))
    r = x - reconstruction if residual is None else residual
    aux = np.mean(np.sum((dead_reconstruction - r) ** 2, 1)) / np.mean(np.sum((r - r.mean(0)) ** 2, 1)) if np.any(dead) else 0.0
    return main + SAE.aux_weight * aux, r


@pytest.mark.parametrize("dead", [np.zeros(24, bool), np.arange(24) % 3 == 0, np.arange(24) == 5])
def test_loss_and_gradient_agree_with_numpy(dead):
    params, x = setup()
    (value, parts), grads = jax.value_and_grad(topk.loss, has_aux=True)(params, SAE, x, jnp.asarray(dead))
    expected, residual = numpy_loss(params, x, dead)
    np.testing.assert_allclose(value, expected, rtol=2e-5)
    assert float(parts.l0) <= SAE.k
    rng = np.random.default_rng(0)
    for field in ("w_enc_DF", "b_enc_F", "w_dec_FD", "b_dec_D"):
        direction = rng.normal(size=getattr(params, field).shape)
        at = lambda s, f=field, v=direction: numpy_loss(
            params.replace(**{f: np.asarray(getattr(params, f), np.float64) + s * v}), x, dead, residual=residual
        )[0]
        numeric = (at(1e-6) - at(-1e-6)) / 2e-6
        np.testing.assert_allclose(np.sum(np.asarray(getattr(grads, field)) * direction), numeric, rtol=2e-3, atol=2e-4)


def test_the_auxiliary_gradient_reaches_encoder_and_decoder_of_dead_features_alone():
    params, x = setup()
    dead = jnp.arange(24) < 6
    aux = lambda p: topk.loss(p, SAE, x, dead)[0] - topk.loss(p, dataclasses.replace(SAE, aux_weight=0.0), x, dead)[0]
    grads = jax.grad(aux)(params)
    touched = np.abs(grads.w_enc_DF).sum(0) > 1e-7
    assert touched[:6].any() and not touched[6:].any()
    assert np.abs(grads.w_dec_FD[:6]).sum() > 0 and np.abs(grads.b_dec_D).max() < 1e-5 + np.abs(grads.w_dec_FD).max()


def test_a_perfect_reconstruction_leaves_no_nan_behind():
    """Residual exactly zero while features are dead: the guarded denominator."""
    params, _ = setup()
    x = jnp.tile(params.b_dec_D, (B, 1))
    params = params.replace(b_enc_F=jnp.full(24, -1.0))
    value, grads = jax.value_and_grad(lambda p: topk.loss(p, SAE, x, jnp.arange(24) < 6)[0])(params)
    assert value == 0 and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_exactly_k_also_under_ties():
    values = jnp.asarray([[1.0, 1.0, 1.0, 0.0], [2.0, 3.0, 3.0, 3.0], [0.0, 0.0, 0.0, 0.0]])
    mask = np.asarray(top_k_mask(values, 2))
    assert (mask.sum(1) == 2).all()
    assert mask.tolist() == [[True, True, False, False], [False, True, True, False], [True, True, False, False]]


def test_init_is_unit_rows_and_their_transpose():
    params = topk.init(jax.random.key(0), SAE, jnp.ones(D))
    np.testing.assert_allclose(jnp.linalg.norm(params.w_dec_FD, axis=1), 1.0, rtol=1e-6)
    assert (params.w_enc_DF == params.w_dec_FD.T).all() and (params.b_enc_F == 0).all()


def test_projection_and_renormalisation():
    params, x = setup()
    grads = jax.grad(lambda p: topk.loss(p, SAE, x, jnp.zeros(24, bool))[0])(params)
    projected = topk.remove_parallel_gradient(grads, params)
    np.testing.assert_allclose(jnp.sum(projected.w_dec_FD * params.w_dec_FD, -1), 0.0, atol=1e-5)
    longer = params.replace(w_dec_FD=3 * params.w_dec_FD)
    np.testing.assert_allclose(topk.renormalise(longer).w_dec_FD, params.w_dec_FD, rtol=1e-6)


@pytest.mark.parametrize("scale", [0.05, 7.0])
def test_the_scale_is_folded_in(scale):
    """Codes divided by the scale, reconstructions in raw units: the same SAE."""
    params, x = setup()
    raw = x / scale
    folded = topk.to_dictionary(params, SAE, scale)
    pre = (x - params.b_dec_D) @ params.w_enc_DF + params.b_enc_F
    z = jnp.where(top_k_mask(pre, SAE.k), jax.nn.relu(pre), 0)
    np.testing.assert_allclose(encode(folded, raw), z / scale, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(decode(folded, encode(folded, raw)), (z @ params.w_dec_FD + params.b_dec_D) / scale, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("field", "value"),
    [("k", 0), ("k", 25), ("n_features", 0), ("aux_k", -1), ("aux_k", 25), ("aux_weight", -1.0), ("dead_after_tokens", 0)],
)
def test_impossible_settings_name_the_field(field, value):
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(SAE, **{field: value})
