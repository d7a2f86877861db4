import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saes.dictionary import ARCHITECTURES, first_features
from saes.evaluation import evaluate
from tests.saes.dictionaries import D, F, S, make

N = 150
DICTIONARIES = make("topk")
X = np.random.default_rng(1).normal(size=(N, D)).astype(np.float32)


def run(batch_size, top_n=5, dictionaries=DICTIONARIES):
    return evaluate(jax.tree.map(jnp.asarray, dictionaries), (X[i : i + batch_size] for i in range(0, N, batch_size)), top_n)


def numpy_codes(d, s, x):
    """From the table in `Dictionary`, seed s, float64."""
    along = (x - d.b_dec_D[s] * d.subtract_b_dec) @ d.w_enc_DF[s]
    pre = along + d.b_enc_F[s]
    if d.architecture == "standard":
        return np.maximum(pre, 0)
    if d.architecture == "jumprelu":
        return np.where(pre > d.threshold_F[s], pre, 0)
    if d.architecture == "gated":
        return np.where(pre > 0, np.maximum(np.exp(d.r_mag_F[s].astype(float)) * along + d.b_mag_F[s], 0), 0)
    z = np.zeros_like(pre)
    for row, out in zip(pre, z, strict=True):
        top = np.argsort(-row)[: d.k]
        out[top] = np.maximum(row[top], 0)
    return z


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_agrees_with_numpy(architecture, subtract):
    d = dataclasses.replace(make(architecture), subtract_b_dec=subtract)
    got = run(64, dictionaries=d)
    x = X.astype(np.float64)
    for s in range(S):
        z = numpy_codes(d, s, x)
        error = np.sum((x - z @ d.w_dec_FD[s] - d.b_dec_D[s]) ** 2)
        variance = np.sum((x - x.mean(0)) ** 2)
        np.testing.assert_allclose(got.explained_variance_S[s], 1 - error / variance, rtol=1e-5)
        np.testing.assert_allclose(got.l0_S[s], (z > 0).sum(1).mean())
        assert (got.firings_SF[s] == (z > 0).sum(0)).all()
        assert got.share_firing_less_than(1)[s] == ((z > 0).sum(0) == 0).mean()
        assert got.share_firing_less_than(30)[s] == ((z > 0).sum(0) < 30).mean()
        np.testing.assert_allclose(got.max_activation_SF[s], z.max(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(got.mean_activation_SF[s] * got.firings_SF[s], z.sum(0), rtol=1e-5, atol=1e-5)
        row_norm = np.linalg.norm(d.w_dec_FD[s].astype(np.float64), axis=1)
        np.testing.assert_allclose(got.energy_SF[s], (z**2).sum(0) * row_norm**2 / variance, rtol=1e-4, atol=1e-7)
        for f in range(F):
            best = np.sort(z[:, f])[::-1][:5]
            np.testing.assert_allclose(got.top_values_SFN[s, f], best, rtol=1e-5, atol=1e-6)
            for value, row in zip(got.top_values_SFN[s, f], got.top_rows_SFN[s, f], strict=True):
                if value > 0:
                    np.testing.assert_allclose(z[row, f], value, rtol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 7, 50, 150])
def test_figures_do_not_depend_on_the_batch_size(batch_size):
    a, b = run(64), run(batch_size)
    for x, y in zip(a[:-3], b[:-3], strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-7)
    assert a.rows == b.rows == N


def test_rows_that_do_not_fit():
    with pytest.raises(ValueError, match="width 3"):
        evaluate(DICTIONARIES, [np.zeros((5, 3), np.float32)], 2)
    with pytest.raises(ValueError, match="no activations"):
        evaluate(DICTIONARIES, [], 2)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_first_features_alone_are_a_dictionary_of_their_own(architecture):
    whole = make(architecture)
    cut = first_features(whole, 5)
    assert cut.w_dec_FD.shape == (S, 5, D) and cut.w_enc_DF.shape == (S, D, 5)
    for name in ("b_enc_F", "threshold_F", "r_mag_F", "b_mag_F"):
        assert getattr(cut, name) is None or (getattr(cut, name) == getattr(whole, name)[:, :5]).all()
    assert cut.k == whole.k and (cut.b_dec_D == whole.b_dec_D).all()


def test_firings_of_parts_are_those_of_their_rows_and_add_up():
    batches = lambda: (X[i : i + 20] for i in range(0, N, 20))
    on_device = jax.tree.map(jnp.asarray, DICTIONARIES)
    got = evaluate(on_device, batches(), 1, part_rows=40)
    assert got.rows_P.tolist() == [40, 40, 40, 30]
    for p, first in enumerate(range(0, N, 40)):
        for s in range(S):
            codes = numpy_codes(DICTIONARIES, s, X[first : first + 40].astype(np.float64))
            assert (got.firings_SFP[s, :, p] == (codes > 0).sum(0)).all()
    assert (got.firings_SFP.sum(-1) == got.firings_SF).all()
    one = evaluate(on_device, batches(), 1)
    assert one.rows_P.tolist() == [N] and (one.firings_SFP[..., 0] == one.firings_SF).all()
