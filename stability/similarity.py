"""Signed cosines between the rows of dictionaries, without ever holding an F × F matrix.

Rows of zeros have no direction: their cosine with anything is 0, so that they reappear nowhere.  Rows that are not finite are refused.  Of
equally similar rows the first counts; a row twice in a dictionary is found at its first place.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

AnyArray = jax.Array | np.ndarray
IN_FLIGHT = 4  # pairs that the device may work on while the host takes in the results of those before


class BestMatch(NamedTuple):
    """For every row of one dictionary its most similar row of another; any leading axes.

    Attributes:
      cosine: of that row, in [-1, 1].
      partner: its index, int32; the lowest of equals.
      count: rows at cosine ≥ each threshold that was asked for, int32, one axis more.

    Of `best_match` on the device, of `all_pairs` NumPy.
    """

    cosine: Any
    partner: Any
    count: Any


def unit_rows(w_FD: Float[AnyArray, "*S F D"]) -> Float[Array, "*S F D"]:
    """Rows divided by their norm. Rows of zeros stay zeros and are similar (cosine 0) to nothing."""
    w_FD = jnp.asarray(w_FD)
    largest = jnp.max(jnp.abs(w_FD), axis=-1, keepdims=True)  # first, so that squares neither overflow nor vanish
    w_FD = w_FD / jnp.where(largest > 0, largest, 1.0)
    norm = jnp.linalg.norm(w_FD, axis=-1, keepdims=True)
    return w_FD / jnp.where(norm > 0, norm, 1.0)


@functools.partial(jax.jit, static_argnames=("thresholds", "absolute", "block_size"))
def best_match(
    a_FD: Float[AnyArray, "F D"],
    b_GD: Float[AnyArray, "G D"],
    *,
    thresholds: tuple[float, ...] = (),
    absolute: bool = False,
    block_size: int = 512,
) -> tuple[BestMatch, BestMatch]:
    """Best matches of `a`'s rows in `b` and of `b`'s rows in `a`, and how many lie above each threshold, from one product computed a
    block of `a` at a time.

    Args:
      a_FD, b_GD: unit rows (`unit_rows`).
      thresholds: cosines from which rows are counted.
      absolute: by |cosine|, a direction and its opposite being the same.
      block_size: rows of `a` per block; extra memory is a few times block_size × G floats.

    Returns:
      (a in b, b in a).
    """
    f, g = a_FD.shape[0], b_GD.shape[0]
    block = min(block_size, f)
    padding = -f % block
    blocks = jnp.pad(a_FD, ((0, padding), (0, 0))).reshape(-1, block, a_FD.shape[1])
    starts = jnp.arange(blocks.shape[0], dtype=jnp.int32) * block

    def one_block(best_of_b: BestMatch, inputs: tuple[Array, Array]) -> tuple[BestMatch, BestMatch]:
        rows, start = inputs
        cosine = jnp.matmul(rows, b_GD.T, precision=jax.lax.Precision.HIGHEST)
        if absolute:
            cosine = jnp.abs(cosine)
        a_in_b = _best_along(cosine, 1, thresholds)
        if padding:
            cosine = jnp.where((start + jnp.arange(block) < f)[:, None], cosine, -jnp.inf)
        here = _best_along(cosine, 0, thresholds)
        better = here.cosine > best_of_b.cosine
        return BestMatch(
            jnp.where(better, here.cosine, best_of_b.cosine),
            jnp.where(better, start + here.partner, best_of_b.partner),
            best_of_b.count + here.count,
        ), a_in_b

    start = BestMatch(jnp.full(g, -jnp.inf), jnp.zeros(g, jnp.int32), jnp.zeros((g, len(thresholds)), jnp.int32))
    b_in_a, a_in_b = jax.lax.scan(one_block, start, (blocks, starts))
    a_in_b = jax.tree.map(lambda x: x.reshape(f + padding, *x.shape[2:])[:f], a_in_b)
    clip = lambda m: m._replace(cosine=jnp.clip(m.cosine, -1.0, 1.0))
    return clip(a_in_b), clip(b_in_a)


def _best_along(cosine_BG: Array, axis: int, thresholds: tuple[float, ...]) -> BestMatch:
    """Maximum, its first place, and counts. The place comes from a comparison: XLA's argmax on CPU takes far longer than both passes."""
    top = jnp.max(cosine_BG, axis=axis, keepdims=True)
    places = jax.lax.broadcasted_iota(jnp.int32, cosine_BG.shape, axis)
    place = jnp.min(jnp.where(cosine_BG == top, places, cosine_BG.shape[axis] - 1), axis=axis)
    counts = [jnp.sum(cosine_BG >= threshold, axis=axis, dtype=jnp.int32) for threshold in thresholds]
    return BestMatch(jnp.squeeze(top, axis), place, jnp.stack(counts, -1) if counts else jnp.zeros((*place.shape, 0), jnp.int32))


