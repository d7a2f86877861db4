import pytest

from experiments import report
from experiments.ablation.function import Function
from experiments.ablation.removal import at_share
from experiments.subspaces.predictors import DECIDING, GAUSSIAN, PCA
from reports import claims, course
from reports.claims import Claims
from reports.course import Point
from stability.function import ABLATIONS
from tests.experiments.finished_run import FinishedRun, moved

RULES = Claims()


def estimate(value, low, high, null=0.0):
    return {"value": value, "low": low, "high": high, "null": null, "n": {"number": 8, "of": "seeds"}, "unit": ""}


def over(null, value):
    """Estimates by null that decides, one of them as given."""
    return {name: value if name == null and value is not None else estimate(0.1, 0.09, 0.11) for name in DECIDING}


def cells(value=None, where="q = 0.25, mean"):
    """Differences of C2 by share and ablation, one of them as given."""
    every = {at_share(share, ablation): estimate(0.1, 0.09, 0.11) for share in Function().shares for ablation in ABLATIONS}
    return every | ({where: value} if value else {})


RATES = ("firing_rate", "median_firing_rate")
LOW = estimate(0.5, 0.4, 0.6, null=1.0)


def results(earlier=None, **changes):
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
        **{f"{name}_stable_over_unstable{rare}": estimate(2.0, 1.9, 2.1, null=1.0) for name in RATES for rare in ("", "_with_rare")},
        **{f"{name}_{label}": estimate(0.01, 0.009, 0.011) for name in RATES for label in ("stable", "unstable")},
    }
    subspace = {
        "headline_rank": 16,
        "features_per_set": 200,
        "features_against_nulls": 250,
        "effective_rank_ceiling": 1.0,
        "overlap_strongest_null": "activation PCA",
        "overlap_unstable": estimate(0.7, 0.6, 0.8),
        "overlap_excess": estimate(0.1, 0.09, 0.11),
        "overlap_over": {name: estimate(0.1, 0.09, 0.11) for name in DECIDING},
        "captured_energy_over": {name: estimate(0.1, 0.09, 0.11) for name in DECIDING},
        "effective_rank_gaussian_minus_unstable": estimate(0.1, 0.09, 0.11),
        "effective_rank_unstable": estimate(0.6, 0.55, 0.65),
        "effective_rank_stable": estimate(0.8, 0.75, 0.85),
        "effective_rank_stable_minus_unstable": estimate(0.2, 0.18, 0.22),
    }
    function = {
        "ratio": 4,
        "share": 0.25,
        "stable_removed": 50.5,
        "removed_differences": cells(),
        **{f"partial_p_{name}": estimate(0.1, 0.09, 0.11) for name in ("per_token", "per_firing", "part")},
        "removed_stable": estimate(0.2, 0.15, 0.25),
        "removed_unstable": estimate(0.1, 0.09, 0.11),
        "removed_difference": estimate(0.1, 0.09, 0.11),
        "part_stable": estimate(0.6, 0.5, 0.7, null=0.3),
        "part_unstable": estimate(0.2, 0.1, 0.3, null=0.4),
        "part_difference": estimate(0.4, 0.35, 0.45),
    }
    splice = {
        "removed_stable": estimate(0.5, 0.4, 0.6),
        "removed_unstable": estimate(0.2, 0.1, 0.3),
        "removed_difference": estimate(0.3, 0.2, 0.4),
        "removed_differences": cells(),
    }
    statistics = {"firings": 50, "surface_scored_stable": estimate(0.9, 0.8, 1.0), "surface_scored_unstable": estimate(0.9, 0.8, 1.0)} | {
        f"surface_{name}": estimate(0.7, 0.68, 0.72, null=0.5) for name in ("auroc", "auroc_within_deciles")
    }
    sections = {"stability": stability, "subspace": subspace, "function": function, "splice": splice, "statistics": statistics}
    for name, value in changes.items():
        stage, _, figure = name.rpartition("__")
        (sections[stage] if stage else stability if name in stability else subspace)[figure] = value
    return FinishedRun(sections, None if earlier is None else earlier(sections))


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
        ("C1", {"reliability": estimate(0.9, None, None)}, "undecided"),
        ("C1", {"middle_mass": estimate(None, None, None)}, "undecided"),
        ("C1", {"live_stable_features": estimate(40, None, None) | {"n": {"number": 99, "of": "live features"}}}, "undecided"),
        ("C1", {"live_unstable_features": estimate(0, None, None)}, "yes"),  # all may be stable, or none
        ("C2", {"live_unstable_features": estimate(49, None, None)}, "undecided"),
        ("C1", {"seeds": [0, 1, 2]}, "undecided"),
        ("C1", {"mean_p_live": estimate(0.6, 0.5, 0.7, null=0.3)}, "undecided"),
        ("C2", {}, "yes"),
        ("C2", {"function__removed_differences": cells(estimate(0.1, -0.05, 0.15))}, "undecided"),
        ("C2", {"function__removed_differences": cells(estimate(-0.1, -0.11, -0.09))}, "no"),  # each share and ablation counts
        ("C2", {"splice__removed_differences": cells(estimate(-0.1, -0.11, -0.09), "q = 0.1, zero")}, "no"),
        ("C2", {"splice__not_measured": "an encoder"}, "yes"),  # reconstruction alone, which the reason says
        ("C2", {"function__part_difference": estimate(0.1, -0.05, 0.15)}, "undecided"),
        ("C2", {"function__removed_differences": cells(estimate(None, None, None))}, "undecided"),
        ("C2", {"function__not_measured": "no activations"}, "undecided"),
        ("C3a", {}, "yes"),
        ("C3a", {f"{name}_stable_over_unstable{rare}": LOW for name in RATES for rare in ("", "_with_rare")}, "no"),
        ("C3a", {"firing_rate_stable_over_unstable": LOW}, "undecided"),
        ("C3a", {"median_firing_rate_stable_over_unstable": estimate(1.1, 0.9, 1.3)}, "undecided"),
        ("C3b", {}, "yes"),
        ("C3b", {"statistics__surface_auroc": estimate(0.5, 0.4, 0.6)}, "undecided"),
        ("C3b", {"statistics__surface_auroc": estimate(0.3, 0.28, 0.32)}, "no"),
        ("C3b", {"statistics__not_measured": "no tokens"}, "undecided"),
        ("C4", {}, "yes"),
        ("C4", {"overlap_over": over(PCA, estimate(-0.1, -0.11, -0.09))}, "no"),  # every null must be beaten
        ("C4", {"captured_energy_over": over(GAUSSIAN, estimate(-0.1, -0.11, -0.09))}, "no"),
        ("C4", {"captured_energy_over": over(PCA, estimate(0.0, -0.1, 0.1))}, "undecided"),
        ("C4", {"overlap_over": {n: e for n, e in over(PCA, None).items() if n != GAUSSIAN}}, "undecided"),  # a null is not there
        ("C4", {"effective_rank_gaussian_minus_unstable": estimate(-0.1, -0.11, -0.09)}, "no"),  # lower than stable ones' alone
        ("C4", {"effective_rank_stable_minus_unstable": estimate(-0.1, -0.11, -0.09)}, "no"),
        ("C4", {"not_measured": "too few"}, "undecided"),
        ("C4", {"effective_rank_ceiling": 0.6}, "undecided"),  # fewer features than dimensions
        ("C3c", {}, "not measured yet"),
        ("C4", {"earlier": lambda s: moved(s, 0.02)}, "yes"),
        ("C4", {"earlier": lambda s: moved(s, 0.04)}, "yes so far"),  # more than a third of the margin, but on one side throughout
        ("C4", {"earlier": lambda s: moved(s, -0.04)}, "yes so far"),
        ("C4", {"earlier": lambda s: moved(s, 0.06)}, "undecided"),  # another answer at a quarter of training
        ("C4", {"earlier": lambda s: []}, "undecided"),
        ("C2", {"earlier": lambda s: moved(s, 0.06)}, "undecided"),
        ("C3a", {"earlier": lambda s: moved(s, 0.6)}, "undecided"),
        ("C3b", {"earlier": lambda s: [{k: v for k, v in p.items() if k != "statistics"} for p in moved(s, 0.0)]}, "undecided"),
        ("C1", {"earlier": lambda s: moved(s, 0.3)}, "yes"),  # that a signal separates does not depend on why
        ("C6", {}, "not measured yet"),
        ("C7", {}, "not measured yet"),
    ],
)
def test_rules(name, changes, verdict):
    assert holds(name, **changes) == verdict


