"""Local subspaces that features of many seeds fill together: an atlas of them, from decoder rows alone.

A feature whose basis is arbitrary has no partner in another seed, but it has neighbours: features of all seeds that lie in one plane of
low rank.  Such a plane is a fixed point: the rows that lie in it span it.  `seek` starts at one row, weighs all others by how near they are,
and iterates (weights → second moment → plane → weights) until nothing moves; `discover` does so from many rows, keeps a plane, takes its rows
away and goes on.  An entry of the atlas is a plane that two disjoint halves of the seeds find independently.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from stability.similarity import least_cosine
from stability.subspaces import span_overlap

PADDED = 256  # rows are filled up to a multiple of so many
LATE = 5  # steps of a search in which its threshold rises; from then on rows only leave
STEPS = 16  # of a search, at most
MIDST = 0.5  # of `Rules.min_separation` in a search, whose plane is not final
NEAREST = 0.25  # squared cosine from which a neighbour weighs no more: copies of the start say nothing of the plane around it


class Rules(NamedTuple):
    """What counts as a plane.

    Attributes:
      min_rank, max_rank: dimensions that it may have.
      capture: share of a row's squared norm inside a plane from which the row lies in it.
      density: different directions in the plane for each of its dimensions; a plane of features that each reappear has 1.
      min_separation: rows in a plane for each that is at least half in it, between chance and `capture`; 1 where there is nothing between inside and outside.
      gap: how many times as strong the weakest direction inside must be as the strongest outside, among the rows that lie in the plane.
      max_leverage: share of what holds a row in the plane that may be its own direction.
      duplicate_cosine: |cosine| from which rows count as one direction.
      agreement: overlap from which planes of two halves are the same.
      n_starts: rows that are tried at a time.
      patience: batches of starts without a find after which nothing more is looked for.
      directions: of wider rows only so many leading directions are searched, those in which the rows have most of their squared norm.
    """

    min_rank: int
    max_rank: int
    capture: float
    density: float
    min_separation: float
    gap: float
    max_leverage: float
    duplicate_cosine: float
    agreement: float
    n_starts: int
    patience: int
    directions: int = 512


class Entry(NamedTuple):
    """One subspace of the atlas.

    Attributes:
      plane_DR: orthonormal columns, from all seeds.
      without_SDR: the same without one seed each, from which that seed's features are judged.
      agreement: overlap of the planes that the two halves of the seeds found.
      gap: as of `Rules`.
      separation: as `Rules.min_separation` bounds it.
    """

    plane_DR: np.ndarray
    without_SDR: np.ndarray
    agreement: float
    gap: float
    separation: float

    @property
    def rank(self) -> int:
        return self.plane_DR.shape[1]


def energy_inside(rows_ND: Any, plane_DR: Any) -> Any:
    """Share of each unit row's (N, D) squared norm inside a plane of orthonormal columns (D, R): (N,), NumPy of NumPy's and JAX of JAX's."""
    return ((rows_ND @ plane_DR) ** 2).sum(-1)


