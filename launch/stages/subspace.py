"""Stage: spectra, effective rank and agreement between seeds of the spans of unstable, stable and random features.

Always at equal n (effective rank grows with the number of rows), features live, random draws repeated.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from etils import epath

from activations.store import ActivationStore
from launch import dictionary_list, files, signals
from launch.tables import read_table, write_table
from stability import aggregates, nulls, reproducibility, resampling, similarity, subspaces
from stability.estimates import Count, unmeasured

SETS = ("unstable", "stable", "random")


def run(config: Any, workdir: epath.Path) -> list[epath.Path]:
    c = config.subspace
    folder = workdir / "subspace"
    listed = dictionary_list.load(workdir / "train" / "dictionaries.json")
    members, n = _sets(read_table(workdir / "stability" / "features.parquet"), listed.seeds)
    if n < c.min_features:
        return _too_few(folder, n, c, len(listed.seeds))
    unit_SFD = np.asarray(similarity.unit_rows(listed.dictionaries.w_dec_FD))
    s, _, d = unit_SFD.shape
    bases = {
        name: reproducibility.draw_bases(unit_SFD, members[name], n, c.subsamples, listed.seeds, salt) for salt, name in enumerate(SETS)
    }
    ranks = tuple(r for r in c.ranks if r < d and r <= n)
    if c.headline_rank not in ranks:
        raise ValueError(
            f"config.subspace.headline_rank={c.headline_rank}: must be below the width {d} and at most the {n} features of a set"
        )
    pca_DD = reproducibility.principal_components(ActivationStore(workdir / "activations" / "eval").load().acts_ND)
    signals.raise_if_stop_requested("subspace: nothing to save, it starts again")

    unstable = bases["unstable"]
    # What might predict a held-out seed's unstable span: the unstable span of another seed, or one of the nulls.
    predictors = {
        f"{name} features of another seed": (
            reproducibility.overlap_between_seeds(bases[name], unstable, ranks),
            reproducibility.energy_between_seeds(bases[name], unstable, ranks),
        )
        for name in SETS
    }
    predictors["activation PCA"] = (
        _as_pairs(reproducibility.overlap_with_plane(unstable, pca_DD, ranks)),
        _as_pairs(reproducibility.energy_in_plane(unstable, pca_DD, ranks)),
    )
    random_plane = _as_pairs(np.tile(np.asarray(ranks) / d, (s, 1)))
    predictors["random plane"] = (random_plane, random_plane)
    summary = _summary(config, bases, predictors, ranks, d, n)
    files.write_json(folder / "summary.json", summary)
    return [
        folder / "summary.json",
        write_table(folder / "overlap.parquet", _overlap_table(predictors, ranks, config)),
        write_table(folder / "spectra.parquet", _spectra_table(bases)),
        write_table(folder / "angles.parquet", _angles_table(bases, c.headline_rank, d)),
    ]


def _sets(features: dict[str, np.ndarray], seeds: tuple[int, ...]) -> tuple[dict[str, list[np.ndarray]], int]:
    """Live feature indices per set and seed, and the largest n that every set has in every seed."""
    live = features["stratum"] == "live"
    masks = {name: live & (features["label"] == name) for name in ("unstable", "stable")} | {"random": live}
    members = {name: [features["feature"][mask & (features["seed"] == seed)] for seed in seeds] for name, mask in masks.items()}
    return members, min(len(m) for per_seed in members.values() for m in per_seed)


def _too_few(folder: epath.Path, n: int, c: Any, seeds: int) -> list[epath.Path]:
    because = f"some seed has only {n} live features of a set; config.subspace.min_features={c.min_features}"
    print(f"subspace: not measured, {because}")
    names = (
        "overlap_unstable",
        "overlap_excess",
        "effective_rank_unstable",
        "effective_rank_stable",
        "effective_rank_stable_minus_unstable",
    )
    empty = {name: unmeasured(Count(seeds, "seeds"), "share").as_dict() for name in names}
    files.write_json(folder / "summary.json", empty | {"not_measured": because, "features_per_set": n})
    return [folder / "summary.json"]


def _as_pairs(values_SK: np.ndarray) -> np.ndarray:
    """A figure of the second seed alone, as a table over ordered pairs."""
    s = len(values_SK)
    out = np.tile(values_SK[None], (s, 1, 1))
    out[np.arange(s), np.arange(s)] = np.nan
    return out


def _summary(config: Any, bases: dict[str, Any], predictors: dict[str, Any], ranks: tuple[int, ...], d: int, n: int) -> dict[str, Any]:
    c = config.subspace
    s = len(bases["unstable"].u_STDR)
    boot: dict[str, Any] = {"seeds": s, "draws": config.stability.bootstrap_draws, "confidence": config.stability.confidence}
    at = ranks.index(c.headline_rank)
    own = "unstable features of another seed"
    summary: dict[str, Any] = {"features_per_set": n, "width": d, "headline_rank": c.headline_rank}
    for which, figure in enumerate(("overlap", "captured_energy")):
        tables = {name: pair[which][..., at] for name, pair in predictors.items()}
        value = functools.partial(resampling.pair_mean, tables.pop(own))
        excess = functools.partial(_excess, value, tables)
        nulls_here = {name: resampling.pair_mean(table, np.ones(s)) for name, table in tables.items()}
        strongest = max(nulls_here.values())
        summary[f"{figure}_unstable"] = aggregates.bootstrapped(value, **boot, null=strongest, unit="share").as_dict()
        summary[f"{figure}_excess"] = aggregates.bootstrapped(excess, **boot, null=0.0, unit="share").as_dict()
        summary[f"{figure}_nulls"] = nulls_here

    ranks_S = {name: np.asarray(subspaces.effective_rank(b.sigma_STR).entropy.mean(1)) / d for name, b in bases.items()}
    mean = lambda values: lambda w: resampling.seed_mean(values, w)
    for name in ("unstable", "stable"):
        null = float(ranks_S["random"].mean())
        summary[f"effective_rank_{name}"] = aggregates.bootstrapped(
            mean(ranks_S[name]), **boot, null=null, unit="share of the width"
        ).as_dict()
    difference = ranks_S["stable"] - ranks_S["unstable"]
    summary["effective_rank_stable_minus_unstable"] = aggregates.bootstrapped(
        mean(difference), **boot, null=0.0, unit="share of the width"
    ).as_dict()
    return summary


def _excess(value: Callable[[np.ndarray], float], null_tables: dict[str, np.ndarray], weights_S: np.ndarray) -> float:
    """The figure less the strongest null's, both on the same sample of seeds (which null is strongest may differ by sample)."""
    return value(weights_S) - max(resampling.pair_mean(table, weights_S) for table in null_tables.values())


