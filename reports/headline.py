"""The short table that ends a run, and what each headline figure means."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from etils import epath

from reports.claims import on_plateau
from reports.results import Results
from reports.text import number, with_interval


class Figure(NamedTuple):
    """A headline figure: its path in the summary, its name, and the sentence that says what it means."""

    path: str
    name: str
    meaning: str


FIGURES = (
    Figure("stability.mean_p_live", "mean p̂, live features", "probability that a live feature of one seed has a match (cosine ≥ θ) in another seed"),
    Figure("stability.mean_p_all", "mean p̂, all features", "the same with dead and rare features, which count against stability for nothing"),
    Figure("stability.mean_p_live_chance_corrected", "mean p̂, chance-corrected", "(p̂ − c)/(1 − c) with c the strongest null's rate"),
    Figure("stability.mean_p_unstable", "mean p̂, unstable features", "p̂ of unstable features in the comparison that they were not labelled by; null: after turning every dictionary inside their span"),
    Figure("stability.stable_share_live", "stable share", "live features that reappear in at least 1−ε of the other seeds"),
    Figure("stability.unstable_share_live", "unstable share", "live features that reappear in at most ε of the other seeds"),
    Figure("stability.split_half_difference", "split-half difference", "labelled on half of the other seeds, how much higher stable features' p̂ is than unstable ones' in the other half"),
    Figure("stability.mmcs", "MMCS", "mean over features of the best signed cosine in another seed"),
    Figure("stability.mmcs_unstable", "MMCS, unstable features", "the same of unstable features, likewise; null: after turning every dictionary inside their span"),
    Figure("sensitivity.p by encoder", "p̂ by encoder", "a feature counts as found again if encoder directions are at cosine ≥ θ"),
    Figure("sensitivity.p by decoder and encoder, same partner", "p̂ by decoder and encoder", "if both are, with the same partner: the latent is shared as a whole"),
    Figure("sensitivity.p by activations", "p̂ by activations", "if activations correlate by ≥ θ on held-out tokens with one of the nearest features by decoder; null: tokens shifted"),
    Figure("sensitivity.pw_mcc", "PW-MCC", "mean cosine under the one-to-one matching with the largest sum, all features"),
    Figure("sensitivity.shared_one_to_one", "shared one to one", "live features whose partner under that matching is at cosine ≥ θ"),
    Figure("sensitivity.agreement_of_matchings", "agreement of matchings", "intersection over union of the live features found one to one and many to one; null: unrelated sets of their sizes"),
    Figure("sensitivity.split_share", "split share", "live features with two or more rows of another SAE at cosine ≥ θ"),
    Figure("sensitivity.duplicate_share", "duplicate share", "live features with another of their own dictionary at cosine ≥ θ; null: uniform directions"),
    Figure("sensitivity.crowding", "crowding", "mean cosine with the ten nearest in the own dictionary; null: uniform directions"),
    Figure("stability.firing_rate_stable_over_unstable", "firing rate, stable / unstable", "how many times as often stable live features fire as unstable ones"),
    Figure("stability.energy_stable_over_unstable", "energy, stable / unstable", "the same for Σ f²‖d‖², the energy that a feature's reconstructions hold (features overlap, so these do not add up)"),
    Figure("subspace.overlap_unstable", "subspace overlap, unstable", "overlap between seeds of the top-r planes of their unstable features, 1 if equal"),
    Figure("subspace.overlap_excess", "overlap over strongest null", "that overlap less the strongest null's: random live or stable features of another seed, activation PCA, random plane"),
    Figure("subspace.effective_rank_unstable", "effective rank / D, unstable", "exp of the spectrum's entropy over the width, at equal n, which also caps it (n/D); null: random live features"),
    Figure("subspace.effective_rank_stable", "effective rank / D, stable", "the same for stable features"),
    Figure("atlas.span_agreement", "local subspaces, agreement", "overlap between seeds of the spans of features that lie in a local subspace; null: dictionaries turned, as many features chosen alike"),
    Figure("atlas.p_inside", "p̂ inside local subspaces", "p̂ of the features that lie in one"),
    Figure("atlas.unstable_inside", "unstable, in local subspaces", "unstable live features that lie in a sharply bounded subspace which seeds share; null: dictionaries turned"),
    Figure("diagnosis.rare or under-trained", "unstable: rare or under-trained", "unstable features that fire too seldom, or whose direction still moves"),
    Figure("diagnosis.split or absorbed", "unstable: split or absorbed", "that up to three features of other seeds reconstruct; null: of turned dictionaries"),
    Figure("diagnosis.basis ambiguity", "unstable: basis ambiguity", "that lie in a local subspace"),
    Figure("diagnosis.unexplained", "unstable: unexplained", "for which nothing of all this speaks"),
    Figure("transfer.f1", "transfer, F1", "of the class unstable by a logistic regression on decoder rows, on the half of the seeds that took no part; null: all called unstable"),
    Figure("transfer.auroc", "transfer, AUROC", "of the same"),
    Figure("transfer.auroc_excess", "transfer, over baselines", "AUROC less that of crowding or frequency alone, whichever is better"),
    Figure("transfer.brier", "predicted p̂, Brier", "squared error of p̂ predicted for SAEs that were left out; null: the share of the others in which a feature is found"),
    Figure("function.removed_difference", "N stable less 4N unstable removed", "difference of explained variance lost, mean over all choices of N (4: function.ratio); above 0 if the fewer stable features are worth more; null: any live features instead"),
    Figure("function.removed_difference_by_the_other_half", "… labelled by the other half", "the same where no seed both labels and is measured"),
    Figure("function.removed_difference_refilled", "… removed before the selection", "the same where other features take the places of those removed (topk alone)"),
    Figure("function.part_stable", "stable: part of what is explained", "sum of Shapley values of explained variance, exact; parts add up to 1; null: share of live features"),
    Figure("function.part_unstable", "unstable: part of what is explained", "the same of unstable features"),
    Figure("function.only_stable", "stable alone", "explained variance with only stable features left; null: as many live ones"),
    Figure("function.only_unstable", "unstable alone", "the same of unstable features"),
    Figure("function.marginal_per_firing_stable_over_unstable", "marginal effect, stable / unstable", "explained variance lost by removing one feature, for each token on which it fires"),
    Figure("function.marginal_within_deciles_stable_over_unstable", "… within deciles of rate", "the same among features that fire about equally often"),
    Figure("function.matched_frequency_less_unstable", "matched frequency less unstable", "explained variance lost with as many other features of the same firing rates removed, less that of the unstable ones"),
    Figure("function.partial_p_per_token", "p̂ and marginal effect, partial", "rank correlation, with firing rate and energy taken out"),
    Figure("splice.ce_recovered", "CE recovered", "(CE with zeros − CE with reconstructions) / (CE with zeros − CE of the model), at spliced positions"),
    Figure("splice.removed_difference", "N stable less 4N unstable, CE", "difference of cross-entropy gained, above 0 if the fewer stable features are worth more to predictions; null: any live features instead"),
    Figure("splice.removed_difference_by_the_other_half", "… labelled by the other half, CE", "the same where no seed both labels and is measured"),
    Figure("splice.matched_frequency_less_unstable", "matched frequency less unstable, CE", "cross-entropy gained with as many other features of the same firing rates removed, less that of the unstable ones"),
    Figure("splice.single_per_firing_stable", "a stable feature removed, CE", "nats for each token on which it fires; of a sample of features"),
    Figure("splice.single_per_firing_unstable", "an unstable feature removed, CE", "the same"),
    Figure("statistics.surface_stable", "surface form, stable", "share of features whose firing is a matter of the token's text: score of at least statistics.surface; null: firing on random tokens"),
    Figure("statistics.surface_unstable", "surface form, unstable", "the same of unstable features"),
    Figure("statistics.surface_difference", "surface form, unstable less stable", "difference of these shares"),
    Figure("statistics.surface_difference_at_equal_frequency", "… at equal firing rate", "unstable features less others of the same firing rates"),
    Figure("explanations.substring_unstable", "explained by a substring, unstable", "share of explanations that speak of what tokens contain, begin or end with, or how they are written"),
    Figure("explanations.substring_stable", "explained by a substring, stable", "the same of stable features of about the same firing rate"),
    Figure("explanations.detection_unstable", "detection, unstable", "balanced accuracy with which the explanation tells on which other tokens the feature fires"),
    Figure("explanations.detection_stable", "detection, stable", "the same of stable features"),
    Figure("recovery.free, latents: atoms found at {found}", "free atoms found", "atoms in general position that some live latent meets at cosine {found}"),
    Figure("recovery.block, latents: atoms found at {found}", "block atoms found", "the same of atoms crowded into the planted block"),
    Figure("recovery.free, latents: p̂ at {found}", "p̂ at {found}, free latents", "probability that a latent outside the block has a match at cosine {found} in another seed"),
    Figure("recovery.free, latents: PW-MCC", "PW-MCC, free latents", "mean cosine of the latents of two seeds under their one-to-one matching; null: as many random directions"),
    Figure("recovery.free, latents: ground-truth MCC", "ground-truth MCC, free atoms", "mean cosine of atoms with latents under their one-to-one matching; null: as many random directions"),
    Figure("recovery.block, latents: p̂ at {found}", "p̂ at {found}, block latents", "the same of latents that lie in the block"),
    Figure("recovery.block, latents: p̂ at {theta}", "p̂ at {theta}, block latents", "at cosine {theta}"),
    Figure("recovery.block, subspace: top plane, overlap between seeds, its unstable latents", "block span, between seeds", "overlap of the top planes of the block's unstable latents (p̂ at {theta} below {unstable_below}), as many dimensions as planted; null: uniform directions that lie in the block by the same rule"),
    Figure("recovery.block, subspace: top plane, overlap with the planted one, its unstable latents", "block span, planted", "overlap of that plane with the planted one"),
    Figure("recovery.blocks, subspace: top plane, overlap between seeds, unstable latents, chosen without the truth", "unstable span, between seeds", "overlap of the top planes of all unstable latents, as many dimensions as planted; null: random planes, activation PCA"),
    Figure("recovery.blocks, subspace: top plane, overlap with the planted one, unstable latents, chosen without the truth", "unstable span, planted", "overlap of that plane with the planted one"),
    Figure("stability.explained_variance", "explained variance", "share of the held-out activations' variance that the SAEs reconstruct; null: their mean"),
    Figure("stability.l0", "L0", "active features a token"),
    Figure("stability.dead_share", "dead share", "features that never fire on the held-out tokens"),
    Figure("stability.rise_per_doubling", "rise of p̂ per doubling", "change of p̂ (all features) per doubling of training tokens at the end; on a plateau its interval is near 0"),
    Figure("stability.live_stable_features", "live stable features", "in all seeds together"),
    Figure("stability.live_unstable_features", "live unstable features", "in all seeds together"),
)  # fmt: skip


def figures_of(results: Results) -> list[Figure]:
    """Those of `FIGURES` that a run has; thresholds of a synthetic study ({found}, {theta}, …) are its own."""
    at = {name: f"{value:g}" for name, value in results.summary.get("recovery", {}).items() if isinstance(value, float)}
    found = []
    for f in FIGURES:
        for name, value in at.items():
            f = Figure(*(text.replace(f"{{{name}}}", value) for text in f))
        stage, key = f.path.split(".", 1)
        if key in results.summary.get(stage, {}):
            found.append(f)
    return found


def print_headline(workdir: epath.Path, stages: Sequence[str], rules: Any) -> None:
    """Prints the figures that the stages made, the page's path, and what a reader must know first; `rules` is `config.claims`."""
    results = Results(workdir, stages)
    if "stability" not in results.summary:
        return
    rows = [("", "value [interval]", "null")]
    for f in figures_of(results):
        estimate = results.figure(f.path)
        rows.append((f.name, with_interval(estimate), number(estimate["null"])))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for sentence in remarks(results, rules):
        print(sentence)
    if results.has("report/index.html"):
        print(f"\nreport: {workdir / 'report' / 'index.html'}")


