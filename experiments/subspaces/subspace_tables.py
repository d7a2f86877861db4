"""Tables of the stage `subspace`: overlaps over ranks, sets at equal n, spectra, angles, and the headline without each seed."""

import functools
from typing import Any

import jax
import numpy as np

from experiments.subspaces.predictors import FIGURES, Predictor, against_nulls, excess, own_table
from runtime import progress
from stability import aggregates, nulls, reproducibility, subspaces
from stability.aggregates import pair_mean, seed_mean


def sets_table(bases: dict[str, Any], ranks: tuple[int, ...], d: int, confidence: float) -> dict[str, list[Any]]:
    """One row per set and figure: overlap between seeds of its own top-r planes, and four effective ranks; all sets of equally many features."""
    columns: dict[str, list[Any]] = {name: [] for name in ("set", "figure", "rank", "value", "low", "high", "random_plane")}

    def add(name: str, figure: str, rank: int | None, statistic: Any, seeds: int, chance: float | None) -> None:
        e = aggregates.jackknifed(statistic, seeds, confidence, null=None, unit="share", bounds=(0.0, 1.0))
        for column, value in zip(columns.values(), (name, figure, rank, e.value, e.low, e.high, chance), strict=True):
            column.append(value)

    for name, b in bases.items():
        s = len(b.u_STDR)
        overlap = reproducibility.overlap_between_seeds(b, b, ranks, progress.look_for_signals)
        for k, rank in enumerate(ranks):
            add(name, "overlap between seeds", rank, functools.partial(pair_mean, overlap[..., k]), s, rank / d)
        for figure, values_ST in subspaces.effective_rank(b.sigma_STR)._asdict().items():
            add(name, f"effective rank / D, {figure}", None, functools.partial(seed_mean, np.asarray(values_ST.mean(1)) / d), s, None)
    return columns


def without_table(predictors: list[Predictor], own: dict[int, Predictor], rank: int, seeds: tuple[int, ...]) -> dict[str, list[Any]]:
    """The headline with every seed left out in turn."""
    tables = list(against_nulls(predictors, own, "overlap", rank).values())
    columns: dict[str, list[Any]] = {name: [] for name in ("without", "overlap", "excess")}
    for i, seed in enumerate(seeds):
        weights_S = 1.0 - np.eye(len(seeds))[i]
        row = (seed, pair_mean(own_table(predictors, "overlap", rank), weights_S), excess(tables, weights_S))
        for column, figure in zip(columns.values(), row, strict=True):
            column.append(figure)
    return columns


def overlap_table(predictors: list[Predictor], confidence: float) -> dict[str, Any]:
    """One row per predictor, figure and rank, with intervals over seeds."""
    columns: dict[str, list[Any]] = {name: [] for name in ("predictor", "n", "figure", "rank", "value", "low", "high")}
    for p in predictors:
        for figure in FIGURES:
            for k, rank in enumerate(p.ranks):
                mean = functools.partial(pair_mean, getattr(p, figure)[..., k])
                e = aggregates.jackknifed(mean, len(p.overlap), confidence, null=None, unit="share", bounds=(0.0, 1.0))
                row = (p.name, p.n, figure, rank, e.value, e.low, e.high)
                for column, value in zip(columns, row, strict=True):
                    columns[column].append(value)
    return columns


def spectra_table(bases: dict[str, Any]) -> dict[str, Any]:
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


def angles_table(bases: dict[str, Any], rank: int, d: int) -> dict[str, Any]:
    """Mean principal angles between seeds by set, and of random planes by simulation."""
    columns: dict[str, list[Any]] = {name: [] for name in ("set", "index", "angle", "low", "high")}

    def add(name: str, angles_PR: np.ndarray) -> None:
        columns["set"] += [name] * rank
        columns["index"] += list(range(1, rank + 1))
        columns["angle"] += list(angles_PR.mean(0))
        columns["low"] += list(np.percentile(angles_PR, 2.5, axis=0))
        columns["high"] += list(np.percentile(angles_PR, 97.5, axis=0))

    for name, b in bases.items():
        angles = reproducibility.angles_between_seeds(b, rank, progress.look_for_signals)
        add(name, angles[~np.isnan(angles[..., 0])])
    planes = nulls.haar_rotations(jax.random.key(0, impl="threefry2x32"), 64, d)[..., :rank]
    by_chance = jax.vmap(subspaces.principal_angles)(planes[::2], planes[1::2])
    add("random planes (null)", np.degrees(np.asarray(by_chance)))
    return columns
