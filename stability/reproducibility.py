"""Do sets of features of different seeds span the same subspace? Tables over seed pairs and ranks, for equal-n draws."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from stability import subspaces


class Bases(NamedTuple):
    """Of every seed S and draw T of n features: the rows, their singular directions (columns) and values, R = min(n, D)."""

    rows_STND: Array
    u_STDR: Array
    sigma_STR: Array


def draw_bases(
    unit_SFD: np.ndarray | Sequence[np.ndarray],
    members: list[np.ndarray],
    n: int,
    draws: int,
    seeds: tuple[int, ...],
    salt: int,
    weights: list[np.ndarray] | None = None,
) -> Bases:
    """Draws `n` of each seed's `members`, `draws` times, keyed by the seed's number, so that their order does not matter.

    Args:
      unit_SFD: unit decoder rows; of SAEs of different size a matrix each.
      members: per seed the feature indices of the set.
      salt: tells sets apart.
      weights: per seed those of its features, as of `subsample`.
    """
    of_seeds = zip(seeds, members, [None] * len(seeds) if weights is None else weights, strict=True)
    chosen = [subspaces.subsample(np.random.default_rng((salt, seed)), features, n, draws, w) for seed, features, w in of_seeds]
    rows_STND = jnp.asarray(np.stack([w_FD[index_TN] for w_FD, index_TN in zip(unit_SFD, chosen, strict=True)]))
    u_STDR, sigma_STR = jax.jit(subspaces.top_directions)(rows_STND)
    return Bases(rows_STND, u_STDR, sigma_STR)


OnPair = Callable[[], None]


def overlap_between_seeds(a: Bases, b: Bases, ranks: tuple[int, ...], on_pair: OnPair = lambda: None) -> np.ndarray:
    """Overlap of the top-r planes of set `a` in seed i and set `b` in seed j, mean over draws: (S, S, K), diagonal NaN.

    Args:
      on_pair: called after every pair, here and below; may raise to stop.
    """
    one = jax.jit(lambda u, v: subspaces.nested_overlap(u, v, ranks).mean(0))
    return _over_pairs(lambda i, j: one(a.u_STDR[i], b.u_STDR[j]), len(a.u_STDR), len(ranks), on_pair)


def energy_between_seeds(a: Bases, b: Bases, ranks: tuple[int, ...], on_pair: OnPair = lambda: None) -> np.ndarray:
    """Share of the energy of set `b` in seed j inside the top-r plane of set `a` in seed i: (S, S, K), diagonal NaN."""
    one = jax.jit(lambda u, rows: subspaces.nested_energy(rows, u, ranks).mean(0))
    return _over_pairs(lambda i, j: one(a.u_STDR[i], b.rows_STND[j]), len(a.u_STDR), len(ranks), on_pair)


def angles_between_seeds(a: Bases, rank: int, on_pair: OnPair = lambda: None) -> np.ndarray:
    """Principal angles (degrees, ascending) of the top-`rank` planes of two seeds, mean over draws: (S, S, rank), diagonal NaN."""
    one = jax.jit(lambda u, v: jnp.degrees(subspaces.principal_angles(u[..., :rank], v[..., :rank])).mean(0))
    return _over_pairs(lambda i, j: one(a.u_STDR[i], a.u_STDR[j]), len(a.u_STDR), rank, on_pair)


def overlap_with_plane(b: Bases, plane_DD: np.ndarray, ranks: tuple[int, ...]) -> np.ndarray:
    """Overlap of each seed's top-r plane with the leading r columns of one fixed basis: (S, K)."""
    plane = jnp.asarray(plane_DD, jnp.float32)
    return np.asarray(jax.jit(jax.vmap(jax.vmap(lambda u: subspaces.nested_overlap(u, plane, ranks))))(b.u_STDR).mean(1))


def energy_in_plane(b: Bases, plane_DD: np.ndarray, ranks: tuple[int, ...]) -> np.ndarray:
    """Share of each seed's energy inside the leading r columns of one fixed basis: (S, K)."""
    plane = jnp.asarray(plane_DD, jnp.float32)
    return np.asarray(jax.jit(jax.vmap(jax.vmap(lambda rows: subspaces.nested_energy(rows, plane, ranks))))(b.rows_STND).mean(1))


def overlap_with_others(others: Bases, b: Bases, ranks: tuple[int, ...]) -> np.ndarray:
    """Overlap of the top-r planes of G other SAEs with those of each seed: (G, S, K), mean over draws."""
    one = jax.jit(lambda u, v: subspaces.nested_overlap(u, v, ranks).mean(0))
    return np.array([[np.asarray(one(u, v)) for v in b.u_STDR] for u in others.u_STDR])


def energy_with_others(others: Bases, b: Bases, ranks: tuple[int, ...]) -> np.ndarray:
    """Share of each seed's energy inside the top-r planes of G other SAEs: (G, S, K)."""
    one = jax.jit(lambda u, rows: subspaces.nested_energy(rows, u, ranks).mean(0))
    return np.array([[np.asarray(one(u, rows)) for rows in b.rows_STND] for u in others.u_STDR])


def principal_components(acts_ND: np.ndarray) -> np.ndarray:
    """Directions of most variance of centred activations, as columns, descending; float64 covariance."""
    centred = acts_ND - acts_ND.mean(axis=0, dtype=np.float64)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return vectors[:, ::-1]


def _over_pairs(one: Callable[[int, int], Array], seeds: int, width: int, on_pair: OnPair) -> np.ndarray:
    out = np.full((seeds, seeds, width), np.nan)
    for i in range(seeds):
        for j in range(seeds):
            if i != j:
                out[i, j] = np.asarray(one(i, j))
                on_pair()
    return out