@functools.partial(jax.jit, static_argnames="rules")
def seek(
    rows_ND: Float[Array, "N D"], weight_N: Float[Array, "N"], start_D: Float[Array, "D"], highest: Array, rules: Rules
) -> tuple[Float[Array, "D D"], Array]:
    """The plane around one row: (directions as columns, of which the first `rank` are the plane's; rank, 0 where there is none).

    There is none where many more rows lie half in it than in it: a plane through the midst of others.

    Args:
      rows_ND: unit rows.
      weight_N: of each, 0: takes no part. Copies of one direction share the weight 1, so that a weight is a number of directions.
      start_D: the row.
      highest: dimensions that the plane may have.
    """
    d = rows_ND.shape[1]
    index_D = jnp.arange(d)

    def moment(weight_N: Array) -> Array:
        return jnp.matmul((rows_ND * weight_N[:, None]).T, rows_ND, precision=jax.lax.Precision.HIGHEST)

    near_N = jnp.square(jnp.minimum(jnp.square(rows_ND @ start_D), NEAREST))
    along_N = jnp.einsum("nd,nd->n", rows_ND @ moment((weight_N > 0) * near_N), rows_ND)
    first_N = (weight_N > 0) * (along_N / jnp.maximum(along_N.max(), 1e-30)) ** 4

    def step(state: tuple[Array, ...]) -> tuple[Array, ...]:
        step, used_N, _, _, before_N, _ = state
        size_D, vectors_DD = jnp.linalg.eigh(moment(used_N))
        size_D, vectors_DD = size_D[::-1], vectors_DD[:, ::-1]
        rank = _rank_by_gap(size_D, rules.min_rank, highest)
        square_ND = jnp.square(rows_ND @ vectors_DD) * (index_D < rank)
        threshold = jnp.minimum(rules.capture, 0.4 + 0.1 * step)
        # What a row's own direction gives to the plane: 1 where nothing else holds it there. Smooth weights come first, which say little of it.
        own_N = (square_ND / jnp.maximum(size_D, 1e-6)).sum(1)
        inside_N = (weight_N > 0) & (square_ND.sum(1) >= threshold) & ((step < LATE) | (before_N & (own_N <= rules.max_leverage)))
        same = jnp.all(inside_N == before_N) & (step > LATE)
        next_N = inside_N * jnp.where(step + 1 < LATE, 1.0, weight_N)
        return step + 1, next_N, vectors_DD, rank, inside_N, same

    none_N = jnp.zeros(rows_ND.shape[0], bool)
    state: tuple[Array, ...] = (jnp.int32(0), first_N, jnp.zeros((d, d), rows_ND.dtype), jnp.int32(0), none_N, jnp.bool_(False))
    enough = lambda state: state[1].sum() >= rules.density * rules.min_rank
    state = jax.lax.while_loop(lambda state: (state[0] < STEPS) & ~state[5] & ((state[0] == 0) | enough(state)), step, state)
    _, used_N, vectors_DD, rank, _, same = state
    energy_N = jnp.square(rows_ND @ vectors_DD) @ (index_D < rank)
    in_it, half_in_it = ((weight_N > 0) & (energy_N >= least) for least in (rules.capture, half_in(rank, d, rules)))
    midst = in_it.sum() < MIDST * half_in_it.sum()
    return vectors_DD, jnp.where(same & ~midst & (used_N.sum() >= rules.density * rank), rank, 0)


def half_in(rank: Any, d: int, rules: Rules) -> Any:
    """Share of a row's squared norm halfway between what a random row has in a plane, rank/D, and what a row has that lies in it."""
    return (rules.capture + rank / d) / 2


def _rank_by_gap(size_D: Array, lowest: int, highest: Array | int) -> Array:
    """Where, between two bounds, the next of the descending sizes is smallest beside the one before it."""
    size_D = jnp.maximum(size_D, 1e-9 * size_D[0] + 1e-30)
    rank_D = jnp.arange(1, len(size_D))
    ratio_D = jnp.where((rank_D >= lowest) & (rank_D <= highest), size_D[:-1] / size_D[1:], -jnp.inf)
    return 1 + jnp.argmax(ratio_D).astype(jnp.int32)


@functools.partial(jax.jit, static_argnames="rules")
def _seek_all(rows_ND: Array, weight_N: Array, start_K: Array, highest: Array, rules: Rules) -> tuple[Array, Array]:
    return jax.lax.map(lambda i: seek(rows_ND, weight_N, rows_ND[i], highest, rules), start_K)


def discover(rows: Sequence[np.ndarray], rules: Rules, on_batch: Callable[[], None] = lambda: None) -> list[np.ndarray]:
    """Planes (D, R) that rows of several seeds fill.

    Of the planes that a batch of starts ends in the one of lowest rank is kept, since where two planes are filled so is their sum; then those
    among the rows that it leaves.

    Args:
      rows: unit rows (n_s, D), an array a seed.
      on_batch: called after every batch of starts; may raise to stop.
    """
    n, d = sum(map(len, rows)), rows[0].shape[1]
    if n < rules.density * rules.min_rank:
        return []
    host_ND = np.pad(np.concatenate(rows).astype(np.float32), ((0, -n % PADDED), (0, 0)))  # few shapes, few programs
    rows_ND, highest = jnp.asarray(host_ND), min(rules.max_rank, d - 1)
    weight_N = np.where(
        np.arange(len(host_ND)) < n, 1 / np.maximum(np.asarray(_copies(rows_ND, least_cosine(rules.duplicate_cosine))), 1), 0.0
    ).astype(np.float32)
    untried = np.random.default_rng(0).permutation(np.flatnonzero(weight_N))
    found: list[np.ndarray] = []
    failures = 0
    while failures < rules.patience and len(untried) and highest >= rules.min_rank:
        start_K = np.resize(untried[: rules.n_starts], rules.n_starts)  # one program, however few are left
        vectors_KDD, rank_K = _seek_all(rows_ND, jnp.asarray(weight_N), jnp.asarray(start_K), jnp.int32(highest), rules)
        vectors_KDD, rank_K = np.asarray(vectors_KDD), np.asarray(rank_K)
        untried = untried[rules.n_starts :]
        on_batch()
        if not rank_K.any():
            failures += 1
            continue
        best = np.argmin(np.where(rank_K > 0, rank_K, np.iinfo(np.int32).max))
        found.append(vectors_KDD[best][:, : rank_K[best]])
        weight_N[energy_inside(host_ND, found[-1]) >= rules.capture] = 0
        untried = untried[weight_N[untried] > 0]
        failures = 0
    return found


