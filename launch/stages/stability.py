"""Stage: p̂ of every feature of every seed, labels, strata, intervals and nulls.

Reads a list of dictionaries and, where there are any, held-out activations; knows nothing of how the SAEs were trained.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import tqdm
from etils import epath

from launch import dictionary_list, signals, sources
from launch.dictionary_list import DictionaryList
from saes.evaluation import Evaluation, evaluate
from stability import aggregates, nulls, reappearance, similarity
from stability.aggregates import pair_mean, seed_mean
from stability.estimates import Count, Estimate
from storage import files
from storage.tables import write_table

BATCH = 1024
COSINE_BINS = np.linspace(-1.0, 1.0, 101)
NULL_FIGURES = ("p", "stable", "unstable", "mmcs")


def inputs(config: Any) -> dict[str, str]:
    return dictionary_list.digest(config.stability.dictionaries)


def run(config: Any, workdir: epath.Path) -> list[epath.Path]:
    c = config.stability
    folder = workdir / "stability"
    listed = dictionary_list.load(dictionary_list.place(c.dictionaries, workdir))
    seeds, dictionaries = listed.seeds, listed.dictionaries
    s, f, _ = dictionaries.w_dec_FD.shape
    acts_ND, evaluation = sources.evaluation_rows(config, workdir), None
    if acts_ND is not None:
        evaluation = evaluate(jax.device_put(dictionaries), _batches(acts_ND, "stability/evaluate"), c.top_rows)

    best = jax.device_get(similarity.all_pairs(dictionaries.w_dec_FD, block_size=c.block_size))
    hits_SSF = reappearance.reappears(best.cosine, c.theta)
    counts_SF = hits_SSF.sum(axis=1)
    labels_SF = reappearance.labels(counts_SF, s - 1, c.epsilon)
    # Without activations nobody can tell the dead from the living.
    strata_SF = np.full((s, f), reappearance.LIVE)
    if evaluation is not None:
        strata_SF = reappearance.strata(evaluation.firings_SF, c.rare_firings)

    null_models, rotated_SSF = _null_models(listed, c)
    curve = _curve(listed, acts_ND, c)
    summary = _similarity_figures(c, best.cosine, hits_SSF, strata_SF, null_models)
    if evaluation is not None:
        summary |= _activation_figures(c, hits_SSF, strata_SF, evaluation)
    summary |= _counts(labels_SF, strata_SF == reappearance.LIVE)
    summary |= {
        "seeds": list(seeds),
        "saes": _about(listed),
        "frozen_seeds": list(listed.frozen),
        "null_models": null_models,
        "evaluation_rows": 0 if evaluation is None else evaluation.rows,
        "theta": c.theta,
        "epsilon": c.epsilon,
        "confidence": c.confidence,
    }
    files.write_json(folder / "summary.json", summary)
    features = _features(c, seeds, best, counts_SF, labels_SF, strata_SF, evaluation)
    outputs = [folder / "summary.json", write_table(folder / "features.parquet", features)]
    outputs.append(write_table(folder / "match_histogram.parquet", _histogram(best.cosine, rotated_SSF)))
    if curve:
        outputs.append(write_table(folder / "tokens_curve.parquet", curve))
    return outputs


def _about(listed: DictionaryList) -> dict[str, Any]:
    """What was measured, for people: from the files, and from what their list says of their training."""
    d, hook, training = listed.dictionaries, listed.hook, listed.training
    place = f" after layer {hook['layer']} ({hook['site']})" if hook.get("layer") is not None and "site" in hook else ""
    return {
        "kind": training.get("variant", d.architecture),
        "n_features": d.w_dec_FD.shape[1],
        "k": training.get("k", d.k) or None,
        "of": f"{hook.get('path', hook.get('model', 'an unnamed model'))}{place}",
        "training": f"they differ in {training['differ_in']} and saw {training['tokens']:,} tokens each"
        if {"differ_in", "tokens"} <= training.keys()
        else "",
    }


def _batches(acts_ND: np.ndarray, name: str) -> Iterator[np.ndarray]:
    with tqdm.tqdm(total=len(acts_ND), desc=name, unit="tok", unit_scale=True, mininterval=1.0) as bar:
        for start in range(0, len(acts_ND), BATCH):
            signals.raise_if_stop_requested("stability: nothing to save, it starts again")
            yield acts_ND[start : start + BATCH]
            bar.update(min(BATCH, len(acts_ND) - start))


def _null_models(listed: DictionaryList, c: Any) -> tuple[dict[str, Any], np.ndarray]:
    """Mean p̂, label shares and MMCS where nothing is shared: dictionaries each turned by a Haar rotation of its own (mean of
    `null_draws`), and the untrained ones where they were kept. The closed form is of uniform directions in the full width.

    Returns:
      ({model: {figure: value}}, cosines of one rotated draw).
    """
    s, f, d = listed.dictionaries.w_dec_FD.shape
    root = jax.random.key(0, impl="threefry2x32")
    draws, cosine_SSF = [], np.empty(0)
    for draw in range(c.null_draws):
        signals.raise_if_stop_requested("stability: nothing to save, it starts again")
        turned = nulls.rotate_each(jax.random.fold_in(root, draw), listed.dictionaries.w_dec_FD, listed.seeds)
        cosine_SSF = jax.device_get(similarity.all_pairs(turned, block_size=c.block_size)).cosine
        draws.append(_null_figures(cosine_SSF, c))
    models = {"haar rotation": {name: float(np.mean([d_[name] for d_ in draws])) for name in NULL_FIGURES}}
    untrained = listed.snapshot(listed.snapshots[0][1]) if listed.snapshots and listed.snapshots[0][0] == 0 else None
    # With one initialisation for all the untrained ones are equal by construction, which is no null.
    if untrained is not None and (untrained.w_dec_FD[0] != untrained.w_dec_FD[1]).any():
        cosine = jax.device_get(similarity.all_pairs(untrained.w_dec_FD, block_size=c.block_size)).cosine
        models["untrained"] = _null_figures(cosine, c)
    models["uniform directions (closed form)"] = {"p": nulls.chance_of_match(c.theta, d, f)}
    return models, cosine_SSF


def _null_figures(cosine_SSF: np.ndarray, c: Any) -> dict[str, float]:
    hits_SSF = reappearance.reappears(cosine_SSF, c.theta)
    everyone = np.ones(len(hits_SSF))
    stable, unstable = aggregates.label_masks(hits_SSF, c.epsilon, everyone)
    share = aggregates.share_reappearing(hits_SSF, np.ones(hits_SSF.shape[1:], bool))
    return {
        "p": pair_mean(share, everyone),
        "stable": float(stable.mean()),
        "unstable": float(unstable.mean()),
        "mmcs": float(np.nanmean(cosine_SSF)),
    }


def _strongest(null_models: dict[str, Any], figure: str) -> float:
    """Of the null models' values the one nearest to "shared": the largest, but the smallest share of unstable features."""
    values = [model[figure] for model in null_models.values() if figure in model]
    return min(values) if figure == "unstable" else max(values)


