"""Tables of the local subspaces that the atlas found."""

import functools
from typing import Any, NamedTuple

import numpy as np

from experiments.data.dictionary_list import DictionaryList
from experiments.reappearance.labels import LabelRule
from saes.contributions import Contributions
from stability import aggregates, atlas, nulls
from stability.aggregates import pair_mean
from stability.atlas import Entry, Rules

ENTRY_COLUMNS = (
    "entry", "rank", "features", "features_per_seed", "seeds", "agreement_of_halves", "gap", "apart", "span_agreement", "span_agreement_low",
    "span_agreement_high", "span_agreement_null", "span_agreement_null_max", "p_value", "span_agreement_whitened", "overlap_with_components", "p",
    "p_by_chance", "live_features_inside", "energy", "firing_rate", "contribution_agreement", "contribution_agreement_null", "top_rows", "top_values",
)  # fmt: skip  # of entries.parquet also where there are none


class SubspaceEvidence(NamedTuple):
    """A subspace with what is known of it.

    Attributes:
      entry: the plane.
      members: features of every seed that lie in it.
      span_SS: overlap of the members' spans, diagonal NaN.
      chance_T: mean overlap of draws in which nothing is shared.
      whitened: mean overlap where dictionaries are turned in the metric of the activations; None without activations.
      with_components: overlap of the plane with as many principal components of the activations; None likewise.
    """

    entry: Entry
    members: list[np.ndarray]
    span_SS: np.ndarray
    chance_T: np.ndarray
    whitened: float | None
    with_components: float | None

    @property
    def p_value(self) -> float:
        """Of the agreement between seeds among the draws."""
        return float((1 + (self.chance_T >= np.nanmean(self.span_SS)).sum()) / (1 + len(self.chance_T)))


def entries_table(
    c: LabelRule,
    survivors: list[SubspaceEvidence],
    does: Contributions | None,
    p_SF: np.ndarray,
    unit_SFD: np.ndarray,
    live_SF: np.ndarray,
    rules: Rules,
) -> dict[str, list[Any]]:
    rows = []
    for e, j in enumerate(survivors):
        counts = np.array([len(m) for m in j.members])
        agreement = aggregates.jackknifed(
            functools.partial(pair_mean, j.span_SS), len(counts), c.confidence, null=None, unit="share", bounds=(0.0, 1.0)
        )
        # Everything alive that lies in the plane can be a match, stable features too.
        crowd_S = [
            int((atlas.energy_inside(u, p)[m] >= rules.capture).sum())
            for u, p, m in zip(unit_SFD, j.entry.without_SDR, live_SF, strict=True)
        ]
        row: dict[str, Any] = {
            "entry": e,
            "rank": j.entry.rank,
            "features": int(counts.sum()),
            "features_per_seed": float(counts.mean()),
            "seeds": int((counts > 0).sum()),
            "agreement_of_halves": j.entry.agreement,
            "gap": j.entry.gap,
            "apart": j.entry.separation,
            "span_agreement": agreement.value,
            "span_agreement_low": agreement.low,
            "span_agreement_high": agreement.high,
            "span_agreement_null": float(j.chance_T.mean()),
            "span_agreement_null_max": float(j.chance_T.max()),
            "p_value": j.p_value,
            "span_agreement_whitened": j.whitened,
            "overlap_with_components": j.with_components,
            "p": float(np.mean(np.concatenate([p_SF[s][m] for s, m in enumerate(j.members)]))),
            "p_by_chance": nulls.chance_of_match(c.theta, j.entry.rank, max(1, round(float(np.mean(crowd_S))))),
            "live_features_inside": float(np.mean(crowd_S)),
        }
        if does is not None:
            row |= {
                "energy": float(does.energy_CS[e].mean()),
                "firing_rate": float(does.firing_CS[e].mean()),
                "contribution_agreement": float(np.nanmean(does.cosine_CSS[e])),
                "contribution_agreement_null": float(np.nanmean(does.other_CSS[e])) if np.isfinite(does.other_CSS[e]).any() else None,
                "top_rows": does.top_rows_CN[e].tolist(),
                "top_values": does.top_values_CN[e].tolist(),
            }
        rows.append(row)
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ENTRY_COLUMNS)}


def seeds_table(survivors: list[SubspaceEvidence], saes: DictionaryList, unit_SFD: np.ndarray, rules: Rules) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in ("entry", "seed", "features", "own_rank", "overlap_with_others")}
    for e, j in enumerate(survivors):
        for s, seed in enumerate(saes.seeds):
            rows = unit_SFD[s][j.members[s]]
            plane_DR = atlas.top_plane(rows, j.entry.rank) if len(rows) else np.zeros((rows.shape[1], 0))
            # Of fewer features than twice the dimensions nobody can tell the rank.
            rank = atlas.own_rank(rows, rules) if len(rows) >= 2 * j.entry.rank else None
            row = (e, seed, len(rows), rank, float(np.square(plane_DR.T @ j.entry.without_SDR[s]).sum() / j.entry.rank))
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
    return columns


def agreement_table(survivors: list[SubspaceEvidence], saes: DictionaryList) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in ("entry", "seed", "other", "overlap")}
    for e, j in enumerate(survivors):
        for a, b in zip(*np.nonzero(~np.isnan(j.span_SS)), strict=True):
            for column, value in zip(columns.values(), (e, saes.seeds[a], saes.seeds[b], float(j.span_SS[a, b])), strict=True):
                column.append(value)
    return columns


def features_table(
    survivors: list[SubspaceEvidence],
    saes: DictionaryList,
    unit_SFD: np.ndarray,
    among_SF: np.ndarray,
    entry_SF: np.ndarray,
    energy_SF: np.ndarray,
) -> dict[str, Any]:
    """One row per live non-stable feature; x and y: its coordinates along the two leading directions of its subspace, NaN in none."""
    s, f = np.nonzero(among_SF)
    view_SF2 = np.full((*among_SF.shape, 2), np.nan)
    for e, j in enumerate(survivors):
        inside_SF = entry_SF == e
        axes_DR = j.entry.plane_DR @ np.linalg.svd(unit_SFD[inside_SF] @ j.entry.plane_DR, full_matrices=False)[2][:2].T
        view_SF2[inside_SF] = unit_SFD[inside_SF] @ axes_DR
    return {
        "seed": np.asarray(saes.seeds)[s],
        "feature": f,
        "entry": entry_SF[s, f],
        "energy_inside": energy_SF[s, f],
        "x": view_SF2[s, f, 0],
        "y": view_SF2[s, f, 1],
    }
