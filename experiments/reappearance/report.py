"""Headline rows of p̂, claim C1, and what a reader must know before believing the figures."""

from reports.claims import Claims, Evidence, Part, Statement
from reports.headline import Row
from reports.results import Estimated, Results
from reports.text import number, with_interval

ROWS = (
    Row("stability.mean_p_live", "mean p̂, live features", "probability that a live feature of one seed has a match (cosine ≥ θ) in another seed"),
    Row("stability.mean_p_all", "mean p̂, all features", "the same with dead and rare features, which count against stability for nothing"),
    Row("stability.mean_p_live_chance_corrected", "mean p̂, chance-corrected", "(p̂ − c)/(1 − c) with c the strongest null's rate"),
    Row("stability.mean_p_unstable", "mean p̂, unstable features", "p̂ of unstable features in the comparison that they were not labelled by; null: after turning every dictionary inside their span"),
    Row("stability.stable_share_live", "stable share", "live features that reappear in at least 1−ε of the other seeds"),
    Row("stability.unstable_share_live", "unstable share", "live features that reappear in at most ε of the other seeds"),
    Row("stability.stable_mass", "stable share, by true p", "live features with p ≥ 1−ε in independently trained SAEs; interval: every share that fits the counts"),
    Row("stability.unstable_mass", "unstable share, by true p", "live features with p ≤ ε; likewise"),
    Row("stability.middle_mass", "middle share, by true p", "live features with p in [0.2, 0.8]; likewise; null: p uniform"),
    Row("stability.reliability", "reliability of p̂", "correlation of p̂ between disjoint halves of the comparisons"),
    Row("stability.mmcs", "MMCS", "mean over features of the best signed cosine in another seed"),
    Row("stability.mmcs_unstable", "MMCS, unstable features", "the same of unstable features, likewise; null: after turning every dictionary inside their span"),
    Row("sensitivity.p by encoder", "p̂ by encoder", "a feature counts as found again if encoder directions are at cosine ≥ θ"),
    Row("sensitivity.p by decoder and encoder, same partner", "p̂ by decoder and encoder", "if both are, with the same partner: the latent is shared as a whole"),
    Row("sensitivity.p by activations", "p̂ by activations", "if activations correlate by ≥ θ on held-out tokens with one of the nearest features by decoder; null: tokens shifted"),
    Row("sensitivity.pw_mcc", "PW-MCC", "mean cosine under the one-to-one matching with the largest sum, all features"),
    Row("sensitivity.shared_one_to_one", "shared one to one", "live features whose partner under that matching is at cosine ≥ θ"),
    Row("sensitivity.agreement_of_matchings", "agreement of matchings", "intersection over union of the live features found one to one and many to one; null: unrelated sets of their sizes"),
    Row("sensitivity.split_share", "split share", "live features with two or more rows of another SAE at cosine ≥ θ"),
    Row("sensitivity.duplicate_share", "duplicate share", "live features with another of their own dictionary at cosine ≥ θ; null: uniform directions"),
    Row("sensitivity.crowding", "crowding", "mean cosine with the ten nearest in the own dictionary; null: uniform directions"),
    Row("stability.firing_rate_stable_over_unstable", "firing rate, stable / unstable", "how many times as often stable live features fire as unstable ones"),
    Row("stability.median_firing_rate_stable_over_unstable", "… medians", "the same of medians"),
    Row("stability.firing_rate_stable", "firing rate, stable", "mean over live stable features"),
    Row("stability.firing_rate_unstable", "firing rate, unstable", "the same of unstable ones"),
    Row("stability.energy_stable_over_unstable", "energy, stable / unstable", "the same for Σ f²‖d‖², the energy that a feature's reconstructions hold (features overlap, so these do not add up)"),
    Row("stability.explained_variance", "explained variance", "share of the held-out activations' variance that the SAEs reconstruct; null: their mean"),
    Row("stability.l0", "L0", "active features a token"),
    Row("stability.dead_share", "dead share", "features that never fire on the held-out tokens"),
    Row("stability.rise_per_doubling", "rise of p̂ per doubling", "change of p̂ (all features) per doubling of training tokens at the end; on a plateau its interval is near 0"),
    Row("stability.live_stable_features", "live stable features", "in all seeds together"),
    Row("stability.live_unstable_features", "live unstable features", "in all seeds together"),
)  # fmt: skip


STEADY = 0.02  # change of p̂ per doubling of training tokens that is called a plateau


def rows(results: Results) -> tuple[Row, ...]:
    """Headline rows of the room."""
    del results
    return ROWS


def too_few_seeds(results: Results, rules: Claims) -> str:
    """Why no label can be believed; "" where labels can."""
    seeds = len(results.summary["stability"]["seeds"])
    return f"{seeds} seeds, config.claims.min_seeds={rules.min_seeds}" if seeds < rules.min_seeds else ""


