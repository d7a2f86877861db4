"""Loss and gradients of every variant against NumPy; the traps that each is known for; what is exported."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saes import autoencoder, jumprelu
from saes.dictionary import decode, encode
from saes.variants import variant
from tests.saes import reference
from tests.saes.settings import VARIANTS, knobs, sae

F, D, B, K = 24, 10, 16, 4
SPARSITY = 0.7
DEAD = {"none": np.zeros(F, bool), "a third": np.arange(F) % 3 == 0, "one": np.arange(F) == 5}


def settings(name):
    return sae(variant=name, n_features=F, k=K, aux_k=3, jump_threshold=0.1, jump_bandwidth=0.2, pre_act_weight=0.3)


def setup(name, seed=0):
    """Parameters away from their symmetric start, decoder rows of different norms where they may be."""
    keys = iter(jax.random.split(jax.random.key(seed), 12))
    params = variant(name).init(next(keys), settings(name), 0.1 * jax.random.normal(next(keys), (D,)))
    moved = {}
    for field, leaf in vars(params).items():
        moved[field] = leaf + 0.1 * jax.random.normal(next(keys), leaf.shape)
    if variant(name).unit_rows:
        moved["w_dec_FD"] = autoencoder.unit_rows(moved["w_dec_FD"])
    return params.replace(**moved), jax.random.normal(next(keys), (B, D)) + 0.5


def as_float64(params):
    return {name: np.asarray(leaf, np.float64) for name, leaf in vars(params).items()}


def numpy_loss(name, p, frozen, x, dead):
    c = settings(name)
    return reference.loss(
        name, p, frozen, np.asarray(x, np.float64), dead, k=K, sparsity=SPARSITY, aux_k=c.aux_k, aux_weight=c.aux_weight, aux_units=c.aux_units,
        prefixes=c.prefixes(), pre_act_weight=c.pre_act_weight,
    )  # fmt: skip


@pytest.mark.parametrize("dead", DEAD.values(), ids=DEAD)
@pytest.mark.parametrize("name", VARIANTS)
def test_loss_and_gradient_agree_with_numpy(name, dead):
    params, x = setup(name)
    c, turned = settings(name), knobs(k=K, sparsity=SPARSITY)
    (value, parts), grads = jax.value_and_grad(variant(name).loss, has_aux=True)(params, c, turned, x, jnp.asarray(dead))
    p = as_float64(params)
    np.testing.assert_allclose(value, numpy_loss(name, p, p, x, dead), rtol=2e-5)
    _, z = reference.codes(name, p, np.asarray(x, np.float64), k=K)
    np.testing.assert_allclose(parts.l0, (z > 0).sum(1).mean(), rtol=1e-6)
    np.testing.assert_allclose(parts.smallest, z[z > 0].min(), rtol=1e-4)
    np.testing.assert_allclose(variant(name).encode(params, c, turned, x), z, rtol=1e-4, atol=1e-5)
    assert (np.asarray(parts.fired_F) == (z > 0).any(0)).all()

    rng = np.random.default_rng(0)
    for field, leaf in p.items():
        got = np.asarray(getattr(grads, field), np.float64)
        if field == "log_threshold_F":
            by_hand = reference.jumprelu_threshold_gradient(
                p, np.asarray(x, np.float64), dead, sparsity=SPARSITY, bandwidth=c.bandwidth(D), pre_act_weight=c.pre_act_weight
            )
            assert np.abs(by_hand).max() > 0.1
            np.testing.assert_allclose(got, by_hand, rtol=1e-3, atol=1e-4)
            continue
        direction = rng.normal(size=leaf.shape)
        at = lambda s, f=field, v=direction: numpy_loss(name, p | {f: p[f] + s * v}, p, x, dead)
        numeric = (at(1e-6) - at(-1e-6)) / 2e-6
        np.testing.assert_allclose(np.sum(got * direction), numeric, rtol=2e-3, atol=3e-4, err_msg=field)


@pytest.mark.parametrize("name", ["topk", "batchtopk", "matryoshka"])
def test_the_auxiliary_gradient_reaches_encoder_and_decoder_of_dead_features_alone(name):
    params, x = setup(name)
    dead, c = jnp.arange(F) < 6, settings(name)
    aux = lambda p: variant(name).loss(p, c, knobs(), x, dead)[0] - variant(name).loss(
        p, dataclasses.replace(c, aux_weight=0.0), knobs(), x, dead
    )[0]  # fmt: skip
    grads = jax.grad(aux)(params)
    touched = np.abs(grads.w_enc_DF).sum(0) > 1e-7
    assert touched[:6].any() and not touched[6:].any()
    assert np.abs(grads.w_dec_FD[:6]).sum() > 0
    # b_dec is no part of ê: what reaches it goes through the pre-activations of dead features alone.
    w_enc, b_enc = np.asarray(params.w_enc_DF, np.float64), np.asarray(grads.b_enc_F, np.float64)
    np.testing.assert_allclose(grads.b_dec_D, -w_enc @ b_enc, atol=1e-5)


def test_a_perfect_reconstruction_leaves_no_nan_behind():
    """Residual exactly zero while features are dead: the guarded denominator."""
    params, _ = setup("topk")
    x = jnp.tile(params.b_dec_D, (B, 1))
    params = params.replace(b_enc_F=jnp.full(F, -1.0))
    value, grads = jax.value_and_grad(lambda p: variant("topk").loss(p, settings("topk"), knobs(), x, jnp.arange(F) < 6)[0])(params)
    assert value == 0 and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_matryoshka_with_a_single_prefix_is_batchtopk():
    params, x = setup("batchtopk")
    c = dataclasses.replace(settings("matryoshka"), prefix_fractions=(1.0,))
    dead = jnp.asarray(DEAD["a third"])
    a = variant("matryoshka").loss(params, c, knobs(), x, dead)[0]
    np.testing.assert_allclose(a, variant("batchtopk").loss(params, c, knobs(), x, dead)[0], rtol=1e-6)


def test_matryoshka_weighs_every_prefix_once():
    """With codes that no feature carries every prefix has the same error: the loss is as many times it as there are prefixes."""
    params, x = setup("matryoshka")
    params = params.replace(b_enc_F=jnp.full(F, -100.0))
    value, parts = variant("matryoshka").loss(params, settings("matryoshka"), knobs(), x, jnp.zeros(F, bool))
    np.testing.assert_allclose(value, 3 * parts.squared_error, rtol=1e-6)


def test_batchtopk_keeps_k_a_token_on_average_and_differs_between_tokens():
    params, x = setup("batchtopk")
    l0 = np.sum(np.asarray(variant("batchtopk").encode(params, settings("batchtopk"), knobs(), x)) > 0, axis=1)
    assert l0.sum() == K * B and len(set(l0.tolist())) > 1


def test_l1_penalty_does_not_depend_on_how_norm_is_shared_between_encoder_and_decoder():
    params, x = setup("l1")
    c = jnp.linspace(0.5, 3.0, F)
    other = params.replace(w_enc_DF=params.w_enc_DF / c, b_enc_F=params.b_enc_F / c, w_dec_FD=params.w_dec_FD * c[:, None])
    of = lambda p: variant("l1").loss(p, settings("l1"), knobs(), x, jnp.zeros(F, bool))[0]
    np.testing.assert_allclose(of(params), of(other), rtol=1e-5)


def test_the_gate_is_trained_by_a_decoder_that_does_not_learn_from_it():
    """Without codes and penalty, all that is left is the gate's own reconstruction: it moves the encoder and not the decoder."""
    params, x = setup("gated")
    params = params.replace(b_mag_F=jnp.full(F, -100.0))
    grads = jax.grad(lambda p: variant("gated").loss(p, settings("gated"), knobs(sparsity=0.0), x, jnp.zeros(F, bool))[0])(params)
    assert np.abs(grads.w_enc_DF).max() > 0 and np.abs(grads.w_dec_FD).max() == 0


