import types

import pytest

from experiments import report
from experiments.ablation.function import Function
from experiments.ablation.removal import at_share
from experiments.subspaces.predictors import DECIDING, GAUSSIAN, PCA
from reports import claims
from reports.claims import Claims
from stability.function import ABLATIONS

RULES = Claims()


def estimate(value, low, high, null=0.0):
    return {"value": value, "low": low, "high": high, "null": null, "n": {"number": 8, "of": "seeds"}, "unit": ""}


def over(null, value):
    """Estimates by null that decides, one of them as given."""
    return {name: value if name == null and value is not None else estimate(0.1, 0.05, 0.15) for name in DECIDING}


def cells(value=None, where="q = 0.25, mean"):
    """Differences of C2 by share and ablation, one of them as given."""
    every = {at_share(share, ablation): estimate(0.1, 0.05, 0.15) for share in Function().shares for ablation in ABLATIONS}
    return every | ({where: value} if value else {})


RATES = ("firing_rate", "median_firing_rate")
LOW = estimate(0.5, 0.4, 0.6, null=1.0)


def results(rise=0.01, **changes):
    stability = {
        "seeds": list(range(8)),
        "live_stable_features": estimate(500, None, None) | {"n": {"number": 1200, "of": "live features"}},
        "live_unstable_features": estimate(400, None, None),
        "reliability": estimate(0.9, 0.85, 0.95),
        "middle_mass": estimate(0.1, 0.05, 0.2, null=0.6),
        "stable_mass": estimate(0.5, 0.4, 0.6),
        "unstable_mass": estimate(0.3, 0.2, 0.4),
        "stable_share_live": estimate(0.5, 0.4, 0.6),
        "unstable_share_live": estimate(0.3, 0.2, 0.4),
        "mean_p_live": estimate(0.6, 0.5, 0.7, null=0.001),
        "mean_p_unstable": estimate(0.0, 0.0, 0.0, null=0.002),
        **{f"{name}_stable_over_unstable{rare}": estimate(2.0, 1.5, 2.5, null=1.0) for name in RATES for rare in ("", "_with_rare")},
        **{f"{name}_{label}": estimate(0.01, 0.009, 0.011) for name in RATES for label in ("stable", "unstable")},
    }
    subspace = {
        "headline_rank": 16,
        "features_per_set": 200,
        "features_against_nulls": 250,
        "effective_rank_ceiling": 1.0,
        "overlap_strongest_null": "activation PCA",
        "overlap_unstable": estimate(0.7, 0.6, 0.8),
        "overlap_excess": estimate(0.1, 0.05, 0.15),
        "overlap_over": {name: estimate(0.1, 0.05, 0.15) for name in DECIDING},
        "captured_energy_over": {name: estimate(0.1, 0.05, 0.15) for name in DECIDING},
        "effective_rank_gaussian_minus_unstable": estimate(0.1, 0.05, 0.15),
        "effective_rank_unstable": estimate(0.6, 0.55, 0.65),
        "effective_rank_stable": estimate(0.8, 0.75, 0.85),
        "effective_rank_stable_minus_unstable": estimate(0.2, 0.1, 0.3),
    }
    function = {
        "ratio": 4,
        "share": 0.25,
        "stable_removed": 50.5,
        "removed_differences": cells(),
        **{f"partial_p_{name}": estimate(0.1, 0.05, 0.15) for name in ("per_token", "per_firing", "part")},
        "removed_stable": estimate(0.2, 0.15, 0.25),
        "removed_unstable": estimate(0.1, 0.05, 0.15),
        "removed_difference": estimate(0.1, 0.05, 0.15),
        "part_stable": estimate(0.6, 0.5, 0.7, null=0.3),
        "part_unstable": estimate(0.2, 0.1, 0.3, null=0.4),
        "part_difference": estimate(0.4, 0.3, 0.5),
    }
    splice = {
        "removed_stable": estimate(0.5, 0.4, 0.6),
        "removed_unstable": estimate(0.2, 0.1, 0.3),
        "removed_difference": estimate(0.3, 0.2, 0.4),
        "removed_differences": cells(),
    }
    statistics = {"firings": 50, "surface_scored": estimate(0.9, 0.8, 1.0)} | {
        f"surface_{name}": estimate(0.7, 0.6, 0.8, null=0.5) for name in ("auroc", "auroc_within_deciles")
    }
    sections = {"stability": stability, "subspace": subspace, "function": function, "splice": splice, "statistics": statistics}
    for name, value in changes.items():
        stage, _, figure = name.rpartition("__")
        (sections[stage] if stage else stability if name in stability else subspace)[figure] = value
    return Run(sections, rise if rise is None or isinstance(rise, dict) else estimate(rise, rise - 0.002, rise + 0.002))