def _curve(listed: DictionaryList, acts_ND: np.ndarray | None, c: Any) -> dict[str, Any]:
    """p̂ against training tokens, with explained variance, L0 and dead share beside it (means over seeds)."""
    rows: list[dict[str, Any]] = []
    for tokens, paths in listed.snapshots:
        dictionaries = listed.snapshot(paths)
        cosine = jax.device_get(similarity.all_pairs(dictionaries.w_dec_FD, block_size=c.block_size)).cosine
        hits = reappearance.reappears(cosine, c.theta)
        p = _mean_p(hits, np.ones(hits.shape[1:], bool), c, null=None)
        row = {"tokens": tokens, "p": p.value, "p_low": p.low, "p_high": p.high, "mmcs": float(np.nanmean(cosine))}
        if acts_ND is not None:
            some_ND = acts_ND[:: max(1, len(acts_ND) // c.curve_rows)][: c.curve_rows]
            evaluation = evaluate(jax.device_put(dictionaries), _batches(some_ND, f"stability/at {tokens} tokens"), 1)
            row["explained_variance"] = float(evaluation.explained_variance_S.mean())
            row["l0"] = float(evaluation.l0_S.mean())
            row["dead_share"] = float(evaluation.share_firing_less_than(1).mean())
        rows.append(row)
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}


def _mean_p(hits_SSF: np.ndarray, among_SF: np.ndarray, c: Any, null: float | None) -> Estimate:
    share_SS = aggregates.share_reappearing(hits_SSF, among_SF)
    statistic = lambda w: pair_mean(share_SS, w)
    return aggregates.jackknifed(statistic, len(share_SS), c.confidence, null=null, unit="probability", bounds=(0.0, 1.0))


def _similarity_figures(
    c: Any, cosine_SSF: np.ndarray, hits_SSF: np.ndarray, strata_SF: np.ndarray, null_models: dict[str, Any]
) -> dict[str, Any]:
    s = len(strata_SF)
    live_SF, every_SF = strata_SF == reappearance.LIVE, np.ones_like(strata_SF, bool)
    mmcs_SS = cosine_SSF.mean(axis=-1)  # NaN on the diagonal
    null = {name: _strongest(null_models, name) for name in NULL_FIGURES}
    live = _mean_p(hits_SSF, live_SF, c, null["p"])
    figures = {
        "mean_p_live": live,
        "mean_p_all": _mean_p(hits_SSF, every_SF, c, null["p"]),
        "mean_p_live_chance_corrected": _corrected(live, null["p"]),
        "mmcs": aggregates.jackknifed(
            lambda w: pair_mean(mmcs_SS, w), s, c.confidence, null=null["mmcs"], unit="cosine", bounds=(-1.0, 1.0)
        ),
        "split_half_difference": aggregates.jackknifed(
            aggregates.split_half_difference(hits_SSF, live_SF, c.epsilon),
            s,
            c.confidence,
            null=0.0,
            unit="probability",
            bounds=(-1.0, 1.0),
        ),
    }
    for label in (reappearance.STABLE, reappearance.UNSTABLE):
        for name, among_SF in (("live", live_SF), ("all", every_SF)):
            statistic = aggregates.label_share(hits_SSF, among_SF, c.epsilon, label == reappearance.STABLE)
            figures[f"{label}_share_{name}"] = aggregates.jackknifed(
                statistic, s, c.confidence, null=null[label], unit="share", bounds=(0.0, 1.0)
            )
    return {name: e.as_dict() for name, e in figures.items()}


def _activation_figures(c: Any, hits_SSF: np.ndarray, strata_SF: np.ndarray, evaluation: Evaluation) -> dict[str, Any]:
    knife: dict[str, Any] = {"seeds": len(strata_SF), "confidence": c.confidence}
    mean = lambda values: lambda w: seed_mean(values, w)
    live_SF, firing_SF = strata_SF == reappearance.LIVE, strata_SF != reappearance.DEAD
    rate_SF = evaluation.firings_SF / evaluation.rows
    ratio = lambda values, among: aggregates.jackknifed(
        aggregates.label_ratio(values, hits_SSF, among, c.epsilon), **knife, null=1.0, unit="ratio", log=True
    )
    figures = {
        "firing_rate_stable_over_unstable": ratio(rate_SF, live_SF),
        # Rare features are cut from the live ones, so a ratio of rates among the live alone would favour equality.
        "firing_rate_stable_over_unstable_with_rare": ratio(rate_SF, firing_SF),
        "energy_stable_over_unstable": ratio(evaluation.energy_SF, live_SF),
        "explained_variance": aggregates.jackknifed(mean(evaluation.explained_variance_S), **knife, null=0.0, unit="share"),
        "l0": aggregates.jackknifed(mean(evaluation.l0_S), **knife, null=None, unit="features per token"),
        "dead_share": aggregates.jackknifed(
            mean(evaluation.share_firing_less_than(1)), **knife, null=None, unit="share", bounds=(0.0, 1.0)
        ),
    }
    return {name: e.as_dict() for name, e in figures.items()}


def _features(
    c: Any,
    seeds: tuple[int, ...],
    best: Any,
    counts_SF: np.ndarray,
    labels_SF: np.ndarray,
    strata_SF: np.ndarray,
    evaluation: Evaluation | None,
) -> dict[str, Any]:
    """One row per (seed, feature)."""
    s, f = counts_SF.shape
    interval = reappearance.clopper_pearson(counts_SF, s - 1, c.confidence)
    grid = np.indices((s, f))
    table = {
        "seed": np.asarray(seeds)[grid[0]],
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
            "mean_activation": evaluation.mean_activation_SF,
            "max_activation": evaluation.max_activation_SF,
            "energy": evaluation.energy_SF,
        }
    columns = {name: values.reshape(-1) for name, values in table.items()}
    # One entry per seed, the feature's own included (cosine NaN, partner -1).
    columns["best_cosine"] = best.cosine.transpose(0, 2, 1).reshape(s * f, s)
    columns["best_partner"] = best.partner.transpose(0, 2, 1).reshape(s * f, s)
    if evaluation is not None:
        columns["top_rows"] = evaluation.top_rows_SFN.reshape(s * f, -1)
        columns["top_values"] = evaluation.top_values_SFN.reshape(s * f, -1)
    return columns


def _corrected(p: Estimate, chance: float) -> Estimate:
    if p.value is None or p.low is None or p.high is None:
        return p
    value, low, high = (float(reappearance.chance_corrected(x, chance)) for x in (p.value, p.low, p.high))
    return Estimate(value, low, high, 0.0, p.n, "share of the way from chance to certainty")


def _counts(labels_SF: np.ndarray, live_SF: np.ndarray) -> dict[str, Any]:
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
