"""The rules of claims C3a to C3c, on features of which the truth is known."""

import numpy as np
import pytest

from experiments.interpretation import report, surface_form
from experiments.reappearance import stability
from experiments.reappearance.labels import LabelRule
from experiments.reappearance.seed_values import Values
from interpret import equal_firings
from interpret.equal_firings import Halves
from reports import claims
from saes.evaluation import Evaluation
from stability import aggregates, reappearance
from tests.experiments.finished_run import FinishedRun
from tests.interpret.test_surface import PREDICATES, V

S, F = 8, 60
RULE = LabelRule()
RNG = np.random.default_rng(0)
HITS = np.zeros((S, S, F), bool)
HITS[:, :, : F // 2] = ~np.eye(S, dtype=bool)[:, :, None]  # the first half of the features are in all SAEs
LIVE = np.ones((S, F), bool)
STABLE_F = np.arange(F) < F // 2


def verdicts(**sections):
    """What the rules say, on a plateau."""
    counts = {f"live_{label}_features": {"value": 240} for label in ("stable", "unstable")}
    run = FinishedRun({"stability": {"seeds": list(range(S))} | counts | sections.pop("stability", {})} | sections)
    return {c.name: c.holds for c in claims.decide(report.CLAIMS, run, claims.Claims())}


def rates(rate_SF, seeds=S):
    strata = np.full((S, F), reappearance.LIVE)
    zeros = np.zeros((S, F))
    of_rows = Evaluation(
        np.zeros(S),
        np.zeros(S),
        rate_SF * 1_000_000,
        np.stack([rate_SF] * 4, axis=-1),
        zeros,
        zeros,
        1.0 + zeros,
        zeros,
        zeros,
        1_000_000,
        np.full(4, 250_000),
    )
    figures = stability._activation_figures(RULE, HITS, LIVE, strata, of_rows)
    return verdicts(stability=figures | {"seeds": list(range(seeds))})["C3a"]


def test_rates_decide_by_means_and_by_medians():
    lognormal = lambda stable, unstable: np.where(STABLE_F, stable, unstable) * np.exp(0.3 * RNG.normal(size=(S, F)))
    assert rates(lognormal(0.01, 0.005)) == "yes" and rates(lognormal(0.005, 0.01)) == "no"
    assert rates(lognormal(0.01, 0.01)) == "undecided" and rates(lognormal(0.01, 0.005), seeds=5) == "undecided"
    # A few features that fire nearly always make the mean, and most are rarer than unstable ones: the mean alone had passed for a yes.
    few = lognormal(0.005, 0.01)
    few[:, 0] = 0.9
    assert few[:, STABLE_F].mean() > few[:, ~STABLE_F].mean() and rates(few) == "no"


def surface(score_SF, rate_SF=None, seeds=S):
    values = Values(S, RULE.confidence, "share")
    for seed in range(S):
        for without in values.samples(seed):
            weights = np.ones(S) if without is None else 1.0 - np.eye(S)[without]
            stable, unstable = (mask[seed] & np.isfinite(score_SF[seed]) for mask in aggregates.label_masks(HITS, RULE.epsilon, weights))
            rate_F = np.ones(F) if rate_SF is None else rate_SF[seed]
            area = surface_form.auroc(score_SF[seed], stable, unstable)
            within = surface_form.auroc_within_bins(score_SF[seed], rate_F, stable, unstable, 5)
            values.put(seed, without, {("auroc",): area, ("within",): within})
    share = {"value": 1.0, "low": 1.0, "high": 1.0}
    s = {"surface_auroc": values.mean(("auroc",)).as_dict(), "surface_auroc_within_deciles": values.mean(("within",)).as_dict()}
    return verdicts(
        statistics=s | {"surface_scored_stable": share, "surface_scored_unstable": share, "firings": 50},
        stability={"seeds": list(range(seeds))},
    )["C3b"]


def test_the_order_of_scores_decides_on_surface_form():
    spread = 0.1 * RNG.normal(size=(S, F))
    higher = np.where(STABLE_F, 0.4, 0.6) + spread
    assert (
        surface(higher) == "yes"
        and surface(1 - higher) == "no"
        and surface(0.5 + spread) == "undecided"
        and surface(higher, seeds=5) == "undecided"
    )


def test_a_cut_off_does_not_decide():
    """Unstable features with scores around a half, stable ones with low and with high ones: the sign of a difference of shares depends on the cut-off."""
    score = np.where(STABLE_F, np.where(np.arange(F) % 2, 0.2, 0.8), 0.45) + 0.05 * RNG.normal(size=(S, F))
    share = lambda cut: (score[:, ~STABLE_F] >= cut).mean() - (score[:, STABLE_F] >= cut).mean()
    assert share(0.3) > 0.3 and share(0.6) < -0.3 and surface(score) == "undecided"


def test_rare_features_are_not_of_surface_form_for_being_rare():
    """All features fire on tokens alike; unstable ones are rarer. From all their firings their scores are higher, from equally many not."""
    chance = RNG.dirichlet(np.full(V, 20.0), S * F)
    count = np.where(np.tile(STABLE_F, S), 4000, 60)
    halves = Halves(*(np.stack([RNG.multinomial(n, p) for n, p in zip(count, chance, strict=True)]) for _ in range(2)))
    rows = np.full((2, V), 20_000)
    drawn = Halves(*(equal_firings.sample(RNG, half, 25) for half in halves))
    equal = equal_firings.scores(drawn, halves, rows, 25, PREDICATES)
    by_all = ((halves.fit_FV + halves.test_FV).max(1) / (halves.fit_FV + halves.test_FV).sum(1)).reshape(S, F)
    assert surface(by_all) == "yes"
    assert surface(((equal.top_share_F + equal.f1_F) / 2).reshape(S, F)) != "yes"


@pytest.mark.parametrize(("low", "high", "verdict"), [(0.19, 0.21, "yes"), (-0.21, -0.19, "no"), (-0.1, 0.3, "undecided")])
def test_explanations_decide_where_a_model_was_asked(low, high, verdict):
    estimate = {"value": (low + high) / 2, "low": low, "high": high}
    names = [f"{name}_{kind}" for name in ("substring", "detection") for kind in ("stable", "unstable", "difference")]
    s = dict.fromkeys(names, estimate) | {"by": "m", "asked_a_model": True}
    assert verdicts(explanations=s)["C3c"] == verdict
    assert verdicts(explanations=s | {"asked_a_model": False})["C3c"] == claims.NOT_MEASURED
    assert verdicts(explanations=s, stability={"live_unstable_features": {"value": 3}})["C3c"] == "undecided"