def reason_for(name, **changes):
    return next(c.because for c in decide(results(**changes)) if c.name == name)


def test_the_reason_says_what_moves_and_where_it_would_end():
    assert "without figures along training (the stage 'plateau' measures them)" in reason_for("C4", earlier=lambda s: [])
    text = reason_for("C4", earlier=lambda s: [moved(s, 0.09)[1], moved(s, 0.03)[1]])
    assert "changes by 0.03 ± 0.01" in text and "slowing down as it does it ends at 0.13" in text  # 0.06, then 0.03, then 0.03 in all


@pytest.mark.parametrize(("change", "verdict"), [(0.02, "yes"), (0.04, "yes so far"), (0.2, "undecided")])
def test_saes_annealed_at_half_have_a_say(change, verdict):
    """Snapshots stand still; SAEs that ended at half differ by more from the end, or give another answer."""
    run = results(earlier=lambda s: moved(s, 0.02))
    run.summary = run.summary | {"plateau": {"control": {"tokens": 500, "stages": moved(run.summary, change)[1]}}}
    claim = next(c for c in decide(run) if c.name == "C4")
    assert claim.holds == verdict and f"SAEs annealed at 500 tokens say {'no' if change == 0.2 else 'yes'}" in claim.because
    assert ("with SAEs annealed at 500 tokens for those at half: changes by" in claim.because) == (verdict != "yes")


