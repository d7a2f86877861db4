"""Stage: p̂ of every feature of every seed, labels, strata, intervals and nulls.

Reads `train/dictionaries.json` and the held-out activations; knows nothing of how the SAEs were trained.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import tqdm
from etils import epath

from activations.store import ActivationStore
from launch import dictionary_list, files, signals
from launch.tables import write_table
from saes.evaluation import Evaluation, evaluate
from stability import aggregates, nulls, reappearance, resampling, similarity
from stability.estimates import Count, Estimate

BATCH = 1024
COSINE_BINS = np.linspace(-1.0, 1.0, 101)


def run(config: Any, workdir: epath.Path) -> list[epath.Path]:
    c = config.stability
    folder = workdir / "stability"
    listed = dictionary_list.load(workdir / "train" / "dictionaries.json")
    acts_ND = ActivationStore(workdir / "activations" / "eval").load().acts_ND
    seeds, dictionaries = listed.seeds, listed.dictionaries
    s, f, _ = dictionaries.w_dec_FD.shape

    evaluation = evaluate(jax.device_put(dictionaries), _batches(acts_ND, "stability/evaluate"), c.top_rows)
    best = jax.device_get(similarity.all_pairs(dictionaries.w_dec_FD, block_size=c.block_size))
    hits_SSF = reappearance.reappears(best.cosine, c.theta)
    counts_SF = hits_SSF.sum(axis=1)
    strata_SF = reappearance.strata(evaluation.firings_SF, c.rare_firings)
    live_SF = strata_SF == reappearance.LIVE

    rotated = _rotation_null(dictionaries.w_dec_FD, seeds, c)
    curve = _curve(listed.snapshots, seeds, acts_ND, c)
    summary = _summary(c, best.cosine, hits_SSF, live_SF, evaluation, rotated, curve)
    labels_SF = reappearance.labels(counts_SF, s - 1, c.epsilon)
    summary |= _counts(labels_SF, live_SF)
    summary["seeds"] = list(seeds)

    interval = reappearance.clopper_pearson(counts_SF, s - 1, c.confidence)
    grid = np.indices((s, f))
    features = {
        "seed": np.asarray(seeds)[grid[0]],
        "feature": grid[1],
        "reappearances": counts_SF,
        "comparisons": np.full((s, f), s - 1),
        "p": counts_SF / (s - 1),
        "p_low": interval.low,
        "p_high": interval.high,
        "label": labels_SF,
        "stratum": strata_SF,
        "firing_rate": evaluation.firings_SF / evaluation.rows,
        "mean_activation": evaluation.mean_activation_SF,
        "max_activation": evaluation.max_activation_SF,
        "energy": evaluation.energy_SF,
    }
    columns = {name: values.reshape(-1) for name, values in features.items()}
    # One entry per seed, the feature's own included (cosine NaN, partner -1).
    columns["best_cosine"] = best.cosine.transpose(0, 2, 1).reshape(s * f, s)
    columns["best_partner"] = best.partner.transpose(0, 2, 1).reshape(s * f, s)
    columns["top_rows"] = evaluation.top_rows_SFN.reshape(s * f, -1)
    columns["top_values"] = evaluation.top_values_SFN.reshape(s * f, -1)
    files.write_json(folder / "summary.json", summary)
    return [
        folder / "summary.json",
        write_table(folder / "features.parquet", columns),
        write_table(folder / "tokens_curve.parquet", curve),
        write_table(folder / "match_histogram.parquet", _histogram(best.cosine, rotated["cosine"])),
    ]


def _batches(acts_ND: np.ndarray, name: str) -> Iterator[np.ndarray]:
    with tqdm.tqdm(total=len(acts_ND), desc=name, unit="tok", unit_scale=True, mininterval=1.0) as bar:
        for start in range(0, len(acts_ND), BATCH):
            signals.raise_if_stop_requested("stability: nothing to save, it starts again")
            yield acts_ND[start : start + BATCH]
            bar.update(min(BATCH, len(acts_ND) - start))


def _rotation_null(w_dec_SFD: np.ndarray, seeds: tuple[int, ...], c: Any) -> dict[str, Any]:
    """Every dictionary turned by a Haar rotation of its own, several draws: mean p̂, label shares, MMCS, cosines of the first."""
    root = jax.random.key(0, impl="threefry2x32")
    every_SF = np.ones(w_dec_SFD.shape[:2], bool)
    draws = []
    for draw in range(c.null_draws):
        turned = nulls.rotate_each(jax.random.fold_in(root, draw), w_dec_SFD, seeds)
        cosine = jax.device_get(similarity.all_pairs(turned, block_size=c.block_size)).cosine
        hits = reappearance.reappears(cosine, c.theta)
        stable, unstable = aggregates.label_masks(hits, c.epsilon, np.ones(len(seeds)))
        p = np.nanmean(aggregates.share_reappearing(hits, every_SF))
        draws.append({"p": p, "stable": stable.mean(), "unstable": unstable.mean(), "mmcs": np.nanmean(cosine), "cosine": cosine})
    mean = {name: float(np.mean([d[name] for d in draws])) for name in ("p", "stable", "unstable", "mmcs")}
    return {**mean, "cosine": draws[0]["cosine"]}


def _curve(snapshots: list[tuple[int, epath.Path]], seeds: tuple[int, ...], acts_ND: np.ndarray, c: Any) -> dict[str, Any]:
    """p̂ against training tokens, with explained variance, L0 and dead fraction beside it (means over seeds)."""
    stride = max(1, len(acts_ND) // c.curve_rows)
    some_ND = acts_ND[::stride][: c.curve_rows]
    rows: list[dict[str, Any]] = []
    for tokens, path in snapshots:
        dictionaries = dictionary_list.load_snapshot(path)
        cosine = jax.device_get(similarity.all_pairs(dictionaries.w_dec_FD, block_size=c.block_size)).cosine
        hits = reappearance.reappears(cosine, c.theta)
        evaluation = evaluate(jax.device_put(dictionaries), _batches(some_ND, f"stability/at {tokens} tokens"), 1)
        p = _mean_p(hits, np.ones(hits.shape[1:], bool), c, null=None)
        rows.append(
            {
                "tokens": tokens,
                "p": p.value,
                "p_low": p.low,
                "p_high": p.high,
                "mmcs": float(np.nanmean(cosine)),
                "explained_variance": float(evaluation.explained_variance_S.mean()),
                "l0": float(evaluation.l0_S.mean()),
                "dead_fraction": float((evaluation.firings_SF == 0).mean()),
            }
        )
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}


def _mean_p(hits_SSF: np.ndarray, among_SF: np.ndarray, c: Any, null: float | None) -> Estimate:
    share_SS = aggregates.share_reappearing(hits_SSF, among_SF)
    statistic = lambda w: resampling.pair_mean(share_SS, w)
    return aggregates.bootstrapped(statistic, len(share_SS), c.bootstrap_draws, c.confidence, null=null, unit="probability")


def _summary(
    c: Any,
    cosine_SSF: np.ndarray,
    hits_SSF: np.ndarray,
    live_SF: np.ndarray,
    evaluation: Evaluation,
    rotated: dict[str, Any],
    curve: dict[str, Any],
) -> dict[str, Any]:
    s = len(live_SF)
    every_SF = np.ones_like(live_SF)
    width_chance = curve["p"][0] if curve.get("tokens", [None])[0] == 0 else None
    strongest = max(x for x in (rotated["p"], width_chance) if x is not None)
    mmcs_SS = cosine_SSF.mean(axis=-1)  # NaN on the diagonal
    knife: dict[str, Any] = {"seeds": s, "confidence": c.confidence}
    boot = {**knife, "draws": c.bootstrap_draws}
    per_seed = lambda values: lambda w: resampling.seed_mean(values, w)
    rate_SF = evaluation.firings_SF / evaluation.rows
    share = lambda among, stable: aggregates.label_share(hits_SSF, among, c.epsilon, stable)
    mean_p_live = _mean_p(hits_SSF, live_SF, c, strongest)
    figures = {
        "mean_p_live": mean_p_live,
        "mean_p_all": _mean_p(hits_SSF, every_SF, c, strongest),
        "mean_p_live_chance_corrected": _corrected(mean_p_live, strongest),
        "stable_share_live": aggregates.jackknifed(share(live_SF, True), **knife, null=rotated["stable"], unit="share", bounds=(0.0, 1.0)),
        "stable_share_all": aggregates.jackknifed(share(every_SF, True), **knife, null=rotated["stable"], unit="share", bounds=(0.0, 1.0)),
        "unstable_share_live": aggregates.jackknifed(
            share(live_SF, False), **knife, null=rotated["unstable"], unit="share", bounds=(0.0, 1.0)
        ),
        "unstable_share_all": aggregates.jackknifed(
            share(every_SF, False), **knife, null=rotated["unstable"], unit="share", bounds=(0.0, 1.0)
        ),
        "split_half_difference": aggregates.jackknifed(
            aggregates.split_half_difference(hits_SSF, live_SF, c.epsilon), **knife, null=0.0, unit="probability", bounds=(-1.0, 1.0)
        ),
        "mmcs": aggregates.bootstrapped(lambda w: resampling.pair_mean(mmcs_SS, w), **boot, null=rotated["mmcs"], unit="cosine"),
        "firing_rate_stable_over_unstable": aggregates.jackknifed(
            aggregates.label_ratio(rate_SF, hits_SSF, live_SF, c.epsilon), **knife, null=1.0, unit="ratio", log=True
        ),
        "energy_stable_over_unstable": aggregates.jackknifed(
            aggregates.label_ratio(evaluation.energy_SF, hits_SSF, live_SF, c.epsilon), **knife, null=1.0, unit="ratio", log=True
        ),
        "explained_variance": aggregates.bootstrapped(per_seed(evaluation.explained_variance_S), **boot, null=0.0, unit="share"),
        "l0": aggregates.bootstrapped(per_seed(evaluation.l0_S), **boot, null=None, unit="features per token"),
        "dead_share": aggregates.bootstrapped(per_seed((evaluation.firings_SF == 0).mean(axis=1)), **boot, null=None, unit="share"),
    }
    null_models = {"haar_rotation_mean_p": rotated["p"], "untrained_mean_p": width_chance}
    return {name: e.as_dict() for name, e in figures.items()} | {"null_models": null_models, "evaluation_rows": evaluation.rows}


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