@functools.partial(jax.jit, static_argnames=("m", "same", "block_size"))
def top_matches(
    a_FD: Float[AnyArray, "F D"], b_GD: Float[AnyArray, "G D"], m: int, *, same: bool = False, block_size: int = 512
) -> tuple[Float[Array, "F M"], Array]:
    """The `m` most similar rows of `b` for every row of `a`, the most similar first: (cosines, indices int32).

    Args:
      a_FD, b_GD: unit rows.
      m: at most G, or G − 1 with `same`.
      same: `b` is `a` itself, and a row is not its own neighbour.

    Raises:
      ValueError: fewer than m rows to choose from.
    """
    f, g = a_FD.shape[0], b_GD.shape[0]
    if not 1 <= m <= g - same:
        raise ValueError(f"the {m} most similar of {g - same} rows cannot be told")
    block = min(block_size, f)
    blocks = jnp.pad(a_FD, ((0, -f % block), (0, 0))).reshape(-1, block, a_FD.shape[1])
    column_G = jnp.arange(g, dtype=jnp.int32)

    def one_block(inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        rows, start = inputs
        cosine = jnp.matmul(rows, b_GD.T, precision=jax.lax.Precision.HIGHEST)
        if same:
            cosine = jnp.where((start + jnp.arange(block))[:, None] == column_G, -jnp.inf, cosine)

        def take(left: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
            best = _best_along(left, 1, ())
            return jnp.where(column_G == best.partner[:, None], -jnp.inf, left), (best.cosine, best.partner)

        _, (cosine_MB, index_MB) = jax.lax.scan(take, cosine, None, length=m)
        return cosine_MB.T, index_MB.T

    starts = jnp.arange(blocks.shape[0], dtype=jnp.int32) * block
    cosine, index = jax.lax.map(one_block, (blocks, starts))
    return jnp.clip(cosine.reshape(-1, m)[:f], -1.0, 1.0), index.reshape(-1, m)[:f]


def crowding(w_FD: Float[AnyArray, "F D"], neighbours: int, block_size: int = 512) -> np.ndarray:
    """(F, 2): of every row the cosine with the nearest other row, and the mean with so many nearest (or all others, if they are fewer)."""
    unit_FD = unit_rows(w_FD)
    cosine_FM = np.asarray(top_matches(unit_FD, unit_FD, min(neighbours, len(w_FD) - 1), same=True, block_size=block_size)[0])
    return np.stack([cosine_FM[:, 0], cosine_FM.mean(axis=1)], axis=1)


def all_pairs(
    w_dec_SFD: Float[AnyArray, "S F D"],
    *,
    sizes: Sequence[int] | None = None,
    thresholds: tuple[float, ...] = (),
    absolute: bool = False,
    block_size: int = 512,
    on_pair: Callable[[], None] = lambda: None,
) -> BestMatch:
    """Best matches for every ordered pair (anchor, other): NumPy, shapes (S, S, F) and (S, S, F, T).

    On the diagonal, and for features that an anchor does not have, cosine is NaN, partner −1 and counts 0.

    Args:
      w_dec_SFD: rows of any length, on the host or a device.
      sizes: features that each dictionary has, the first so many of its rows; None: all F.
      thresholds, absolute, block_size: as of `best_match`.
      on_pair: called after every pair; may raise to stop.

    Raises:
      ValueError: fewer than two dictionaries, or rows that are not finite.
    """
    s, f, _ = w_dec_SFD.shape
    sizes = (f,) * s if sizes is None else tuple(sizes)
    if s < 2:
        raise ValueError(f"{s} dictionary: stability compares at least 2")
    units = [unit_rows(w_FD[:size]) for w_FD, size in zip(w_dec_SFD, sizes, strict=True)]
    for i, unit_FD in enumerate(units):
        if not bool(jnp.isfinite(unit_FD).all()):
            raise ValueError(f"dictionary {i} holds NaN or infinity: leave it out")
    out = BestMatch(
        np.full((s, s, f), np.nan, np.float32),
        np.full((s, s, f), -1, np.int32),
        np.zeros((s, s, f, len(thresholds)), np.int32),
    )
    running: list[tuple[int, int, tuple[BestMatch, BestMatch]]] = []

    def take_in() -> None:
        i, j, both = running.pop(0)
        for (anchor, other), match in zip(((i, j), (j, i)), both, strict=True):
            for whole, part in zip(out, match, strict=True):
                whole[anchor, other, : sizes[anchor]] = np.asarray(part)
        on_pair()

    for i in range(s):
        for j in range(i + 1, s):
            both = best_match(units[i], units[j], thresholds=thresholds, absolute=absolute, block_size=block_size)
            running.append((i, j, both))
            if len(running) > IN_FLIGHT:
                take_in()
    while running:
        take_in()
    return out