def too_little(results: Results, rules: Claims) -> str:
    """Why nothing can be said of stable or of unstable features; "" where something can."""
    s = results.summary["stability"]
    if few := too_few_seeds(results, rules):
        return few
    for label in ("stable", "unstable"):
        count = s[f"live_{label}_features"]["value"]
        if count < rules.min_features:
            return f"{count} live {label} features in all seeds, config.claims.min_features={rules.min_features}"
    return ""


def rise_per_doubling(results: Results) -> Estimated | None:
    """By how much p̂ (all features) changed per doubling of training tokens between the last two dictionaries along it.

    None without two of them whose p̂ lies above the strongest null: where nothing has begun there is no plateau.
    """
    if not results.has("stability/tokens_curve.parquet") or "rise_per_doubling" not in results.summary["stability"]:
        return None
    chance = results.figure("stability.mean_p_all")["null"]
    last_two = [r for r in results.table("stability/tokens_curve.parquet") if r["tokens"] > 0][-2:]
    begun = len(last_two) == 2 and all((r["p_low"] or 0.0) > chance for r in last_two)
    return results.figure("stability.rise_per_doubling") if begun else None


def is_steady(rise: Estimated) -> bool:
    """Whether the whole interval of the change of p̂ per doubling of training tokens is small (an equivalence test); claims have plateaus of their own."""
    return rise["low"] is not None and rise["low"] >= -STEADY and rise["high"] <= STEADY


def _c1(results: Results, rules: Claims) -> Evidence | None:
    if "stability" not in results.summary:
        return None
    s = results.summary["stability"]
    reliability, middle = s["reliability"], s["middle_mass"]
    figures_text = (
        f"p̂ correlates by {with_interval(reliability)} between disjoint halves of the comparisons; of live features {with_interval(middle)} have a true p in "
        f"[0.2, 0.8] (uniform p: {number(middle['null'])}), {with_interval(s['stable_mass'])} are stable, {with_interval(s['unstable_mass'])} unstable"
    )
    null, in_span = s["mean_p_live"]["null"], s["mean_p_unstable"]["null"]
    withheld, live = too_few_seeds(results, rules), s["live_stable_features"]["n"]["number"]
    if not withheld and live < 2 * rules.min_features:
        withheld = f"{live} live features in all seeds, twice config.claims.min_features={rules.min_features} are wanted"
    if not withheld and null >= rules.c1_chance:
        withheld = f"chance is {number(null)}, not below {rules.c1_chance}: θ is too low for this width"
    if not withheld and in_span is not None and in_span >= rules.c1_chance:
        withheld = f"unstable features match by chance with {number(in_span)} inside their span, not below {rules.c1_chance}: raise θ"
    parts = (
        Part("reliability", (reliability,), rules.c1_reliability, can_refute=False),
        Part("middle share", (middle,), rules.c1_middle, must_be_below=True),
    )
    rule = f"rule: yes if reliability is above {rules.c1_reliability} and the middle share below {rules.c1_middle}, no if the middle share is above it"
    stands = lambda sides: "; ".join(f"{name}: {side}" for name, side in sides.items())
    # That a signal separates does not depend on why features are unstable.
    return Evidence(figures_text, parts, withheld, lambda holds, sides: f"{rule}; {stands(sides)}", moves=False)


CLAIMS = (
    Statement("C1", "A per-feature signal, p̂, separates stable from unstable features.", "the stage 'stability' was not asked for", _c1),
)


def remarks(results: Results, rules: Claims) -> list[str]:
    """Sets that are too small, SAEs that were left out, and how far from a plateau p̂ is."""
    if "stability" not in results.summary:
        return []
    s, out = results.summary["stability"], []
    for label in ("stable", "unstable"):
        count = s[f"live_{label}_features"]["value"]
        if count < rules.min_features:
            out.append(
                f"Only {count} live {label} features (at least {rules.min_features} wanted): train longer, with more seeds, or another dictionary size."
            )
    if s["frozen_seeds"]:
        out.append(f"Left out, since their training was not finite: seeds {', '.join(map(str, s['frozen_seeds']))}.")
    if len(set(s["saes"]["sizes"])) > 1:
        out.append(
            "Dictionaries differ in size: p̂ has a direction, of a feature of one SAE found in the others (stability/pairs.parquet has every pair)."
        )
    if s["evaluation_rows"] == 0:
        out.append("No activations were given: dead features cannot be told and count as live.")
    rise = rise_per_doubling(results)
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
        reached = "a plateau" if is_steady(rise) else "no plateau is shown, unstable features may be under-trained"
        out.append(
            f"Over the last doubling of training tokens (the learning rate's decay included) p̂ of all features changed by {with_interval(rise)}: {reached}."
        )
    return out