@pytest.mark.parametrize(("change", "verdict"), [(0.0, "yes"), (-0.2, "undecided")])
def test_the_end_of_fewer_features_must_stand_on_the_same_side(change, verdict):
    """The study's own figures say yes; those of as many features as earlier stand still, and say no."""
    run = results()
    at_end = moved(run.summary, -change)[1]["subspace"]
    run.summary = run.summary | {"plateau": {"end": {"subspace": at_end}}}
    run._earlier = [run.summary | {"subspace": at_end}] * 2 if change == 0 else run._earlier
    claim = next(c for c in decide(run) if c.name == "C4")
    assert claim.holds == verdict and ("of as many features as earlier it stands no" in claim.because) == (change < 0), claim


def test_figures_that_the_end_lacks_are_not_on_a_plateau():
    run = results()
    run.summary = run.summary | {"plateau": {"end": {"subspace": {"not_measured": "too few"}}}}
    claim = next(c for c in decide(run) if c.name == "C4")
    assert claim.holds == "undecided" and "not measured along training" in claim.because


def test_a_slow_start_is_no_plateau():
    """Small first changes that grow, as of p̂ on a larger model: 0.002, 0.014, 0.038, 0.071."""
    figures = [0.014, 0.038, 0.071]
    points = [
        Point(tokens, {"p": ({"value": v, "low": v - 0.001, "high": v + 0.001},)}) for tokens, v in zip((1, 2, 4), figures, strict=True)
    ]
    assert "faster than before: no bound" in course.moves(points, "p", 1.0)  # far from its threshold, and yet
    slowing = [
        Point(tokens, {"p": ({"value": v, "low": v - 0.001, "high": v + 0.001},)})
        for tokens, v in zip((1, 2, 4), (0.02, 0.05, 0.071), strict=True)
    ]
    assert course.moves(slowing, "p", 1.0) == ""
    assert "ends at 0.12" in course.moves(slowing, "p", 0.1)  # 0.021 more, then 0.7 times as much each time


def test_a_change_of_the_same_seeds_is_that_of_pairs():
    """Seeds lie 0.1 apart and each moves alike: the ends' own intervals know nothing of the change."""
    seeds = [0.1 * i for i in range(8)]

    def at(shift):
        without = [value + shift for value in seeds]
        replicates = {"confidence": 0.95, "without_seed": without, "without_document": [], "other_variance": 0.0}
        return {"value": 0.35 + shift, "low": shift, "high": 0.7 + shift, "replicates": replicates}

    assert course.change(at(0.0), at(0.2), 2.0) == pytest.approx((0.1, 0.0))
    fewer = at(0.2) | {"replicates": at(0.2)["replicates"] | {"without_seed": seeds[:7]}}
    assert course.change(at(0.0), fewer, 2.0).half == pytest.approx(0.35 * 2**0.5 / 2)


def test_the_table_has_all_claims_in_order():
    table = claims.as_markdown(decide(results()), "here")
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == ["C1", "C2", "C3a", "C3b", "C3c", "C4", "C5", "C6", "C7"]