def _overlap_table(predictors: dict[str, Any], ranks: tuple[int, ...], config: Any) -> dict[str, Any]:
    """One row per predictor and rank: overlap and captured energy with intervals over seeds."""
    c = config.stability
    columns: dict[str, list[Any]] = {name: [] for name in ("predictor", "rank", "figure", "value", "low", "high")}
    for name, pair in predictors.items():
        for figure, table_SSK in zip(("overlap", "captured_energy"), pair, strict=True):
            for k, rank in enumerate(ranks):
                mean = functools.partial(resampling.pair_mean, table_SSK[..., k])
                estimate = aggregates.bootstrapped(mean, len(table_SSK), c.bootstrap_draws, c.confidence, null=None, unit="share")
                row = (name, rank, figure, estimate.value, estimate.low, estimate.high)
                for column, value in zip(columns, row, strict=True):
                    columns[column].append(value)
    return columns


def _spectra_table(bases: dict[str, Any]) -> dict[str, Any]:
    """Normalised singular values by set and seed, mean over draws; energy is the cumulative share of σ²."""
    columns: dict[str, list[Any]] = {name: [] for name in ("set", "seed_index", "index", "sigma", "energy")}
    for name, b in bases.items():
        sigma_SR = np.asarray(b.sigma_STR.mean(1))
        square = np.asarray(np.square(b.sigma_STR))
        energy_SR = (np.cumsum(square, -1) / square.sum(-1, keepdims=True)).mean(1)
        s, r = sigma_SR.shape
        columns["set"] += [name] * (s * r)
        columns["seed_index"] += list(np.repeat(np.arange(s), r))
        columns["index"] += list(np.tile(np.arange(1, r + 1), s))
        columns["sigma"] += list(sigma_SR.reshape(-1))
        columns["energy"] += list(energy_SR.reshape(-1))
    return columns


def _angles_table(bases: dict[str, Any], rank: int, d: int) -> dict[str, Any]:
    """Mean principal angles between seeds by set, and of random planes by simulation."""
    columns: dict[str, list[Any]] = {name: [] for name in ("set", "index", "angle", "low", "high")}

    def add(name: str, angles_PR: np.ndarray) -> None:
        columns["set"] += [name] * rank
        columns["index"] += list(range(1, rank + 1))
        columns["angle"] += list(angles_PR.mean(0))
        columns["low"] += list(np.percentile(angles_PR, 2.5, axis=0))
        columns["high"] += list(np.percentile(angles_PR, 97.5, axis=0))

    for name, b in bases.items():
        angles = reproducibility.angles_between_seeds(b, rank)
        add(name, angles[~np.isnan(angles[..., 0])])
    planes = nulls.haar_rotations(jax.random.key(0, impl="threefry2x32"), 64, d)[..., :rank]
    by_chance = jax.vmap(subspaces.principal_angles)(planes[::2], planes[1::2])
    add("random planes (null)", np.degrees(np.asarray(by_chance)))
    return columns
