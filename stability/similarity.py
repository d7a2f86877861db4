"""Signed cosines between the rows of dictionaries, without ever holding an F × F matrix.

Rows of zeros have no direction: their cosine with anything is 0, so that they reappear nowhere.  All other rows have one, however short or
long.  Rows that are not finite are refused.  A cosine is compared with a threshold by `reaches` everywhere, so that equal rows reach 1.  Of
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
ROUNDING = 1e-5  # by how much less than 1 the float32 cosine of two equal rows may be: up to 1.3e-6 was seen at widths of 2 to 65,536
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


def least_cosine(theta: float) -> float:
    """The float32 cosine from which two rows are at θ: θ itself, but at most 1 − `ROUNDING`, below which equal rows never come."""
    return min(theta, 1.0 - ROUNDING)


def reaches(cosine: Any, theta: float) -> Any:
    """Whether cosines are at least θ; NaN is not. At θ = 1 rows count that are equal up to rounding."""
    return cosine >= least_cosine(theta)


def scaled(w_FD: Any) -> Array:
    """Rows (…, D) in float32, each multiplied by the power of two that brings its largest entry to between 1 and 4: directions and digits stay,
    and products of rows neither overflow nor vanish.

    Zeros stay zeros, NaN and infinity what they are.
    """
    if isinstance(w_FD, np.ndarray) and w_FD.dtype == np.float64:  # it may be out of float32's range
        exponent = np.frexp(np.abs(w_FD).max(axis=-1, keepdims=True, initial=0.0))[1]
        w_FD = np.ldexp(w_FD, -exponent).astype(np.float32)
    w_FD = jnp.asarray(w_FD, jnp.float32)
    if not w_FD.shape[-1]:
        return w_FD
    sign_bit, unit = jnp.int32(0x7FFFFFFF), 1 << 23  # of the bits of a float32; `unit` counts its exponent
    bits = jax.lax.bitcast_convert_type(w_FD, jnp.int32)
    size = bits & sign_bit  # numbers that are not negative order as their bits do
    # Below 2^-126 processors may take a number for 0, unless it is read from its bits.
    tiny = jnp.where(bits < 0, -1.0, 1.0) * size.astype(jnp.float32) * 2.0**-61
    lifted = jnp.where(size < unit, tiny, w_FD * jnp.float32(2.0**88))  # both by 2^88
    w_FD = jnp.where(jnp.max(size, axis=-1, keepdims=True) < (127 - 60) * unit, lifted, w_FD)
    largest = jnp.max(jnp.abs(w_FD), axis=-1, keepdims=True)
    exponent = (jax.lax.bitcast_convert_type(largest, jnp.int32) >> 23) - 127
    return w_FD * jax.lax.bitcast_convert_type((127 - jnp.clip(exponent, -126, 126)) * unit, jnp.float32)


def within_range(w_FD: AnyArray) -> Array:
    """Rows in float32 as long as they are, but those shorter than 2^-60 or longer than 2^60, or out of float32's range, as `scaled` has them."""
    largest = np.abs(np.asarray(w_FD)).max(axis=-1, keepdims=True, initial=0.0)
    if ((largest == 0) | ((largest > 2.0**-60) & (largest < 2.0**60))).all():
        return jnp.asarray(w_FD, jnp.float32)
    usual = (largest > 2.0**-60) & (largest < 2.0**60)
    return jnp.where(usual, jnp.asarray(np.where(usual, w_FD, 0.0), jnp.float32), scaled(w_FD))


def unit_rows(w_FD: Float[AnyArray, "*S F D"]) -> Float[Array, "*S F D"]:
    """Rows divided by their norm, float32. Rows of zeros stay zeros and are similar (cosine 0) to nothing."""
    w_FD = scaled(w_FD)
    largest = jnp.max(jnp.abs(w_FD), axis=-1, keepdims=True, initial=0.0)
    w_FD = w_FD / jnp.where(largest > 0, largest, 1.0)
    norm = jnp.linalg.norm(w_FD, axis=-1, keepdims=True)
    return w_FD / jnp.where(norm > 0, norm, 1.0)


def check_unit(w_FD: AnyArray, name: str) -> None:
    """Raises ValueError for rows that are not finite, or neither of length 1 nor zeros."""
    w = np.asarray(w_FD, np.float64)
    if not np.isfinite(w).all():
        raise ValueError(f"{name} holds NaN or infinity: leave it out")
    length_F = np.linalg.norm(w, axis=-1)
    wrong_F = (np.abs(length_F - 1.0) > 1e-3) & (length_F > 0)
    if wrong_F.any():
        raise ValueError(
            f"{name} has a row of length {length_F[wrong_F][0]:.4g}: rows must be of length 1 (similarity.unit_rows makes them so)"
        )


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

    Raises:
      ValueError: no rows on a side.
    """
    f, g = a_FD.shape[0], b_GD.shape[0]
    if not f or not g:
        raise ValueError(f"{f} rows against {g}: nothing to compare")
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
    counts = [jnp.sum(reaches(cosine_BG, threshold), axis=axis, dtype=jnp.int32) for threshold in thresholds]
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
    """(F, 2): of every row the cosine with the nearest other row, and the mean with so many nearest (or all others, if they are fewer); NaN of a row
    that is alone."""
    if len(w_FD) < 2:
        return np.full((len(w_FD), 2), np.nan)
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
      ValueError: fewer than two dictionaries, one without features, or rows that are not finite.
    """
    s, f, _ = w_dec_SFD.shape
    sizes = (f,) * s if sizes is None else tuple(sizes)
    if s < 2:
        raise ValueError(f"{s} dictionary: stability compares at least 2")
    if not all(0 < size <= f for size in sizes):
        raise ValueError(f"dictionaries of {list(sizes)} features: each needs at least 1, and at most {f} are given")
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
