"""What sets of features add to the reconstruction, token by token, and whether the sets of two SAEs add the same."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from saes import spread
from saes.dictionary import Dictionary, encode
from saes.selection import largest

MEMORY = 2**28  # bytes of contributions held at a time


class Contributions(NamedTuple):
    """Of C sets of features in each of S SAEs, NumPy; c(t) = Σ f_i(t) d_i over a set, a vector a token.

    Attributes:
      energy_CS: Σ_t ‖c‖² over Σ_t ‖x − x̄‖²; NaN where the tokens are all alike.
      firing_CS: share of tokens on which any of the set is active.
      cosine_CSS: Σ_t ⟨c, c'⟩ of the sets of two SAEs over the product of their norms; NaN on the diagonal and where a set is silent.
      other_CSS: the same of the first SAE's set and the second SAE's set of `others`.
      top_rows_CN, top_values_CN: tokens with the largest mean over SAEs of ‖c‖, the largest first.
    """

    energy_CS: np.ndarray
    firing_CS: np.ndarray
    cosine_CSS: np.ndarray
    other_CSS: np.ndarray
    top_rows_CN: np.ndarray
    top_values_CN: np.ndarray


def measure(
    dictionaries: Sequence[Dictionary],
    sets: Sequence[Sequence[np.ndarray]],
    others: Sequence[Sequence[np.ndarray]],
    batches: Callable[[int], Iterable[np.ndarray]],
    top_n: int,
) -> Contributions:
    """One pass over tokens.

    Args:
      dictionaries: of S SAEs.
      sets: of every set and SAE the features, int; may be empty.
      others: likewise, sets to compare with instead.
      batches: batch size → batches (B, D) float32.
      top_n: tokens kept per set.

    Raises:
      ValueError: no tokens, or no sets.
    """
    if not sets:
        raise ValueError("no sets of features to measure")
    c, s, d = len(sets), len(dictionaries), dictionaries[0].w_dec_FD.shape[1]
    rows_at_once = int(np.clip(MEMORY // (8 * c * s * d), 16, 1024))
    most = max(1, *(len(of_seed) for of_set in (*sets, *others) for of_seed in of_set))
    index_SCM, there_SCM = _padded([*sets, *others], most)
    on_device = jax.device_put(list(dictionaries))
    sums: dict[str, Any] = {}
    spread_of_x, rows = None, 0
    top_values, top_rows = np.full((c, top_n), -np.inf), np.full((c, top_n), -1)
    for x in batches(rows_at_once):
        x_BD = jnp.asarray(np.pad(x, ((0, rows_at_once - len(x)), (0, 0))))
        real_B = jnp.arange(rows_at_once) < len(x)
        both = [
            _of_one(dictionary, x_BD, real_B, jnp.asarray(i), jnp.asarray(t))
            for dictionary, i, t in zip(on_device, index_SCM, there_SCM, strict=True)
        ]
        part, (values_CN, places_CN) = jax.device_get(_compared(jnp.stack([b[0] for b in both]), jnp.stack([b[1] for b in both]), c, top_n))
        sums = {name: sums.get(name, 0.0) + value.astype(np.float64) for name, value in part.items()}
        values, places = np.concatenate([top_values, values_CN], axis=1), np.concatenate([top_rows, rows + places_CN], axis=1)
        order = np.argsort(-values, axis=1, kind="stable")[:, :top_n]
        top_values, top_rows = np.take_along_axis(values, order, 1), np.take_along_axis(places, order, 1)
        spread_of_x = spread.with_rows(spread_of_x, x)
        rows += len(x)
    if spread_of_x is None:
        raise ValueError("no activations to measure contributions on")
    norm_CS = np.sqrt(np.einsum("css->cs", sums["own"]))
    of_others_CS = np.sqrt(sums["other_square"])
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine_CSS = sums["own"] / (norm_CS[:, :, None] * norm_CS[:, None])
        other_CSS = sums["other"] / (norm_CS[:, :, None] * of_others_CS[:, None])
    for table in (cosine_CSS, other_CSS):
        table[:, np.arange(s), np.arange(s)] = np.nan
    return Contributions(spread.share(norm_CS**2, spread_of_x.variance), sums["firing"] / rows, cosine_CSS, other_CSS, top_rows, top_values)


def _padded(sets: Sequence[Sequence[np.ndarray]], most: int) -> tuple[np.ndarray, np.ndarray]:
    """(indices, which of them there are), each (S, C, M)."""
    index = np.stack([[np.pad(i, (0, most - len(i))) for i in of_set] for of_set in sets]).astype(np.int32)
    there = np.stack([[np.arange(most) < len(i) for i in of_set] for of_set in sets])
    return index.swapaxes(0, 1), there.swapaxes(0, 1)


@jax.jit
def _of_one(
    dictionary: Dictionary, x_BD: Float[Array, "B D"], real_B: Array, index_CM: Array, there_CM: Array
) -> tuple[Float[Array, "C B D"], Array]:
    """Contributions of one SAE's sets, and on which tokens (C, B) any of them is active."""
    z_BF = jnp.where(real_B[:, None], encode(dictionary, x_BD), 0.0)

    def one(of_set: tuple[Array, Array]) -> tuple[Array, Array]:
        index_M, there_M = of_set
        z_BM = jnp.where(there_M, z_BF[:, index_M], 0.0)
        return z_BM @ dictionary.w_dec_FD[index_M], (z_BM > 0).any(1)

    return jax.lax.map(one, (index_CM, there_CM))


@functools.partial(jax.jit, static_argnames=("c", "top_n"))
def _compared(sums_SCBD: Array, active_SCB: Array, c: int, top_n: int) -> tuple[dict[str, Array], tuple[Array, Array]]:
    """Sums over one batch; of the sets on the second axis the first `c` are the sets, those behind them the others."""
    own, other = sums_SCBD[:, :c], sums_SCBD[:, c:]
    norm_CB = jnp.sqrt(jnp.square(own).sum(-1)).mean(0)
    return {
        "own": jnp.einsum("scbd,tcbd->cst", own, own),
        "other": jnp.einsum("scbd,tcbd->cst", own, other),
        "other_square": jnp.square(other).sum((2, 3)).T,
        "firing": active_SCB[:, :c].sum(2).T,
    }, largest(norm_CB, min(top_n, norm_CB.shape[1]))