@jax.jit
def _copies(rows_ND: Array, copy: Array | float) -> Array:
    """Of every row how many have |cosine| ≥ `copy` with it, itself among them; `PADDED` rows at a time."""
    blocks = rows_ND.reshape(-1, PADDED, rows_ND.shape[1])
    one = lambda some_BD: (jnp.square(jnp.matmul(some_BD, rows_ND.T, precision=jax.lax.Precision.HIGHEST)) >= copy**2).sum(1)
    return jax.lax.map(one, blocks).reshape(-1)


def halves(count: int) -> tuple[list[int], list[int]]:
    """Places of the SAEs of two disjoint halves: the even and the odd ones."""
    return list(range(0, count, 2)), list(range(1, count, 2))


def make(rows: Sequence[np.ndarray], rules: Rules, on_batch: Callable[[], None] = lambda: None) -> list[Entry]:
    """The atlas of unit rows (n_s, D), an array a seed: planes that both halves of the seeds find, fitted on all, those of most rows first.

    Raises:
      ValueError: fewer than four seeds, whose halves would hold one.
    """
    if len(rows) < 4:
        raise ValueError(f"{len(rows)} seeds: an atlas compares two halves of at least 2")
    every_ND = np.concatenate(rows).astype(np.float64)
    if every_ND.shape[1] > rules.directions:
        leading_DR = np.linalg.eigh(every_ND.T @ every_ND)[1][:, ::-1][:, : rules.directions]
        found = make([r @ leading_DR for r in rows], rules, on_batch)
        return [
            e._replace(plane_DR=leading_DR @ e.plane_DR, without_SDR=np.einsum("de,ser->sdr", leading_DR, e.without_SDR)) for e in found
        ]
    first, second = (discover([rows[s] for s in half], rules, on_batch) for half in halves(len(rows)))
    agreements = sorted(((span_overlap(u, v), i, j) for i, u in enumerate(first) for j, v in enumerate(second)), reverse=True)
    entries: list[Entry] = []
    taken: tuple[set[int], set[int]] = (set(), set())
    for agreement, i, j in agreements:
        if agreement < rules.agreement or i in taken[0] or j in taken[1]:
            continue
        taken[0].add(i)
        taken[1].add(j)
        near_N = (energy_inside(every_ND, first[i]) + energy_inside(every_ND, second[j])) / 2 >= rules.capture
        plane_DR, gap = _fitted(every_ND, near_N, rules)
        clear = separation(every_ND, plane_DR, rules)
        known = any(span_overlap(plane_DR, e.plane_DR) >= rules.agreement for e in entries)
        if gap < rules.gap or clear < rules.min_separation or known:
            continue
        entries.append(Entry(plane_DR, _without_each(rows, plane_DR, rules), agreement, gap, clear))
    return sorted(entries, key=lambda e: -sum((energy_inside(r, e.plane_DR) >= rules.capture).sum() for r in rows))


def separation(rows_ND: np.ndarray, plane_DR: np.ndarray, rules: Rules) -> float:
    """As of `Rules`."""
    energy_N = energy_inside(rows_ND, plane_DR)
    return float((energy_N >= rules.capture).sum() / max(1, (energy_N >= half_in(plane_DR.shape[1], len(plane_DR), rules)).sum()))


