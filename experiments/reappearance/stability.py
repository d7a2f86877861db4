"""Stage: p̂ of every feature of every SAE, labels, strata, intervals and nulls.

Reads a list of dictionaries and, where there are any, held-out activations; knows nothing of how the SAEs were trained.

features.parquet          a row per (seed, feature)
pairs.parquet             a row per (anchor, other): p̂ and MMCS of the anchor's live features in the other, p̂ of uniform directions as null
theta_curve.parquet       p̂ of live features over θ, and of every null model
labels.parquet            shares of stable and unstable features over θ and ε, beside the strongest null's
match_histogram.parquet   best cosines, trained and rotated
tokens_curve.parquet      p̂ against training tokens
"""

import functools
import math
from typing import Any

import jax
import numpy as np

from experiments.data import costs, dictionary_list, sources
from experiments.data.costs import Cost, Hardware, Size
from experiments.data.dictionary_list import DictionaryList
from experiments.data.seeds import Seeds
from experiments.reappearance import null_models, rates
from experiments.reappearance.labels import LabelRule, Reappearance
from experiments.reappearance.null_models import NullModels
from experiments.settings import Settings
from experiments.stage import Outputs, Stage, Task
from runtime import progress
from saes.config import TrainConfig
from saes.dictionary import Dictionary
from saes.evaluation import Evaluation, evaluate
from stability import aggregates, mixing, nulls, reappearance, similarity
from stability.aggregates import pair_mean, seed_mean
from stability.estimates import Count, Estimate

STAGE = Stage(config=Reappearance, reads=(LabelRule,), needs=("saes",), uses=("rows", "gaussian"))

COSINE_BINS = np.linspace(-1.0, 1.0, 101)
MIDDLE = (0.2, 0.8)  # true p of features that are neither stable nor unstable


def run(task: Task, out: Outputs) -> None:
    c, rule = task.section(Reappearance), task.section(LabelRule)
    saes = dictionary_list.saes(task)
    exists_SF, s = saes.exists_SF, len(saes.seeds)
    acts_ND, evaluation = sources.evaluation_rows(task), None
    if acts_ND is not None:
        evaluation = out.part("evaluation", lambda: rates.evaluated(saes, acts_ND, c.top_rows))
    best = out.part("pairs", lambda: _compared(saes, rule))
    hits_SSF = reappearance.reappears(best.cosine, rule.theta)
    counts_SF = hits_SSF.sum(axis=1)
    labels_SF = reappearance.labels(counts_SF, s - 1, rule.epsilon)
    # Without activations nobody can tell the dead from the living.
    strata_SF = np.full(exists_SF.shape, reappearance.LIVE)
    if evaluation is not None:
        strata_SF = reappearance.strata(evaluation.firings_SF, rule.rare_firings)
    live_SF = exists_SF & (strata_SF == reappearance.LIVE)
    if not live_SF.any():
        print(f"stability: no feature is alive: none fires on {rule.rare_firings} of the held-out rows (config.stability.rare_firings)")

    gaussian = null_models.gaussian_saes(task, out)
    covariance_DD = None if acts_ND is None else null_models.covariance(acts_ND)
    firings_SF = None if evaluation is None else evaluation.firings_SF
    unstable_SF = live_SF & (labels_SF == reappearance.UNSTABLE)
    with progress.comparing("stability/nulls") as on_pair:
        models = out.part(
            "null models",
            lambda: null_models.measure(c, rule, saes, best.partner, gaussian, covariance_DD, firings_SF, live_SF, unstable_SF, on_pair),
        )
    curve, rise = out.part("along training", lambda: _curve(saes, acts_ND, c, rule))
    summary = _similarity_figures(rule, best.cosine, exists_SF, live_SF, models)
    if evaluation is not None:
        summary |= _activation_figures(rule, hits_SSF, exists_SF, strata_SF, evaluation)
    if rise is not None:
        summary["rise_per_doubling"] = rise.as_dict()
    summary |= label_counts(labels_SF, live_SF)
    summary |= {
        "seeds": list(saes.seeds),
        "names": list(saes.names),
        "saes": _describe_saes(saes),
        "frozen_seeds": list(saes.frozen),
        "null_models": models.figures,
        "evaluation_rows": 0 if evaluation is None else evaluation.rows,
        "theta": rule.theta,
        "epsilon": rule.epsilon,
        "confidence": rule.confidence,
    }
    out.summary(summary)
    tables = {
        "features": _features(rule, saes, best, counts_SF, labels_SF, strata_SF, evaluation),
        "pairs": _pairs(rule, saes, best.cosine, hits_SSF, live_SF),
        "theta_curve": _theta_curve(c, rule, best.cosine, live_SF, models),
        "labels": _labels(c, rule, best.cosine, live_SF, models),
        "match_histogram": _histogram(best.cosine, models.rotated_SSF),
    } | ({"tokens_curve": curve} if curve else {})
    for name, table in tables.items():
        out.table(name, table)


