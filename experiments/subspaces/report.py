"""Headline rows of subspaces, claim C4, and what is said of each local subspace."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

from experiments.reappearance.report import too_little
from experiments.subspaces.predictors import DECIDING
from interpret.contexts import Context
from reports.claims import UNDECIDED, YES, Claims, Evidence, Part, Statement
from reports.headline import Row
from reports.results import Estimated, Results
from reports.text import number, with_interval

ROWS = (
    Row("subspace.overlap_unstable", "subspace overlap, unstable", "overlap between seeds of the top-r planes of their unstable features, 1 if equal"),
    Row("subspace.overlap_excess", "overlap over strongest null", "that overlap less the strongest null's: stable features, others of matched frequency or energy, activation PCA, SAEs trained on Gaussian activations"),
    Row("subspace.effective_rank_unstable", "effective rank / D, unstable", "exp of the spectrum's entropy over the width, at equal n, which also caps it (n/D); null: SAEs trained on Gaussian activations, without them random live features"),
    Row("subspace.effective_rank_stable", "effective rank / D, stable", "the same for stable features"),
    Row("atlas.span_agreement", "local subspaces, agreement", "overlap between seeds of the spans of features that lie in a local subspace; null: dictionaries turned, as many features chosen alike"),
    Row("atlas.p_inside", "p̂ inside local subspaces", "p̂ of the features that lie in one"),
    Row("atlas.unstable_inside", "unstable, in local subspaces", "unstable live features that lie in a sharply bounded subspace which seeds share; null: dictionaries turned"),
    Row("diagnosis.rare or under-trained", "unstable: rare or under-trained", "unstable features that fire too seldom, or whose direction still moves"),
    Row("diagnosis.split or absorbed", "unstable: split or absorbed", "that up to three features of other seeds reconstruct; null: of turned dictionaries"),
    Row("diagnosis.basis ambiguity", "unstable: basis ambiguity", "that lie in a local subspace"),
    Row("diagnosis.unexplained", "unstable: unexplained", "for which nothing of all this speaks"),
)  # fmt: skip


NULLS = dict(
    zip(
        DECIDING,
        ("stable features", "others of matched frequency", "others of matched energy", "activation PCA", "SAEs on Gaussian activations"),
        strict=True,
    )
)
UNKNOWN: Estimated = {"value": None, "low": None, "high": None}


def rows(results: Results) -> tuple[Row, ...]:
    """Headline rows of the room."""
    del results
    return ROWS


def _c4(results: Results, rules: Claims) -> Evidence | None:
    if "subspace" not in results.summary:
        return None
    s = results.summary["subspace"]
    if "not_measured" in s:
        return Evidence("–", (), s["not_measured"])
    excesses = {name: (s["overlap_over"].get(name), s["captured_energy_over"].get(name)) for name in DECIDING}
    gaussian = s.get("effective_rank_gaussian_minus_unstable")
    figures_text = (
        f"top-{s['headline_rank']} planes of unstable features overlap between seeds by {with_interval(s['overlap_unstable'])}; over "
        + "; ".join(f"{NULLS[name]} {with_interval(overlap)}" for name, (overlap, _) in excesses.items() if overlap is not None)
        + f"; effective rank / D at n={s['features_per_set']} (at most {number(s['effective_rank_ceiling'])}): unstable {with_interval(s['effective_rank_unstable'])}, "
        f"stable {with_interval(s['effective_rank_stable'])}"
        + (f", SAEs on Gaussian activations less unstable {with_interval(gaussian)}" if gaussian is not None else "")
    )
    ceiling = s["effective_rank_ceiling"] < 1  # fewer features than dimensions: all sets are near the ceiling
    parts = [
        Part(f"{figure} over {NULLS[name]}", (e or UNKNOWN,), rules.c4_excess)
        for name, both in excesses.items()
        for figure, e in zip(("overlap", "energy"), both, strict=True)
    ]
    ranks = {"stable": s["effective_rank_stable_minus_unstable"], "SAEs on Gaussian activations": gaussian or UNKNOWN}
    parts += [Part(f"lower effective rank than {name}", (UNKNOWN if ceiling else e,), 0.0) for name, e in ranks.items()]
    missing = [NULLS[name] for name, (overlap, _) in excesses.items() if overlap is None]
    return Evidence(figures_text, tuple(parts), too_little(results, rules), functools.partial(_c4_reason, missing))


def _c4_reason(missing: list[str], holds: str, sides: Mapping[str, str]) -> str:
    if holds == YES:
        return "overlap and captured energy above every null, and lower effective rank"
    absent = f"; not there to be held against: {', '.join(missing)}" if missing else ""
    because = "not every interval lies above its null: " if holds == UNDECIDED else "not met: "
    return because + "; ".join(f"{name}: {side}" for name, side in sides.items() if side != YES) + absent


CLAIMS = (
    Statement(
        "C4", "Unstable features concentrate in a reproducible subspace of lower rank (effective rank / D 0.59–0.65 against 0.80–0.81).",
        "the stage 'subspace' was not asked for", _c4,
    ),
)  # fmt: skip


def remarks(results: Results, rules: Claims) -> list[str]:
    """Subspaces that were not found, and what is not known of features that still move."""
    del rules
    out = []
    if results.summary.get("atlas", {}).get("entries") == 0 and "not_measured" not in results.summary["atlas"]:
        excess = results.summary.get("subspace", {}).get("overlap_excess", {"low": None})["low"]
        shared = ": the span that unstable features have in common fades out" if excess is not None and excess > 0 else ""
        out.append(f"No sharply bounded subspace is shared by both halves of the seeds{shared}.")
    diagnosed = results.summary.get("diagnosis", {})
    if diagnosed.get("features") and not diagnosed["drift_known"]:
        out.append(
            "Whether features still move is not known, without a dictionary from half of their training: those that do count as unexplained."
        )
    return out


def name_of(entry: dict[str, Any]) -> str:
    """Of a local subspace, for people."""
    return f"subspace {entry['entry']} (rank {entry['rank']})"


class Subspace(NamedTuple):
    """A local subspace: its row of atlas/entries.parquet, and the contexts of the tokens to which its features add most."""

    entry: dict[str, Any]
    contexts: list[tuple[float, Context]]

    @property
    def name(self) -> str:
        return name_of(self.entry)

    @property
    def sentences(self) -> str:
        e = self.entry
        text = (
            f"{number(e['features_per_seed'])} features a seed in {e['seeds']} seeds; found by two halves of the seeds with overlap {number(e['agreement_of_halves'])}. Spans overlap between seeds by "
            f"{number(e['span_agreement'])} (by chance {number(e['span_agreement_null'])}, p = {number(e['p_value'])}), p̂ of its features is {number(e['p'])} (by chance {number(e['p_by_chance'])})."
        )
        if e.get("energy") is not None:
            text += (
                f" It holds {number(e['energy'])} of the variance and is active on {number(e['firing_rate'])} of tokens; what its features add to a token agrees between seeds with cosine "
                f"{number(e['contribution_agreement'])} (with as many others of the other seed: {number(e['contribution_agreement_null'])}). Overlap with as many principal components: {number(e['overlap_with_components'])}."
            )
        return text