def _recovery(free=(0.97, 0.99), found=(0.1, 0.2), seeds=(0.96, 0.98), planted=(0.97, 0.99), span_null=0.2, chance=0.001):
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
        ({"found": (0.63, 0.67)}, "no"),
        ({"found": (0.4, 0.6)}, "undecided"),
        ({"planted": (0.5, 0.6)}, "no"),
        ({"seeds": (0.8, 0.95)}, "undecided"),
        ({"free": (0.2, 0.3)}, "no"),
        ({"span_null": 0.98}, "undecided"),  # no more than chance gives
        ({"chance": 0.3}, "undecided"),
    ],
)
def test_c5_wants_the_span_found_the_atoms_not_and_free_atoms_beside_them(changes, verdict):
    sections = results().summary
    sections["recovery"] = _recovery(**changes)
    found = FinishedRun(sections)
    c5 = next(c for c in decide(found) if c.name == "C5")
    assert c5.holds == verdict and "chosen without the truth" in c5.measured
    found.summary["stability"]["seeds"] = [0, 1]
    assert next(c for c in decide(found) if c.name == "C5").holds == "undecided"


COMPETITORS = ("trained longer", "single SAE, tuned")


def pooled(l0=16.0, features=512, seeds=8, null=0.0, pools=3, long=5, alike=3, spent=13_200_000, **differences):
    """Results of a study of pools with these differences from competitors, by figure, or by figure and competitor (`all__1`)."""
    headline, common = "pool of means, tuned", {"l0": estimate(16.0, None, None), "features": estimate(512, None, None)}
    figures = {name: estimate(0.5, 0.4, 0.6, null) for name in ("all", "live", "against long")}
    figures |= {"explained": estimate(0.85, 0.84, 0.86, None), "live features": estimate(500, None, None, None)}
    less = {"all": (0.3, 0.25, 0.35), "live": (0.3, 0.25, 0.35), "explained": (-0.004, -0.006, -0.002), "against long": (0.1, 0.0, 0.2)}
    by_competitor = {
        name: {figure: estimate(*differences.get(f"{figure}__{i}", differences.get(figure, usual))) for figure, usual in less.items()}
        for i, name in enumerate(COMPETITORS)
    }
    counts = {headline: pools, "trained longer": long, "single SAE, tuned": alike}
    present = [name for name in COMPETITORS if counts[name]]
    summary = {
        "headline": headline,
        "headline_measured": True,
        "group": seeds,
        "seeds": {"one": list(range(seeds))},
        "methods": {headline: common | {"l0": estimate(l0, None, None), "features": estimate(features, None, None)}, "single SAE": common},
        "independent products": {
            "methods": dict.fromkeys((headline, *present), figures),
            "products": {name: n for name, n in counts.items() if n},
            "competitors": list(COMPETITORS),
            "tokens": {headline: 13_200_000, "trained longer": spent},
            "less": {name: by_competitor[name] for name in present},
        },
    }
    return FinishedRun({"pooled": summary})


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        ({}, "yes"),
        ({"all": (0.15, 0.05, 0.25)}, "undecided"),
        ({"all__0": (0.02, 0.01, 0.03)}, "no"),  # on all features, beside what was trained as long
        ({"live__1": (0.02, 0.01, 0.03)}, "no"),  # on live ones, beside what was trained on alike
        ({"live": (0.1, 0.05, 0.15)}, "undecided"),
        ({"explained__0": (-0.03, -0.04, -0.02)}, "no"),  # the best competitor counts
        ({"explained": (-0.01, -0.02, 0.0)}, "undecided"),
        ({"explained": (-0.004, None, None)}, "undecided"),
        ({"against long": (-0.3, -0.4, -0.2)}, "yes"),  # a second figure
        ({"l0": 17.0}, "undecided"),
        ({"features": 600}, "undecided"),
        ({"seeds": 3}, "undecided"),
        ({"pools": 2}, "undecided"),
        ({"long": 4}, "undecided"),
        ({"long": 0}, "undecided"),
        ({"alike": 2}, "undecided"),
        ({"spent": 11_000_000}, "undecided"),
        ({"null": 0.1}, "undecided"),
        ({"live": (None, None, None)}, "undecided"),
    ],
)
def test_pools_must_beat_what_their_compute_buys_otherwise(changes, holds):
    claim = next(c for c in decide(pooled(**changes)) if c.name == "C6")
    assert claim.holds == holds and claim.because and "p̂ between on all features" in claim.measured


def test_the_reason_says_what_is_missing():
    claim = next(c for c in decide(pooled(pools=2, long=0, seeds=4)) if c.name == "C6")
    for what in ("4 SAEs in a pool, config.claims.min_seeds=6", "2 independent pools, config.claims.c6_groups=3", "0 SAEs trained longer"):
        assert what in claim.because


def test_a_headline_that_was_not_made_decides_nothing():
    found = pooled()
    found.summary["pooled"]["headline_measured"] = False
    assert next(c for c in decide(found) if c.name == "C6").holds == "undecided"