def _compared(saes: DictionaryList, rule: LabelRule) -> similarity.BestMatch:
    """Every SAE with every other."""
    s = len(saes.seeds)
    with progress.comparing("stability/pairs", s * (s - 1) // 2) as on_pair:
        return similarity.all_pairs(saes.w_dec_SFD, sizes=saes.sizes, block_size=rule.block_size, on_pair=on_pair)


def _describe_saes(saes: DictionaryList) -> dict[str, Any]:
    """What was measured, for people: from the files, and from what their list says of their training."""
    hook, training = saes.hook, saes.training
    place = f" after layer {hook['layer']} ({hook['site']})" if hook.get("layer") is not None and "site" in hook else ""
    architectures = list(dict.fromkeys(d.architecture for d in saes.dictionaries))
    ks = sorted({d.k for d in saes.dictionaries})
    sizes = sorted(set(saes.sizes))
    return {
        "kind": training.get("variant", " and ".join(architectures)),
        "n_features": sizes[-1] if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}",
        "sizes": list(saes.sizes),
        "k": (training.get("k", ks[0]) or None) if len(ks) == 1 else f"{ks[0]} to {ks[-1]}",
        "of": f"{hook.get('path') or hook.get('model') or 'an unnamed model'}{place}",
        "training": f"they differ in {training['differ_in']} and saw {training['tokens']:,} tokens each"
        if {"differ_in", "tokens"} <= training.keys()
        else "",
    }


