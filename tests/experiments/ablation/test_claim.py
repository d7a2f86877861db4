"""The rule of claim C2, on SAEs and tokens of which the truth is known."""

import dataclasses

import numpy as np

from experiments.ablation import report
from reports import claims
from tests.experiments.ablation.test_function_stages import SHARED, D, F, S, measured, of_seeds
from tests.experiments.dictionaries import listed
from tests.experiments.finished_run import FinishedRun

STABILITY = {
    "seeds": list(range(8)),
    "live_stable_features": {"value": 100},
    "live_unstable_features": {"value": 100},
}


def verdict(given, **changes):
    """What the rule says of SAEs on tokens, on a plateau, where there is no language model."""
    _, summary, _ = measured(given, **changes)
    run = FinishedRun({"stability": STABILITY, "function": summary})
    (claim,) = claims.decide(report.CLAIMS, run, claims.Claims())
    return claim


def swapped():
    """The features that all seeds share are those that do little."""
    saes, acts, of = of_seeds()
    hits = np.zeros_like(of.hits_SSF)
    hits[:, :, SHARED:] = ~np.eye(S, dtype=bool)[:, :, None]
    return saes, acts, of._replace(hits_SSF=hits, p_SF=hits.mean(1) * S / (S - 1))


def always_on():
    """Shared features that are equally active on every token, so that they tell nothing of it, and others that do."""
    rng = np.random.default_rng(3)
    shared, plane = np.split(np.linalg.qr(rng.normal(size=(D, F)))[0].T, 2)
    saes = listed([np.concatenate([shared, plane]) for _ in range(S)], k=F).dictionaries
    codes = 0.5 * np.maximum(rng.normal(size=(4000, SHARED)), 0)
    acts = (4.0 * shared.sum(0) + 0.02 * np.abs(rng.normal(size=(4000, SHARED))) @ shared + codes @ plane).astype(np.float32)
    _, _, of = of_seeds()
    return saes, acts, of


def test_shared_features_of_which_tokens_are_made_carry_more():
    assert verdict(of_seeds()).holds == "yes"


def test_shared_features_that_do_little_do_not():
    assert verdict(swapped()).holds == "no"


def test_of_too_few_features_nothing_is_said():
    claim = verdict(of_seeds(), shares=(0.1, 0.5))
    assert claim.holds == "undecided" and "too few stable or unstable features to remove at q = 0.1" in claim.because


def test_a_constant_is_not_taken_for_signal():
    """Zero in the place of what is always there costs much, its mean nothing: zero alone had passed for a yes."""
    _, summary, _ = measured(always_on())
    assert summary["removed_difference"]["low"] > 0  # by zero, as before
    assert verdict(always_on()).holds == "no"


def standing_in():
    """Unstable features that all say the same: a few of them are not missed, all of them are."""
    saes, acts, of = of_seeds()
    rng = np.random.default_rng(4)
    *shared, common_D = np.linalg.qr(rng.normal(size=(D, SHARED + 1)))[0].T
    shared = np.stack(shared)
    rows = np.concatenate([shared, np.tile(common_D, (F - SHARED, 1))]).astype(np.float32)
    share_F = np.where(np.arange(F) < SHARED, 1.0, 1.0 / (F - SHARED)).astype(np.float32)
    same = [dataclasses.replace(sae, w_dec_FD=rows, w_enc_DF=rows.T * share_F) for sae in listed([rows] * S, k=F).dictionaries]
    codes = np.maximum(rng.normal(size=(4000, SHARED)), 0)
    together = np.sqrt(7.5) * np.maximum(rng.normal(size=(4000, 1)), 0)
    return same, (codes @ shared + together * common_D).astype(np.float32), of


def test_nearly_all_of_one_set_does_not_decide():
    """At the most that both sets allow all unstable features are removed, and the sign is the other way."""
    assert measured(standing_in(), shares=(1.0,))[1]["removed_difference"]["high"] < 0
    assert verdict(standing_in(), shares=(0.2, 0.4, 0.5)).holds == "yes"
