"""Many replacements of one batch against the model run whole, once for each."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from activations.language_model import decoder, splice
from tests.activations.language_model.test_decoder import SMALL, params_of

PARAMS = params_of(SMALL)
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 50, (3, 12)), jnp.int32)
SITES = ("resid_pre", "attn_out", "mlp_out", "resid_post")


def losses_of(site, fns, layer=1):
    @jax.jit
    def run(params):
        of = splice.prefix(params, SMALL, TOKENS, layer, site)
        final = jnp.stack([splice.stream_with(params, SMALL, of, layer, site, fn(of.x_BTX)) for fn in fns])
        own = splice.losses(params, SMALL, of.final_BTD[None], of.final_BTD, TOKENS)
        return splice.losses(params, SMALL, final, of.final_BTD, TOKENS), own

    return run(PARAMS)


@pytest.mark.parametrize("site", [pytest.param(s, marks=[pytest.mark.slow] * (s in ("resid_pre", "attn_out"))) for s in SITES])
def test_the_identity_gives_the_clean_loss_exactly_and_no_divergence(site):
    found, own = losses_of(site, [lambda x: x])
    np.testing.assert_array_equal(found.nll_MBU, own.nll_MBU)
    np.testing.assert_array_equal(found.kl_MBU, 0.0)
    np.testing.assert_allclose(own.nll_MBU[0], decoder.next_token_nll(PARAMS, SMALL, TOKENS), rtol=1e-6)


@pytest.mark.parametrize("site", [pytest.param(s, marks=[pytest.mark.slow] * (s in ("resid_pre", "attn_out"))) for s in SITES])
def test_what_is_spliced_in_gives_the_loss_of_a_whole_run(site):
    fns = [lambda x: 0 * x, lambda x: 0.5 * x + 0.1, lambda x: x]
    found, _ = losses_of(site, fns)
    for nll_BU, fn in zip(found.nll_MBU, fns, strict=True):
        np.testing.assert_allclose(nll_BU, decoder.patched_nll(PARAMS, SMALL, TOKENS, 1, site, fn), rtol=2e-6, atol=2e-6)


def test_divergence_is_that_of_the_predictions():
    site, fn = "resid_post", lambda x: 0.7 * x
    found, _ = losses_of(site, [fn])
    h = decoder.run(PARAMS, SMALL, TOKENS, upto=2)
    own, other = (np.asarray(decoder.resume_from(PARAMS, SMALL, x, 2), np.float64)[:, :-1] for x in (h, fn(h)))
    p, log_q = scipy.special.softmax(own, axis=-1), scipy.special.log_softmax(other, axis=-1)
    by_hand = (p * (scipy.special.log_softmax(own, axis=-1) - log_q)).sum(-1)
    assert by_hand.min() > 1e-3
    np.testing.assert_allclose(found.kl_MBU[0], by_hand, rtol=1e-3, atol=1e-5)


def test_pieces_of_positions_change_nothing(monkeypatch):
    fns = [lambda x: 0.7 * x, lambda x: x]
    whole, _ = losses_of("mlp_out", fns)
    monkeypatch.setattr(splice, "LOGITS_AT_ONCE", 3 * 50 * 4)  # four positions at a time of eleven
    cut, own = losses_of("mlp_out", fns)
    for one, other in zip(whole, cut, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(cut.nll_MBU[1], own.nll_MBU[0])


def test_an_encoder_is_refused():
    with pytest.raises(ValueError, match="no next-token loss"):
        splice.prefix({}, dataclasses.replace(SMALL, causal=False), TOKENS, 0, "resid_post")