def _curve(saes: DictionaryList, acts_ND: np.ndarray | None, c: Reappearance, rule: LabelRule) -> tuple[dict[str, Any], Estimate | None]:
    """p̂ against training tokens, with explained variance, L0 and dead share beside it (means over seeds); and by how much p̂ rose per
    doubling between the last two, with its interval over seeds."""
    rows: list[dict[str, Any]] = []
    tables: list[np.ndarray] = []
    saes = saes.first(c.curve_seeds)
    for tokens, paths in saes.snapshots:
        dictionaries = saes.snapshot(paths)
        cosine = similarity.all_pairs(dictionaries.w_dec_FD, block_size=rule.block_size, on_pair=progress.look_for_signals).cosine
        every = np.ones(dictionaries.w_dec_FD.shape[:2], bool)
        tables.append(aggregates.share_reappearing(reappearance.reappears(cosine, rule.theta), every))
        p = _mean_p(tables[-1], rule, null=None)
        null = nulls.chance_of_match(rule.theta, *dictionaries.w_dec_FD.shape[:0:-1])
        row = {"tokens": tokens, "p": p.value, "p_low": p.low, "p_high": p.high, "null": null, "mmcs": float(np.nanmean(cosine))}
        if acts_ND is not None:
            some_ND = acts_ND[:: max(1, len(acts_ND) // c.curve_rows)][: c.curve_rows]
            evaluation = evaluate(jax.device_put(dictionaries), progress.batches(some_ND, f"stability/at {tokens} tokens"), 1)
            row["explained_variance"] = float(evaluation.explained_variance_S.mean())
            row["l0"] = float(evaluation.l0_S.mean())
            row["dead_share"] = float(evaluation.share_firing_less_than(1).mean())
        rows.append(row)
    rise = rise_along_training(saes, rule, dict(enumerate(tables)))
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}, rise


def rise_along_training(saes: DictionaryList, rule: LabelRule, tables: dict[int, np.ndarray] | None = None) -> Estimate | None:
    """By how much p̂ (all features) rose per doubling of training tokens between the last two dictionaries along it; None without two.

    Args:
      tables: p̂ by pair at every snapshot, if they are known already.
    """
    begun = [i for i, (tokens, _) in enumerate(saes.snapshots) if tokens > 0]
    if len(begun) < 2:
        return None
    before, after = begun[-2:]
    tables = tables or {i: _p_of_pairs(saes.snapshot(saes.snapshots[i][1]), rule) for i in (before, after)}
    doublings = math.log2(saes.snapshots[after][0] / saes.snapshots[before][0])
    statistic = aggregates.rise_per_doubling(tables[before], tables[after], doublings)
    return aggregates.jackknifed(statistic, len(saes.seeds), rule.confidence, null=0.0, unit="probability per doubling")


def _p_of_pairs(stacked: Dictionary, rule: LabelRule) -> np.ndarray:
    cosine = similarity.all_pairs(stacked.w_dec_FD, block_size=rule.block_size).cosine
    return aggregates.share_reappearing(reappearance.reappears(cosine, rule.theta), np.ones(stacked.w_dec_FD.shape[:2], bool))


def _mean_p(share_SS: np.ndarray, rule: LabelRule, null: float | None) -> Estimate:
    statistic = lambda w: pair_mean(share_SS, w)
    return aggregates.jackknifed(statistic, len(share_SS), rule.confidence, null=null, unit="probability", bounds=(0.0, 1.0))


def _similarity_figures(
    rule: LabelRule, cosine_SSF: np.ndarray, exists_SF: np.ndarray, live_SF: np.ndarray, models: NullModels
) -> dict[str, Any]:
    s = len(live_SF)
    hits_SSF = reappearance.reappears(cosine_SSF, rule.theta)
    null = {name: models.strongest(name) for name in null_models.FIGURES}
    in_span = models.figures.get(null_models.SPAN, {})
    mean_p = lambda among_SF, null: _mean_p(aggregates.share_reappearing(hits_SSF, among_SF), rule, null)
    bounded: dict[str, Any] = {"bounds": (-1.0, 1.0)}

    held_out = lambda values_SSF: aggregates.held_out(values_SSF, hits_SSF, live_SF, rule.epsilon, stable=False)
    mmcs = lambda mean_SS, null: aggregates.jackknifed(
        functools.partial(pair_mean, mean_SS), s, rule.confidence, null=null, unit="cosine", **bounded
    )

    live = mean_p(live_SF, null["p"])
    figures = {
        "mean_p_live": live,
        "mean_p_all": mean_p(exists_SF, null["p"]),
        "mean_p_live_chance_corrected": _corrected(live, null["p"] or 0.0),
        # In the comparison that a feature was not labelled by.
        "mean_p_unstable": _mean_p(held_out(hits_SSF), rule, in_span.get("p")),
        "mmcs": mmcs(aggregates.mean_among(cosine_SSF, exists_SF), null["mmcs"]),
        "mmcs_unstable": mmcs(held_out(cosine_SSF), in_span.get("mmcs")),
    } | separation(rule, hits_SSF, live_SF, null[reappearance.STABLE], null[reappearance.UNSTABLE])
    for label in (reappearance.STABLE, reappearance.UNSTABLE):
        for name, among_SF in (("live", live_SF), ("all", exists_SF)):
            figures[f"{label}_share_{name}"] = _label_share(rule, hits_SSF, among_SF, rule.epsilon, label, null[label])
    return {name: e.as_dict() for name, e in figures.items()}


def separation(
    rule: LabelRule, hits_SSF: np.ndarray, live_SF: np.ndarray, stable_null: float | None = None, unstable_null: float | None = None
) -> dict[str, Estimate]:
    """Whether p̂ separates kinds of features: its reliability, and the shares of live features whose true p is near 1, near 0, and between.

    The interval of a share holds every value that some law of p fitting the counts gives (`stability.mixing`). The null of the middle share is a law that knows
    no kinds of features, p uniform.
    """
    s = len(live_SF)
    reliability = aggregates.jackknifed(
        mixing.reliability(hits_SSF, live_SF), s, rule.confidence, null=0.0, unit="correlation", bounds=(-1.0, 1.0)
    )
    intervals = {"middle_mass": MIDDLE, "stable_mass": (1 - rule.epsilon, 1.0), "unstable_mass": (0.0, rule.epsilon)}
    null = {"middle_mass": MIDDLE[1] - MIDDLE[0], "stable_mass": stable_null, "unstable_mass": unstable_null}
    by_law = mixing.shares(hits_SSF, live_SF, list(intervals.values()), rule.confidence)
    out = {"reliability": reliability}
    for i, name in enumerate(intervals):
        value, low, high = (None, None, None) if by_law is None else (float(x[i]) for x in (by_law.value_I, by_law.low_I, by_law.high_I))
        out[name] = Estimate(value, low, high, null[name], Count(s, "seeds"), "share")
    return out


def _label_share(rule: LabelRule, hits_SSF: np.ndarray, among_SF: np.ndarray, epsilon: float, label: str, null: float | None) -> Estimate:
    statistic = aggregates.label_share(hits_SSF, among_SF, epsilon, label == reappearance.STABLE)
    return aggregates.jackknifed(statistic, len(among_SF), rule.confidence, null=null, unit="share", bounds=(0.0, 1.0))


def _activation_figures(
    rule: LabelRule, hits_SSF: np.ndarray, exists_SF: np.ndarray, strata_SF: np.ndarray, evaluation: Evaluation
) -> dict[str, Any]:
    knife: dict[str, Any] = {"seeds": len(strata_SF), "confidence": rule.confidence}
    mean = lambda values: lambda w: seed_mean(values, w)
    live_SF, firing_SF = (exists_SF & m for m in (strata_SF == reappearance.LIVE, strata_SF != reappearance.DEAD))
    energy = aggregates.label_ratio(evaluation.energy_SF, hits_SSF, live_SF, rule.epsilon)
    dead_S = (exists_SF & ~firing_SF).sum(axis=1) / exists_SF.sum(axis=1)
    rate_SF, without_PSF = evaluation.firings_SF / evaluation.rows, rates.without_parts(evaluation)
    figures = rates.figures(rule, hits_SSF, live_SF, firing_SF, rate_SF, without_PSF) | {
        "energy_stable_over_unstable": aggregates.jackknifed(energy, **knife, null=1.0, unit="ratio", log=True),
        "explained_variance": aggregates.jackknifed(mean(evaluation.explained_variance_S), **knife, null=0.0, unit="share"),
        "l0": aggregates.jackknifed(mean(evaluation.l0_S), **knife, null=None, unit="features per token"),
        "dead_share": aggregates.jackknifed(mean(dead_S), **knife, null=None, unit="share", bounds=(0.0, 1.0)),
    }
    return {name: e.as_dict() for name, e in figures.items()}


def _features(
    rule: LabelRule,
    saes: DictionaryList,
    best: similarity.BestMatch,
    counts_SF: np.ndarray,
    labels_SF: np.ndarray,
    strata_SF: np.ndarray,
    evaluation: Evaluation | None,
) -> dict[str, Any]:
    """One row per (seed, feature) that there is."""
    s, f = counts_SF.shape
    interval = reappearance.clopper_pearson(counts_SF, s - 1, rule.confidence)
    grid = np.indices((s, f))
    table = {
        "seed": np.asarray(saes.seeds)[grid[0]],
        "feature": grid[1],
        "reappearances": counts_SF,
        "comparisons": np.full((s, f), s - 1),
        "p": counts_SF / (s - 1),
        "p_low": interval.low,
        "p_high": interval.high,
        "label": labels_SF,
        "stratum": strata_SF,
    }
    if evaluation is not None:
        table |= {
            "firing_rate": evaluation.firings_SF / evaluation.rows,
            "rate_without_parts": np.moveaxis(rates.without_parts(evaluation), 0, -1),
            "mean_activation": evaluation.mean_activation_SF,
            "max_activation": evaluation.max_activation_SF,
            "energy": evaluation.energy_SF,
        }
    # One entry per seed, the feature's own included (cosine NaN, partner -1).
    table["best_cosine"] = best.cosine.transpose(0, 2, 1)
    table["best_partner"] = best.partner.transpose(0, 2, 1)
    if evaluation is not None:
        table["top_rows"], table["top_values"] = evaluation.top_rows_SFN, evaluation.top_values_SFN
    return {name: values[saes.exists_SF] for name, values in table.items()}


def _pairs(rule: LabelRule, saes: DictionaryList, cosine_SSF: np.ndarray, hits_SSF: np.ndarray, live_SF: np.ndarray) -> dict[str, Any]:
    """Of SAEs of different size p̂ has a direction: the anchor's features, looked for in the other."""
    p_SS, mmcs_SS = aggregates.share_reappearing(hits_SSF, live_SF), aggregates.mean_among(cosine_SSF, live_SF)
    anchor, other = np.nonzero(~np.eye(len(saes.seeds), dtype=bool))
    seeds, sizes = np.asarray(saes.seeds), np.asarray(saes.sizes)
    columns = {"anchor": seeds[anchor], "other": seeds[other], "features": sizes[anchor], "features_other": sizes[other]}
    d = saes.dictionaries[0].w_dec_FD.shape[1]
    null = {size: nulls.chance_of_match(rule.theta, d, size) for size in set(saes.sizes)}
    by_chance = np.array([null[size] for size in sizes[other].tolist()])
    return columns | {"p": p_SS[anchor, other], "mmcs": mmcs_SS[anchor, other], "null": by_chance}


def _theta_curve(c: Reappearance, rule: LabelRule, cosine_SSF: np.ndarray, live_SF: np.ndarray, models: NullModels) -> dict[str, Any]:
    """p̂ of live features at every θ with its interval, and that of every null model."""
    columns: dict[str, list[Any]] = {name: [] for name in ("what", "theta", "value", "low", "high", "null")}

    def add(*row: Any) -> None:
        for column, value in zip(columns.values(), row, strict=True):
            column.append(value)

    for theta, null in zip(c.thetas, models.strongest_p_of_theta(), strict=True):
        e = _mean_p(aggregates.share_reappearing(reappearance.reappears(cosine_SSF, theta), live_SF), rule, null)
        add("measured", theta, e.value, e.low, e.high, e.null)
    for model, values in models.p_of_theta.items():
        for theta, value in zip(c.thetas, values, strict=True):
            add(model, theta, value, None, None, None)
    return columns


def _labels(c: Reappearance, rule: LabelRule, cosine_SSF: np.ndarray, live_SF: np.ndarray, models: NullModels) -> dict[str, Any]:
    """Shares of live features that are stable and unstable, over θ at the study's ε and over ε at its θ, and those of one Haar rotation."""
    columns: dict[str, list[Any]] = {name: [] for name in ("theta", "epsilon", "label", "value", "low", "high", "null")}
    n, _, f = models.rotated_SSF.shape
    comparisons = len(live_SF) - 1
    for theta, epsilon in [(theta, rule.epsilon) for theta in c.thetas] + [(rule.theta, epsilon) for epsilon in c.epsilons]:
        hits_SSF, rotated_SSF = (reappearance.reappears(cosines, theta) for cosines in (cosine_SSF, models.rotated_SSF))
        for label in (reappearance.STABLE, reappearance.UNSTABLE):
            rotated = null_models.label_share(rotated_SSF, live_SF[:n, :f], epsilon, comparisons, label == reappearance.STABLE)
            by_chance = None if np.isnan(rotated) else rotated
            e = _label_share(rule, hits_SSF, live_SF, epsilon, label, by_chance)
            for column, value in zip(columns.values(), (theta, epsilon, label, e.value, e.low, e.high, e.null), strict=True):
                column.append(value)
    return columns


def _corrected(p: Estimate, chance: float) -> Estimate:
    if p.value is None or p.low is None or p.high is None or chance >= 1:
        return p._replace(value=None, low=None, high=None)
    value, low, high = (float(reappearance.chance_corrected(x, chance)) for x in (p.value, p.low, p.high))
    return Estimate(value, low, high, 0.0, p.n, "share of the way from chance to certainty")


def label_counts(labels_SF: np.ndarray, live_SF: np.ndarray) -> dict[str, Any]:
    """Features of every label in all seeds together: exact counts, so without interval."""
    out = {}
    for label in (reappearance.STABLE, reappearance.INTERMEDIATE, reappearance.UNSTABLE):
        count = int(((labels_SF == label) & live_SF).sum())
        out[f"live_{label}_features"] = Estimate(count, None, None, None, Count(int(live_SF.sum()), "live features"), "features").as_dict()
    return out


def _histogram(cosine_SSF: np.ndarray, rotated_SSF: np.ndarray) -> dict[str, Any]:
    """Distribution of best-match cosines, trained and rotated, as counts in bins of 0.02."""
    columns: dict[str, list[Any]] = {"kind": [], "low": [], "high": [], "matches": []}
    for kind, values in (("trained", cosine_SSF), ("rotated (null)", rotated_SSF)):
        counts, _ = np.histogram(values[~np.isnan(values)], COSINE_BINS)
        columns["kind"] += [kind] * len(counts)
        columns["low"] += list(COSINE_BINS[:-1])
        columns["high"] += list(COSINE_BINS[1:])
        columns["matches"] += [int(n) for n in counts]
    return columns


def cost(settings: Settings, size: Size, hardware: Hardware) -> Cost:
    """Every pair once; null models and dictionaries along training among the first SAEs; codes of held-out tokens."""
    c, n = settings[Reappearance], len(settings[Seeds].list)
    pairs = lambda k: k * (k - 1) / 2
    some, curve_seeds, snapshots = min(n, c.null_seeds), min(n, c.curve_seeds), len(settings[TrainConfig].snapshot_steps())
    products = pairs(n) + (c.null_draws + 3) * pairs(some) + snapshots * pairs(curve_seeds)
    encoded = n * size.held_out + snapshots * curve_seeds * c.curve_rows
    return costs.comparisons(settings, "stability", products, size.width, encoded, settings[LabelRule].block_size)
