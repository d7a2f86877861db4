import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saes import masking, moments
from saes.dictionary import ARCHITECTURES
from saes.evaluation import evaluate
from stability.function import effects, removal_cost, sums
from tests.saes.dictionaries import D, F, make, one
from tests.saes.test_evaluation import numpy_codes

N = 150
X_ND = np.random.default_rng(1).normal(size=(N, D)).astype(np.float32) + 0.5


def batches(size=64, x=X_ND):
    return (x[i : i + size] for i in range(0, len(x), size))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_agree_with_numpy(architecture):
    d = one(architecture)
    m = moments.measure(d, batches())
    z = numpy_codes(make(architecture), 0, X_ND.astype(np.float64))
    r = X_ND - z @ d.w_dec_FD - d.b_dec_D
    expected = {
        "rows": N, "error": np.square(r).sum(), "r_sum_D": r.sum(0),
        "firings_F": (z > 0).sum(0), "z_sum_F": z.sum(0), "zz_FF": z.T @ z, "zr_FD": z.T @ r,
    }  # fmt: skip
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(m, name), value, rtol=1e-4, atol=1e-4, err_msg=name)
    assert m.variance == pytest.approx(np.square(X_ND - X_ND.mean(0)).sum(), rel=1e-5)
    assert m.x.from_point(d.b_dec_D) == pytest.approx(np.square(X_ND - d.b_dec_D).sum(), rel=1e-5)


def test_halves_add_up_to_the_whole():
    d = one()
    both = moments.added(moments.measure(d, batches(x=X_ND[:70])), moments.measure(d, batches(x=X_ND[70:])))
    whole = moments.measure(d, batches())
    assert both.variance == pytest.approx(whole.variance, rel=1e-12) and both.rows == N
    np.testing.assert_allclose(both.x.mean_D, whole.x.mean_D, rtol=1e-12)
    for name, value in whole._replace(x=0)._asdict().items():
        if name == "x":
            continue
        np.testing.assert_allclose(getattr(both, name), value, rtol=1e-5, atol=1e-5, err_msg=name)


def test_no_tokens():
    with pytest.raises(ValueError, match="no activations"):
        moments.measure(one(), [])


def effects_of(d, m):
    return effects(m.zz_FF, m.zr_FD, d.w_dec_FD, m.error, m.x.from_point(d.b_dec_D), m.variance, m.z_sum_F, m.r_sum_D, m.rows)


def test_single_features_agree_with_brute_force():
    """The sum of what single features are worth, by their closed form and by reconstructing without each."""
    d = one()
    of = effects_of(d, moments.measure(d, batches()))
    z = numpy_codes(make(), 0, X_ND.astype(np.float64))
    lost = lambda keep: np.square(X_ND - (z * keep) @ d.w_dec_FD - d.b_dec_D).sum() / np.square(X_ND - X_ND.mean(0)).sum()
    by_hand = np.array([lost(np.arange(F) != f) - lost(np.ones(F)) for f in range(F)])
    assert of.marginal_F.sum() == pytest.approx(by_hand.sum(), rel=1e-5)
    np.testing.assert_allclose(of.marginal_F, by_hand, atol=1e-5 * np.abs(by_hand).max())
    everything = sums(of, np.ones((1, F))).row(0)
    assert of.left + removal_cost(everything) == pytest.approx(of.left_by_bias, rel=1e-5)


def test_masking_nothing_is_the_sae_as_it_is():
    d = make()
    whole = evaluate(jax.tree.map(jnp.asarray, d), batches(), 1)
    of = effects_of(one(), moments.measure(one(), batches()))
    assert 1 - of.left == pytest.approx(whole.explained_variance_S[0], rel=1e-6)


@pytest.mark.parametrize("kept", [np.arange(F), np.arange(0, F, 3), np.array([], int)])
def test_a_refit_is_least_squares_on_one_part_judged_on_the_other(kept):
    d = one()
    fit, test = X_ND[:90], X_ND[90:]
    found = moments.refitted_explained_variance(moments.measure(d, batches(x=fit)), moments.measure(d, batches(x=test)), d, kept)
    codes = [np.concatenate([numpy_codes(make(), 0, x.astype(float))[:, kept], np.ones((len(x), 1))], axis=1) for x in (fit, test)]
    theta = np.linalg.lstsq(codes[0], fit.astype(float), rcond=None)[0]
    expected = 1 - np.square(test - codes[1] @ theta).sum() / np.square(test - test.mean(0)).sum()
    assert found == pytest.approx(expected, abs=2e-3)
    if not len(kept):
        assert found <= 0


def test_a_refit_of_all_features_does_no_worse_where_it_is_fitted():
    d = one()
    m = moments.measure(d, batches())
    assert moments.refitted_explained_variance(m, m, d, np.arange(F)) > 1 - m.error / m.variance


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_removal_before_the_selection(architecture):
    """In topk the next features move up; elsewhere it is the same as after the activation."""
    d, rng = one(architecture), np.random.default_rng(0)
    among = np.stack([np.ones(F, bool), rng.uniform(size=F) < 0.6, np.arange(F) < 2, np.zeros(F, bool)])
    found = masking.errors_of_choices(d, batches(), among)
    for keep, value in zip(among, found, strict=True):
        left = dataclasses.replace(make(architecture), k=min(d.k, int(keep.sum())))
        cut = {
            name: None if (leaf := getattr(left, name)) is None else leaf[..., keep, :] if name == "w_dec_FD" else leaf[..., keep]
            for name in ("w_enc_DF", "b_enc_F", "w_dec_FD", "threshold_F", "r_mag_F", "b_mag_F")
        }
        fewer = dataclasses.replace(left, **cut)
        z = numpy_codes(fewer, 0, X_ND.astype(np.float64))
        assert value == pytest.approx(np.square(X_ND - z @ fewer.w_dec_FD[0] - d.b_dec_D).sum(), rel=1e-4)
    assert found[-1] == pytest.approx(np.square(X_ND - d.b_dec_D).sum(), rel=1e-5)
    with pytest.raises(ValueError, match="no activations"):
        masking.errors_of_choices(d, [], among)


def test_reconstructions_of_both_kinds():
    d = one()
    after, before = np.stack([np.ones(F, bool), np.arange(F) % 2 == 0]), np.arange(F)[None] % 3 > 0
    filled = np.stack([np.zeros(D), np.linspace(1, 2, D)]).astype(np.float32)
    made = np.asarray(masking.reconstructions(d, jnp.asarray(X_ND), jnp.asarray(after), jnp.asarray(filled), jnp.asarray(before)))
    assert made.shape == (3, N, D)
    z = numpy_codes(make(), 0, X_ND.astype(np.float64))
    for row, keep, instead_D in zip(made, after, filled, strict=False):
        np.testing.assert_allclose(row, (z * keep) @ d.w_dec_FD + d.b_dec_D + instead_D, atol=1e-4)
    error = masking.errors_of_choices(d, batches(), before)
    assert np.square(X_ND - made[2]).sum() == pytest.approx(error[0], rel=1e-5)
    assert masking.reconstructions(d, jnp.asarray(X_ND), jnp.asarray(after), jnp.asarray(filled), jnp.asarray(before[:0])).shape == (
        2,
        N,
        D,
    )