def _fitted(rows_ND: np.ndarray, inside_N: np.ndarray, rules: Rules) -> tuple[np.ndarray, float]:
    """(the plane of the rows inside, and of those inside that, until they stay; its gap, 0 if too few rows are left)."""
    plane_DR, gap = np.zeros((rows_ND.shape[1], 0)), 0.0
    for _ in range(STEPS):
        chosen_ND = rows_ND[inside_N]
        if len(chosen_ND) < max(rules.density * rules.min_rank, rules.min_rank + 1):
            return plane_DR, 0.0
        rank, size_R = own_rank(chosen_ND, rules), np.linalg.svd(chosen_ND, compute_uv=False) ** 2
        plane_DR, gap = top_plane(chosen_ND, rank), float(size_R[rank - 1] / max(size_R[rank], 1e-12))
        before_N, inside_N = inside_N, energy_inside(rows_ND, plane_DR) >= rules.capture
        if (before_N == inside_N).all():
            break
    return plane_DR, gap


def top_plane(rows_ND: np.ndarray, rank: int) -> np.ndarray:
    """Orthonormal basis (D, R) of the leading right singular directions, R = min(rank, N, D)."""
    return np.linalg.svd(np.asarray(rows_ND, np.float64), full_matrices=False)[2][:rank].T


def own_rank(rows_ND: np.ndarray, rules: Rules) -> int:
    """Dimensions that rows fill: where their squared singular values fall most; 0 of too few rows to tell."""
    highest = min(rules.max_rank, len(rows_ND) - 1, rows_ND.shape[1] - 1)
    if highest < rules.min_rank:
        return 0
    size_R = np.square(np.linalg.svd(np.asarray(rows_ND, np.float64), compute_uv=False))
    return int(_rank_by_gap(jnp.asarray(size_R, jnp.float32), rules.min_rank, highest))


def _without_each(rows: Sequence[np.ndarray], plane_DR: np.ndarray, rules: Rules) -> np.ndarray:
    inside = [r[energy_inside(r, plane_DR) >= rules.capture] for r in rows]
    return np.stack([top_plane(np.concatenate([r for i, r in enumerate(inside) if i != s]), plane_DR.shape[1]) for s in range(len(rows))])


def members(entries: Sequence[Entry], unit_SFD: np.ndarray, among_SF: np.ndarray, capture: float) -> tuple[np.ndarray, np.ndarray]:
    """(entry, energy), each (S, F): the entry whose plane, fitted without the feature's own seed, holds most of it, -1 where none holds
    `capture` of it; and the share of its squared norm in there."""
    entry_SF, energy_SF = np.full(among_SF.shape, -1), np.zeros(among_SF.shape, np.float32)
    for e, entry in enumerate(entries):
        for s, unit_FD in enumerate(unit_SFD):
            inside_F = np.where(among_SF[s], energy_inside(unit_FD, entry.without_SDR[s]), 0.0)
            better_F = inside_F > energy_SF[s]
            energy_SF[s] = np.where(better_F, inside_F, energy_SF[s])
            entry_SF[s] = np.where(better_F & (inside_F >= capture), e, entry_SF[s])
    return entry_SF, energy_SF


def span_agreement(chosen: Sequence[np.ndarray], rank: int) -> np.ndarray:
    """Overlap between seeds of the top planes of rows (n_s, D): (S, S), a dimension that is missing counts as missed; diagonal NaN."""
    planes = [top_plane(r, rank) if len(r) else np.zeros((r.shape[1], 0)) for r in chosen]
    out_SS = np.full((len(planes), len(planes)), np.nan)
    for i, u in enumerate(planes):
        for j, v in enumerate(planes):
            if i != j:
                out_SS[i, j] = np.square(u.T @ v).sum() / rank
    return out_SS


def agreement_by_chance(rows: Sequence[np.ndarray], counts: Sequence[int], rank: int, seed: int) -> float:
    """Mean `span_agreement` where no plane is planted: rows (n_s, D) of dictionaries that were turned against each other.

    One plane of the entry's rank is laid through as many rows as the entry has, drawn from all seeds, and of every seed as many rows as the entry
    has there are taken, those that lie in it best: chosen for lying in a plane, as an entry's rows are. The plane is not searched for, so this is what
    rotations give and not what the best of many planes would; that nothing is found where nothing is shared is a matter of whole searches.

    Args:
      counts: the entry's rows of every seed.
      seed: of the draw.
    """
    every_ND = np.concatenate(rows)
    rng = np.random.default_rng((rank, sum(counts), seed))
    some = rng.choice(len(every_ND), min(max(sum(counts), rank), len(every_ND)), replace=False)
    plane_DR = top_plane(every_ND[some], rank)
    best = [r[np.argsort(-energy_inside(r, plane_DR), kind="stable")[:n]] for r, n in zip(rows, counts, strict=True)]
    return float(np.nanmean(span_agreement(best, rank)))