def test_the_step_counts_what_lies_above_the_threshold_before_the_jump():
    """Applied behind the jump everything below would be 0, and no pre-activation just below the threshold would move it."""
    pre, theta = jnp.asarray([[0.95], [1.05], [3.0]]), jnp.asarray([1.0])
    assert jumprelu.step(pre, theta, 0.4).tolist() == [[0.0], [1.0], [1.0]]
    below = jax.grad(lambda t: jumprelu.step(pre[:1], t, 0.4).sum())(theta)
    np.testing.assert_allclose(below, -1 / 0.4, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda t: jumprelu.jump(pre, t, 0.4).sum())(theta), -2 / 0.4, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda p: jumprelu.jump(p, theta, 0.4).sum())(pre), [[0.0], [1.0], [1.0]])


def test_thresholds_and_bandwidths_scale_with_the_width():
    wide = jumprelu.init(jax.random.key(0), sae(variant="jumprelu", jump_threshold=0.01), jnp.zeros(100))
    np.testing.assert_allclose(jnp.exp(wide.log_threshold_F), 0.1, rtol=1e-5)
    assert sae(jump_bandwidth=0.03).bandwidth(100) == pytest.approx(0.3)


@pytest.mark.parametrize("name", VARIANTS)
def test_init_is_unit_rows_and_their_transpose(name):
    params = variant(name).init(jax.random.key(0), sae(variant=name), jnp.ones(D))
    np.testing.assert_allclose(jnp.linalg.norm(params.w_dec_FD, axis=1), 1.0, rtol=1e-6)
    assert (params.w_enc_DF == params.w_dec_FD.T).all() and (params.b_dec_D == 1).all()
    others = [leaf for field, leaf in vars(params).items() if field.startswith(("b_enc", "b_gate", "b_mag", "r_mag"))]
    assert others and all((leaf == 0).all() for leaf in others)