class Run:
    """Results of a run, with so steep an end of the curve along training; None: it has not begun to rise."""

    def __init__(self, summary, rise):
        self.summary, self.rise = summary, rise
        summary["stability"] |= {"mean_p_all": estimate(0.5, 0.4, 0.6)}
        self.set_rise(rise)

    def set_rise(self, rise):
        self.summary["stability"]["rise_per_doubling"] = rise or estimate(0.0, 0.0, 0.0)
        self.p_low = -1.0 if rise is None else 0.3

    def has(self, name):
        return True

    def figure(self, name):
        stage, key = name.split(".", 1)
        return self.summary[stage][key]

    def table(self, name):
        return [{"tokens": tokens, "p_low": self.p_low} for tokens in (0, 1, 2)]


def decide(found):
    return claims.decide(report.statements(), found, RULES)


def holds(name, **changes):
    return next(c.holds for c in decide(results(**changes)) if c.name == name)


@pytest.mark.parametrize(
    ("name", "changes", "verdict"),
    [
        ("C1", {}, "yes"),
        ("C1", {"reliability": estimate(0.85, 0.75, 0.9)}, "undecided"),
        ("C1", {"reliability": estimate(0.1, 0.0, 0.2)}, "undecided"),  # where all features are of one kind, there is nothing to correlate
        ("C1", {"middle_mass": estimate(0.25, 0.1, 0.35)}, "undecided"),
        ("C1", {"middle_mass": estimate(0.5, 0.35, 0.7)}, "no"),
        ("C1", {"mean_p_unstable": estimate(0.0, 0.0, 0.0, null=0.3)}, "undecided"),
        ("C4", {"rise": estimate(0.0, -0.03, 0.03)}, "undecided"),  # not shown to be small
        ("C4", {"rise": estimate(0.01, None, None)}, "undecided"),
        ("C1", {"reliability": estimate(0.9, None, None)}, "undecided"),
        ("C1", {"middle_mass": estimate(None, None, None)}, "undecided"),
        ("C1", {"live_stable_features": estimate(40, None, None) | {"n": {"number": 99, "of": "live features"}}}, "undecided"),
        ("C1", {"live_unstable_features": estimate(0, None, None)}, "yes"),  # all may be stable, or none
        ("C2", {"live_unstable_features": estimate(49, None, None)}, "undecided"),
        ("C1", {"seeds": [0, 1, 2]}, "undecided"),
        ("C1", {"mean_p_live": estimate(0.6, 0.5, 0.7, null=0.3)}, "undecided"),
        ("C2", {}, "yes"),
        ("C2", {"function__removed_differences": cells(estimate(0.1, -0.05, 0.15))}, "undecided"),
        ("C2", {"function__removed_differences": cells(estimate(-0.1, -0.15, -0.05))}, "no"),  # each share and ablation counts
        ("C2", {"splice__removed_differences": cells(estimate(-0.1, -0.15, -0.05), "q = 0.1, zero")}, "no"),
        ("C2", {"splice__not_measured": "an encoder"}, "yes"),  # reconstruction alone, which the reason says
        ("C2", {"function__part_difference": estimate(0.1, -0.05, 0.15)}, "undecided"),
        ("C2", {"function__removed_differences": cells(estimate(None, None, None))}, "undecided"),
        ("C2", {"function__not_measured": "no activations"}, "undecided"),
        ("C2", {"rise": 0.05}, "undecided"),
        ("C3a", {}, "yes"),
        ("C3a", {f"{name}_stable_over_unstable{rare}": LOW for name in RATES for rare in ("", "_with_rare")}, "no"),
        ("C3a", {"firing_rate_stable_over_unstable": LOW}, "undecided"),
        ("C3a", {"median_firing_rate_stable_over_unstable": estimate(1.1, 0.9, 1.3)}, "undecided"),
        ("C3b", {}, "yes"),
        ("C3b", {"statistics__surface_auroc": estimate(0.5, 0.4, 0.6)}, "undecided"),
        ("C3b", {"statistics__surface_auroc": estimate(0.3, 0.2, 0.4)}, "no"),
        ("C3b", {"statistics__not_measured": "no tokens"}, "undecided"),
        ("C4", {}, "yes"),
        ("C4", {"overlap_over": over(PCA, estimate(-0.1, -0.2, -0.05))}, "no"),  # every null must be beaten
        ("C4", {"captured_energy_over": over(GAUSSIAN, estimate(-0.1, -0.2, -0.05))}, "no"),
        ("C4", {"captured_energy_over": over(PCA, estimate(0.0, -0.1, 0.1))}, "undecided"),
        ("C4", {"overlap_over": {n: e for n, e in over(PCA, None).items() if n != GAUSSIAN}}, "undecided"),  # a null is not there
        ("C4", {"effective_rank_gaussian_minus_unstable": estimate(-0.1, -0.2, -0.05)}, "no"),  # lower than stable ones' alone
        ("C4", {"effective_rank_stable_minus_unstable": estimate(-0.1, -0.2, -0.05)}, "no"),
        ("C4", {"not_measured": "too few"}, "undecided"),
        ("C4", {"effective_rank_ceiling": 0.6}, "undecided"),  # fewer features than dimensions
        ("C4", {"rise": -0.05}, "undecided"),
        ("C4", {"rise": 0.05}, "undecided"),
        ("C4", {"rise": None}, "undecided"),
        ("C3a", {"rise": 0.05, "firing_rate_stable_over_unstable": LOW, "firing_rate_stable_over_unstable_with_rare": LOW}, "undecided"),
        ("C3c", {}, "not measured yet"),
        ("C1", {"rise": 0.05}, "yes"),  # that a signal separates does not depend on why
        ("C6", {}, "not measured yet"),
        ("C7", {}, "not measured yet"),
    ],
)
def test_rules(name, changes, verdict):
    assert holds(name, **changes) == verdict


