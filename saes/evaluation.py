"""Explained variance, L0 and what each feature does, in one pass over held-out activations, for many SAEs at once."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from saes import spread
from saes.dictionary import Dictionary, encode, kind, residual
from saes.selection import largest

GROUP = 8  # SAEs evaluated side by side; more would hold as many arrays over rows and features


class Evaluation(NamedTuple):
    """Per seed (S) and feature (F); NumPy, sums in float64.

    Attributes:
      explained_variance_S: 1 − Σ‖x−x̂‖² / Σ‖x−x̄‖² over all rows, x̄ the per-dimension mean of all rows; NaN where the rows are all alike.
      l0_S: active features a row.
      firings_SF: rows on which the feature fires, int64.
      firings_SFP: the same in each part of the rows, consecutive and of about equal length.
      mean_activation_SF: over the rows on which it fires; 0 where it never does.
      max_activation_SF: over all rows.
      energy_SF: Σ f² ‖d‖² over all rows, as a share of Σ‖x−x̄‖²; NaN likewise.
      top_rows_SFN, top_values_SFN: the rows with the largest activations, descending; value 0 where fewer fire.
      rows: rows evaluated.
      rows_P: of each part.
    """

    explained_variance_S: np.ndarray
    l0_S: np.ndarray
    firings_SF: np.ndarray
    firings_SFP: np.ndarray
    mean_activation_SF: np.ndarray
    max_activation_SF: np.ndarray
    energy_SF: np.ndarray
    top_rows_SFN: np.ndarray
    top_values_SFN: np.ndarray
    rows: int
    rows_P: np.ndarray

    def share_firing_less_than(self, rows: int) -> np.ndarray:
        """(S,) share of features that fire on fewer rows than so many: 1 gives the dead."""
        return (self.firings_SF < rows).mean(axis=-1)


def evaluate(dictionaries: Dictionary, batches: Iterable[np.ndarray], top_n: int, part_rows: int | None = None) -> Evaluation:
    """Evaluates SAEs stacked along a leading axis.

    Args:
      dictionaries: leaves (S, …).
      batches: float32 (B, D) arrays; the last may be shorter.
      top_n: top-activating rows to keep per feature.
      part_rows: a part ends with the batch that completes so many; None: one part.

    Raises:
      ValueError: no rows, or rows of another width.
    """
    s, f, d = dictionaries.w_dec_FD.shape
    top = (jnp.zeros((s, f, top_n)), jnp.full((s, f, top_n), -1, jnp.int32))
    sums: dict[str, np.ndarray] = {}
    parts: list[np.ndarray] = []
    rows_P: list[int] = []
    x: spread.Spread | None = None
    rows, batch_size = 0, 0
    for x_BD in batches:
        if x_BD.shape[1] != d:
            raise ValueError(f"activations of width {x_BD.shape[1]} do not fit dictionaries of width {d}")
        batch_size = max(batch_size, len(x_BD))
        padded = np.pad(x_BD, ((0, batch_size - len(x_BD)), (0, 0)))
        partial, top = _partial_sums(dictionaries, top, *jax.device_put((padded, np.int32(len(x_BD)), np.int32(rows))))
        for name, value in jax.device_get(partial).items():
            reduce = np.maximum if name == "max" else np.add
            sums[name] = reduce(sums.get(name, 0.0), value.astype(np.float64))
        if not parts or (part_rows is not None and rows_P[-1] >= part_rows):
            parts.append(np.zeros((s, f), np.int64))
            rows_P.append(0)
        parts[-1] += np.asarray(partial["firings"])
        rows_P[-1] += len(x_BD)
        x = spread.with_rows(x, x_BD)
        rows += len(x_BD)
    if x is None:
        raise ValueError("no activations to evaluate on")
    firings = sums["firings"].astype(np.int64)
    row_norm_SF = np.linalg.norm(np.asarray(dictionaries.w_dec_FD, np.float64), axis=-1)
    top_values, top_rows = (np.asarray(a) for a in top)
    return Evaluation(
        explained_variance_S=1.0 - spread.share(sums["error"], x.variance),
        l0_S=firings.sum(axis=-1) / rows,
        firings_SF=firings,
        firings_SFP=np.stack(parts, axis=-1),
        mean_activation_SF=sums["activation"] / np.maximum(firings, 1),
        max_activation_SF=sums["max"],
        energy_SF=spread.share(sums["square"] * row_norm_SF**2, x.variance),
        top_rows_SFN=top_rows,
        top_values_SFN=top_values,
        rows=rows,
        rows_P=np.array(rows_P),
    )


def evaluate_each(
    dictionaries: Sequence[Dictionary], batches: Callable[[], Iterable[np.ndarray]], top_n: int, part_rows: int | None = None
) -> Evaluation:
    """`evaluate` of SAEs that may differ in features and kind; those of one kind side by side.

    Args:
      batches: makes the batches anew, for every kind.

    Features that an SAE does not have come out as if they never fired.
    """
    kinds: dict[tuple[object, ...], list[int]] = {}
    for place, dictionary in enumerate(dictionaries):
        kinds.setdefault(kind(dictionary), []).append(place)
    most = max(d.w_dec_FD.shape[0] for d in dictionaries)
    fields: dict[str, np.ndarray] = {}
    rows, rows_P = 0, np.empty(0, int)
    for places in kinds.values():
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *(dictionaries[p] for p in places))
        of_kind = evaluate(jax.device_put(stacked), batches(), top_n, part_rows)
        rows, rows_P = of_kind.rows, of_kind.rows_P
        for name, values in of_kind._asdict().items():
            if name in ("rows", "rows_P"):
                continue
            if values.ndim > 1:
                none = -1 if name == "top_rows_SFN" else 0
                padding = [(0, 0), (0, most - values.shape[1]), *[(0, 0)] * (values.ndim - 2)]
                values = np.pad(values, padding, constant_values=none)
            whole = fields.setdefault(name, np.zeros((len(dictionaries), *values.shape[1:]), values.dtype))
            whole[places] = values
    return Evaluation(**fields, rows=rows, rows_P=rows_P)


def explained_inside(dictionaries: Sequence[Dictionary], x_ND: np.ndarray, basis_DR: np.ndarray, batch: int = 1024) -> np.ndarray:
    """(S,) explained variance inside a subspace: 1 − Σ‖P(x−x̂)‖² / Σ‖P(x−x̄)‖², P the projection on orthonormal columns; NaN where rows do not vary
    there."""
    basis = jnp.asarray(basis_DR, jnp.float32)
    inside_NR = (x_ND - x_ND.mean(axis=0, dtype=np.float64)) @ basis_DR
    batches = [jnp.asarray(x_ND[n : n + batch]) for n in range(0, len(x_ND), batch)]
    sums_S = [sum(float(_error_inside(d, x_BD, basis)) for x_BD in batches) for d in jax.device_put(list(dictionaries))]
    return 1.0 - spread.share(np.array(sums_S), float(np.square(inside_NR).sum()))


@jax.jit
def _error_inside(dictionary: Dictionary, x_BD: Float[Array, "B D"], basis_DR: Float[Array, "D R"]) -> Float[Array, ""]:
    return jnp.sum(jnp.square(residual(dictionary, x_BD, encode(dictionary, x_BD)) @ basis_DR))


@functools.partial(jax.jit, donate_argnums=1)
def _partial_sums(
    dictionaries: Dictionary, top: tuple[Array, Array], x_BD: Float[Array, "B D"], length: Array, first_row: Array
) -> tuple[dict[str, Array], tuple[Array, Array]]:
    """Sums over one batch, of which the first `length` rows are real; the largest activations merged into `top`."""
    real_B = jnp.arange(x_BD.shape[0]) < length
    row_B = first_row + jnp.arange(x_BD.shape[0], dtype=jnp.int32)

    def one(dictionary: Dictionary, top_values_FN: Array, top_rows_FN: Array) -> tuple[dict[str, Array], tuple[Array, Array]]:
        z_BF = jnp.where(real_B[:, None], encode(dictionary, x_BD), 0.0)
        error_B = jnp.sum(jnp.square(residual(dictionary, x_BD, z_BF)), axis=-1)
        sums = {
            "error": jnp.sum(jnp.where(real_B, error_B, 0.0)),
            "firings": jnp.sum(z_BF > 0, axis=0),
            "activation": jnp.sum(z_BF, axis=0),
            "square": jnp.sum(jnp.square(z_BF), axis=0),
            "max": jnp.max(z_BF, axis=0),
        }
        n = top_values_FN.shape[1]
        new_values_FN, place_FN = largest(z_BF.T, min(n, z_BF.shape[0]))
        values = jnp.concatenate([top_values_FN, new_values_FN], axis=1)
        rows = jnp.concatenate([top_rows_FN, row_B[place_FN]], axis=1)
        best_FN, place_FN = largest(values, n)
        return sums, (best_FN, jnp.take_along_axis(rows, place_FN, axis=1))

    return jax.lax.map(lambda of_one: one(*of_one), (dictionaries, *top), batch_size=GROUP)