def test_projection_and_renormalisation():
    params, x = setup("topk")
    grads = jax.grad(lambda p: variant("topk").loss(p, settings("topk"), knobs(), x, jnp.zeros(F, bool))[0])(params)
    projected = autoencoder.remove_parallel_gradient(grads.w_dec_FD, params.w_dec_FD)
    np.testing.assert_allclose(jnp.sum(projected * params.w_dec_FD, -1), 0.0, atol=1e-5)
    np.testing.assert_allclose(autoencoder.unit_rows(3 * params.w_dec_FD), params.w_dec_FD, rtol=1e-6)


@pytest.mark.parametrize("scale", [0.05, 7.0])
@pytest.mark.parametrize("name", VARIANTS)
def test_the_scale_is_folded_in(name, scale):
    """Codes divided by the scale, reconstructions in raw units: the same SAE. Of a batch's own top k the threshold is its smallest."""
    params, x = setup(name)
    z, smallest = variant(name).encode(params, settings(name), knobs(k=K), x), None
    smallest = jnp.min(jnp.where(z > 0, z, jnp.inf)) * (1 - 1e-5)
    folded = variant(name).to_dictionary(params, scale, K, smallest)
    norm_F = 1.0 if variant(name).unit_rows else jnp.linalg.norm(params.w_dec_FD, axis=-1)
    np.testing.assert_allclose(encode(folded, x / scale), z * norm_F / scale, rtol=1e-4, atol=1e-5 / scale)
    rebuilt = (z @ params.w_dec_FD + params.b_dec_D) / scale
    np.testing.assert_allclose(decode(folded, encode(folded, x / scale)), rebuilt, rtol=1e-4, atol=1e-5 / scale)
    np.testing.assert_allclose(jnp.linalg.norm(folded.w_dec_FD, axis=-1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_training_goes_on_from_what_is_exported(name):
    params, _ = setup(name)
    made = variant(name).to_dictionary(params, 0.3, K, jnp.float32(0.2))
    again = variant(name).to_dictionary(variant(name).from_dictionary(made, 5.0), 5.0, K, jnp.float32(0.2 * 5.0 / 0.3))
    for field, value in vars(made).items():
        np.testing.assert_allclose(getattr(again, field), value, rtol=1e-4, err_msg=field) if hasattr(value, "shape") else None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("k", 0), ("k", 49), ("n_features", 0), ("aux_k", -1), ("aux_k", 49), ("aux_weight", -1.0), ("aux_units", "both"), ("dead_after_tokens", 0),
        ("threshold_decay", 1.0), ("sparsity", -0.1), ("sparsity_warmup_fraction", 1.0), ("control_rate", -0.1), ("jump_threshold", 0.0),
        ("jump_bandwidth", 0.0), ("prefix_fractions", (0.5, 0.4)), ("prefix_fractions", ()),
    ],
)  # fmt: skip
def test_impossible_settings_name_the_field(field, value):
    with pytest.raises(ValueError, match=f"config.sae.{field}"):
        sae(**{field: value})


def test_groups_too_small_for_a_feature_matter_to_matryoshka_alone():
    assert sae(n_features=8, prefix_fractions=(0.01, 0.99)).n_features == 8
    with pytest.raises(ValueError, match="config.sae.prefix_fractions"):
        sae(variant="matryoshka", prefix_fractions=(0.001, 0.999))