def print_pools(workdir: epath.Path, stages: Sequence[str]) -> None:
    """Prints what pools are worth, the claim, and the page's path."""
    results = Results(workdir, stages)
    if "pooled" not in results.summary:
        return
    columns = {"p": "p̂ against fresh seeds", "between": "p̂ between groups", "explained": "explained variance"}
    rows = [("", *columns.values())]
    rows += [(name, *(with_interval(of[key]) for key in columns)) for name, of in results.summary["pooled"]["methods"].items()]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if results.has("report/summary.json"):
        claim = results.json("report/summary.json")["claims"]["C6"]
        print(f"\nC6: {claim['holds']}: {claim['because']}")
        print(f"\nreport: {workdir / 'report' / 'index.html'}")


def remarks(results: Results, rules: Any) -> list[str]:
    """What a reader must know before believing the figures: sets that are too small, and how far from a plateau p̂ is."""
    s, out = results.summary["stability"], []
    for label in ("stable", "unstable"):
        count = s[f"live_{label}_features"]["value"]
        if count < rules.min_features:
            out.append(
                f"Only {count} live {label} features (at least {rules.min_features} wanted): train longer, with more seeds, or another dictionary size."
            )
    if results.has("collect/summary.json") and (unknown := results.json("collect/summary.json")["not_compared"]):
        out.append(f"Whether the SAEs are of the same activations is told by their files alone, and not all of it: {'; '.join(unknown)}.")
    if "not_measured" in results.summary.get("subspace", {}):
        out.append(f"Subspaces were not measured: {results.summary['subspace']['not_measured']}.")
    for stage in ("atlas", "diagnosis", "transfer", "function", "splice", "statistics", "explanations"):
        if "not_measured" in results.summary.get(stage, {}):
            out.append(f"The stage {stage!r} did not measure: {results.summary[stage]['not_measured']}.")
    if results.summary.get("atlas", {}).get("entries") == 0 and "not_measured" not in results.summary["atlas"]:
        excess = results.summary.get("subspace", {}).get("overlap_excess", {"low": None})["low"]
        shared = ": the span that unstable features have in common fades out" if excess is not None and excess > 0 else ""
        out.append(f"No sharply bounded subspace is shared by both halves of the seeds{shared}.")
    diagnosed = results.summary.get("diagnosis", {})
    if diagnosed.get("features") and not diagnosed["drift_known"]:
        out.append(
            "Whether features still move is not known, without a dictionary from half of their training: those that do count as unexplained."
        )
    if s["frozen_seeds"]:
        out.append(f"Left out, since their training was not finite: seeds {', '.join(map(str, s['frozen_seeds']))}.")
    if len(set(s["saes"]["sizes"])) > 1:
        out.append(
            "Dictionaries differ in size: p̂ has a direction, of a feature of one SAE found in the others (stability/pairs.parquet has every pair)."
        )
    if s["evaluation_rows"] == 0:
        out.append("No activations were given: dead features cannot be told and count as live.")
    rise = results.rise_per_doubling()
    if rise is None and not results.has("stability/tokens_curve.parquet"):
        out.append("There are no dictionaries along training, so whether p̂ has reached a plateau cannot be told.")
    elif rise is None:
        few = (
            f"{len(s['seeds'])} seeds have no interval"
            if len(s["seeds"]) < 3
            else "fewer than two dictionaries along training lie above chance"
        )
        out.append(f"Whether p̂ has reached a plateau cannot be told: {few}.")
    else:
        reached = "a plateau" if on_plateau(rise, rules) else "no plateau is shown, unstable features may be under-trained"
        out.append(
            f"Over the last doubling of training tokens (the learning rate's decay included) p̂ of all features changed by {with_interval(rise)}: {reached}."
        )
    return out