def test_where_there_is_nothing_along_training_the_reason_says_so():
    found = results(rise=None)
    reason = lambda: next(c.because for c in decide(found) if c.name == "C4")
    assert "fewer than two dictionaries along training" in reason()
    found.has = lambda name: False
    assert "no dictionaries along training are there" in reason()


def test_the_table_has_all_claims_in_order():
    table = claims.as_markdown(decide(results()), "here")
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == ["C1", "C2", "C3a", "C3b", "C3c", "C4", "C5", "C6", "C7"]


def _recovery(free=(0.95, 1.0), found=(0.1, 0.2), seeds=(0.95, 0.99), planted=(0.97, 0.99), span_null=0.2, chance=0.001):
    span = "blocks, subspace: top plane, overlap {}, unstable latents, chosen without the truth"
    made = {
        "free, latents: atoms found at 0.9": (free, chance),
        "block, latents: atoms found at 0.9": (found, chance),
        span.format("between seeds"): (seeds, span_null),
        span.format("with the planted one"): (planted, span_null),
    }
    return {key: estimate(sum(both) / 2, *both, null=null) for key, (both, null) in made.items()}


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "yes"),
        ({"found": (0.6, 0.7)}, "no"),
        ({"found": (0.4, 0.6)}, "undecided"),
        ({"planted": (0.5, 0.6)}, "no"),
        ({"seeds": (0.8, 0.95)}, "undecided"),
        ({"free": (0.2, 0.3)}, "no"),
        ({"span_null": 0.98}, "undecided"),  # no more than chance gives
        ({"chance": 0.3}, "undecided"),
    ],
)
def test_c5_wants_the_span_found_the_atoms_not_and_free_atoms_beside_them(changes, verdict):
    found = results()
    found.summary["recovery"] = _recovery(**changes)
    c5 = next(c for c in decide(found) if c.name == "C5")
    assert c5.holds == verdict and "chosen without the truth" in c5.measured
    if verdict == "yes":  # what longer training would find is no claim about the objective
        found.set_rise(estimate(0.05, 0.04, 0.06))
        assert next(c for c in decide(found) if c.name == "C5").holds == "undecided"
    found.summary["stability"]["seeds"] = [0, 1]
    assert next(c for c in decide(found) if c.name == "C5").holds == "undecided"


def pooled(p=(0.15, 0.12, 0.18), between=(0.3, 0.25, 0.35), explained=(-0.004, -0.006, -0.002), l0=0.5, features=0.5, seeds=8, null=0.0):
    """Results of a study of pools with these differences from a single SAE."""
    single = {name: estimate(0.5, 0.4, 0.6) for name in ("p", "between", "explained", "features", "l0")}
    figures = single | {"l0": estimate(l0, None, None), "features": estimate(features, None, None), "p": estimate(0.5, 0.4, 0.6, null)}
    less = {name: estimate(*of) for name, of in (("p", p), ("between", between), ("explained", explained))}
    summary = {
        "headline": "pool",
        "headline_measured": True,
        "seeds": {"one": list(range(seeds))},
        "methods": {"pool": figures, "single SAE": single},
        "less a single SAE": {"pool": less},
    }
    return types.SimpleNamespace(summary={"pooled": summary})


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        ({}, "yes"),
        ({"p": (0.15, 0.05, 0.25)}, "undecided"),
        ({"p": (0.02, 0.01, 0.03)}, "no"),
        ({"between": (0.1, 0.05, 0.15)}, "no"),
        ({"between": (0.25, 0.15, 0.35)}, "undecided"),
        ({"explained": (-0.03, -0.04, -0.02)}, "no"),
        ({"explained": (-0.01, -0.02, 0.0)}, "undecided"),
        ({"explained": (-0.004, None, None)}, "undecided"),
        ({"l0": 0.6}, "undecided"),
        ({"features": 0.6}, "undecided"),
        ({"seeds": 3}, "undecided"),
        ({"null": 0.1}, "undecided"),
        ({"p": (None, None, None), "null": None}, "undecided"),
    ],
)
def test_pools_must_be_more_stable_in_both_ways_at_equal_explained_variance(changes, holds):
    claim = next(c for c in decide(pooled(**changes)) if c.name == "C6")
    assert claim.name == "C6" and claim.holds == holds
    assert claim.because and "difference" in claim.measured


def test_a_headline_that_was_not_made_decides_nothing():
    found = pooled()
    found.summary["pooled"]["headline_measured"] = False
    assert next(c for c in decide(found) if c.name == "C6").holds == "undecided"
