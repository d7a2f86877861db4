"""SAEs put together from the features of several do what those did."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saes import assembly, calibration
from saes.dictionary import ARCHITECTURES, Dictionary, decode, encode

F, D, K = 12, 8, 3
RNG = np.random.default_rng(0)


def sae(architecture, seed=0, **changes):
    rng = np.random.default_rng(seed)
    of = lambda *shape: rng.normal(size=shape).astype(np.float32)
    leaves = {"w_enc_DF": of(D, F), "b_enc_F": of(F), "w_dec_FD": of(F, D), "b_dec_D": of(D)}
    leaves |= {"threshold_F": np.abs(of(F))} if architecture == "jumprelu" else {}
    leaves |= {"r_mag_F": 0.3 * of(F), "b_mag_F": of(F)} if architecture == "gated" else {}
    return Dictionary(**leaves, architecture=architecture, k=K if architecture == "topk" else 0, **changes)


def activations(d, x):
    return np.asarray(encode(jax.device_put(d), jnp.asarray(x)))


def reconstructions(d, x):
    return np.asarray(decode(jax.device_put(d), jnp.asarray(activations(d, x))))


X = RNG.normal(size=(64, D)).astype(np.float32)


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_feature_alone_does_what_it_did_beside_another_bias(architecture, subtract):
    one, other = (sae(architecture, seed, subtract_b_dec=subtract) for seed in range(2))
    taken = np.full(2 * F, -1)
    taken[[3, 5]], taken[[F + 3, F + 8]] = [0, 1], [2, 3]
    made = assembly.assembled([one, other], taken)
    np.testing.assert_allclose(made.b_dec_D, (one.b_dec_D + other.b_dec_D) / 2, rtol=1e-6)
    np.testing.assert_allclose(made.w_dec_FD, np.concatenate([one.w_dec_FD[[3, 5]], other.w_dec_FD[[3, 8]]]), rtol=1e-6)
    if architecture == "topk":  # among fewer features others are the largest
        one, other, made = (dataclasses.replace(d, architecture="standard") for d in (one, other, made))
    found, expected = activations(made, X), np.concatenate([activations(one, X)[:, [3, 5]], activations(other, X)[:, [3, 8]]], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert (expected > 0).any()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_copies_of_one_sae_are_that_sae(architecture):
    one = sae(architecture)
    made = assembly.assembled([one] * 3, np.concatenate([np.arange(F), np.full(2 * F, -1)]))
    for name, value in vars(one).items():
        np.testing.assert_array_equal(np.asarray(getattr(made, name)), np.asarray(value), err_msg=name)
    of_all = assembly.assembled([one] * 3, np.tile(np.arange(F), 3))
    np.testing.assert_allclose(of_all.w_dec_FD, one.w_dec_FD, rtol=1e-5)
    np.testing.assert_allclose(reconstructions(of_all, X), reconstructions(one, X), atol=1e-4)


def test_a_group_is_the_mean_of_its_encoders_along_the_given_direction():
    one, other = sae("topk", 0), sae("topk", 1)
    rows = np.eye(D, dtype=np.float32)[:1]
    made = assembly.assembled([one, other], np.where(np.arange(2 * F) % F == 2, 0, -1), rows)
    np.testing.assert_allclose(made.w_enc_DF[:, 0], (one.w_enc_DF[:, 2] + other.w_enc_DF[:, 2]) / 2, rtol=1e-5)
    lengths = [np.linalg.norm(d.w_dec_FD[2]) for d in (one, other)]
    np.testing.assert_allclose(made.w_dec_FD, rows * np.mean(lengths), rtol=1e-5)


def test_what_does_not_go_together_is_named():
    with pytest.raises(ValueError, match="several kinds"):
        assembly.assembled([sae("topk"), sae("jumprelu")], np.arange(2 * F))
    with pytest.raises(ValueError, match="1 come from nowhere"):
        assembly.assembled([sae("topk")], np.where(np.arange(F) == 0, 1, 0) * 2)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_features_are_added_behind(architecture):
    one = sae(architecture)
    w, b = RNG.normal(size=(D, 2)), np.array([0.5, -0.5])
    more = assembly.with_features(one, w, b, np.ones((2, D)))
    assert more.w_dec_FD.shape == (F + 2, D) and (more.w_dec_FD[:F] == one.w_dec_FD).all()
    if architecture == "topk":
        more, one = (dataclasses.replace(d, architecture="standard") for d in (more, one))
    np.testing.assert_allclose(activations(more, X)[:, :F], activations(one, X), atol=1e-5)
    np.testing.assert_allclose(activations(more, X)[:, F:], np.maximum((X - one.b_dec_D) @ w + b, 0), atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_padding_never_fires(architecture):
    one = sae(architecture)
    filled = assembly.padded(one, 20)
    z = activations(filled, X)
    np.testing.assert_array_equal(z[:, F:], 0)
    np.testing.assert_allclose(z[:, :F], activations(one, X), atol=1e-5)
    assert assembly.padded(one, 3) is one


def batches():
    rng = np.random.default_rng(3)
    return [rng.normal(size=(n, D)).astype(np.float32) for n in (300, 300, 100)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_calibration_reaches_l0_and_leaves_no_mean_error(architecture):
    before = sae(architecture)
    after = calibration.calibrated(before, batches, float(K))
    assert calibration.mean_l0(after, batches()) == pytest.approx(K, abs=0.02 if architecture != "topk" else 0.5)
    x = np.concatenate(batches())
    error = (x - reconstructions(after, x)).mean(0)
    assert np.abs((x - reconstructions(before, x)).mean(0)).max() > 0.1
    # A token at a threshold may change sides with the last bit: at most what one activation adds.
    np.testing.assert_allclose(error, 0, atol={"jumprelu": 3 / len(x) * np.abs(before.w_dec_FD).max()}.get(architecture, 2e-3))
    np.testing.assert_array_equal(after.w_dec_FD, before.w_dec_FD)
    if architecture == "topk":
        np.testing.assert_allclose(activations(after, x), activations(before, x), atol=1e-4)


@pytest.mark.parametrize("architecture", ["standard", "gated", "jumprelu"])
def test_where_most_would_have_to_fire_thresholds_stay(architecture):
    before = sae(architecture)
    after = calibration.calibrated(before, batches, F / 2 + 0.5)
    x = np.concatenate(batches())
    assert calibration.mean_l0(after, batches()) == pytest.approx(calibration.mean_l0(before, batches()), abs=0.05)
    np.testing.assert_allclose(activations(after, x), activations(before, x), atol=1e-2)


def test_calibration_needs_tokens():
    with pytest.raises(ValueError, match="no activations to calibrate on"):
        calibration.mean_l0(sae("topk"), [])
    for architecture in ARCHITECTURES:
        with pytest.raises(ValueError, match="no activations to calibrate on"):
            calibration.calibrated(sae(architecture), list, float(K))
