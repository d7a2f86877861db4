"""Atoms and tokens: pure functions of a config, a seed and a place, so that no batch is ever stored."""

import dataclasses
import functools
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from synthetic.config import Shape, WorldConfig

PIECE = 512  # tokens drawn from one key
TINY = float(np.finfo(np.float32).tiny)


class World(flax.struct.PyTreeNode):
    """What tokens are made of, padded to a `Shape`: arrays alone, so that worlds of one shape share one compiled program.

    Attributes:
      atoms_AD: unit atoms, group after group; zeros where a group is padded.
      weight_A: chance of being chosen in its group, up to a factor; 0: not there.
      magnitude_A: factor on its code.
      active_G: atoms that a token holds of each group, int32.
      presence, code_low, code_high, code_correlation, coactivation, noise: as in `WorldConfig`.
    """

    atoms_AD: Array
    weight_A: Array
    magnitude_A: Array
    active_G: Array
    presence: Array
    code_low: Array
    code_high: Array
    code_correlation: Array
    coactivation: Array
    noise: Array


class Truth(NamedTuple):
    """What recovery is scored against; NumPy.

    Attributes:
      atoms_AD: unit atoms.
      group_A: 0 for free atoms, 1, 2, … for blocks.
      bases: orthonormal bases (D, r) of the blocks.
    """

    atoms_AD: np.ndarray
    group_A: np.ndarray
    bases: tuple[np.ndarray, ...]


def make_truth(c: WorldConfig) -> Truth:
    """Random atoms: an orthonormal frame is cut into the blocks' subspaces and, with `orthogonal`, the rest for the free atoms."""
    rng = np.random.default_rng((c.seed, 1))
    frame_DD = np.linalg.qr(rng.normal(size=(c.width, c.width)))[0]
    taken = c.blocks * c.block_rank
    bases = tuple(frame_DD[:, b * c.block_rank : (b + 1) * c.block_rank] if c.block_rank else frame_DD for b in range(c.blocks))
    free_frame = frame_DD[:, taken:] if c.orthogonal and c.block_rank else frame_DD
    parts = [_unit_rows(rng, c.free_atoms, free_frame)] + [_unit_rows(rng, c.block_atoms, basis) for basis in bases]
    group = np.repeat(np.arange(c.blocks + 1), [len(p) for p in parts])
    return Truth(np.concatenate(parts), group, bases)


def _unit_rows(rng: np.random.Generator, n: int, frame_DR: np.ndarray) -> np.ndarray:
    coordinates = rng.normal(size=(n, frame_DR.shape[1]))
    return coordinates / np.linalg.norm(coordinates, axis=1, keepdims=True) @ frame_DR.T


def make_world(c: WorldConfig, truth: Truth, shape: Shape | None = None) -> World:
    """The world of a config, padded to `shape`. Padding changes tokens by no more than rounding."""
    shape = shape or c.shape()
    places = np.concatenate([first + np.arange(n) for (first, _), n in zip(shape.groups(), c.shape().atoms, strict=True)])
    total = sum(shape.atoms)
    atoms_AD, weight_A, magnitude_A = np.zeros((total, c.width)), np.zeros(total), np.zeros(total)
    atoms_AD[places] = truth.atoms_AD
    weight_A[places] = np.concatenate([np.arange(1, n + 1, dtype=np.float64) ** -c.zipf for n in c.shape().atoms])
    magnitude_A[places] = np.where(truth.group_A > 0, c.block_magnitude, 1.0)
    as_float = lambda value: jnp.asarray(value, jnp.float32)
    return World(
        atoms_AD=as_float(atoms_AD),
        weight_A=as_float(weight_A),
        magnitude_A=as_float(magnitude_A),
        active_G=jnp.asarray([c.free_active] + [c.block_active] * c.blocks, jnp.int32),
        presence=as_float(c.block_presence),
        code_low=as_float(c.code_low),
        code_high=as_float(c.code_high),
        code_correlation=as_float(c.code_correlation),
        coactivation=as_float(c.coactivation),
        noise=as_float(c.noise),
    )


def draw_codes(shape: Shape, world: World, key: jax.Array, n: int) -> Float[Array, "N A"]:
    """Codes of `n` tokens: of every group its number of atoms (and neighbours that fire along), without repeats.

    Sampling without replacement in proportion to the weights: the largest u^(1/weight), u uniform (Efraimidis & Spirakis 2006).
    Draws are made group by group with atoms along the first axis, so that padding changes none of them.
    """
    keys = jax.random.split(key, 5)
    common_N = world.code_correlation * jax.random.uniform(keys[1], (n,))

    def codes(key: jax.Array, count: int) -> Array:
        if shape.half_normal:
            return jnp.maximum(jnp.abs(jax.random.normal(key, (count, n)).T), TINY)  # above 0: an active atom is one with a code
        own_NK = jax.random.uniform(key, (count, n)).T
        return world.code_low + (world.code_high - world.code_low) * (common_N[:, None] + (1 - world.code_correlation) * own_NK)

    absent_NB = ~jax.random.bernoulli(keys[4], world.presence, (len(shape.atoms) - 1, n)).T
    active_NG = jnp.broadcast_to(world.active_G, (n, len(shape.atoms)))
    active_NG = active_NG.at[:, 0].add(jnp.sum(absent_NB * world.active_G[1:], axis=1))
    active_NG = active_NG.at[:, 1:].set(jnp.where(absent_NB, 0, active_NG[:, 1:]))
    parts = []
    for g, ((first, last), most) in enumerate(zip(shape.groups(), shape.most, strict=True)):
        of_group = lambda key, g=g: jax.random.fold_in(key, g)
        log_u_NA = jnp.log(jax.random.uniform(of_group(keys[0]), (last - first, n), minval=TINY)).T
        values_NK = jnp.where(jnp.arange(most) < active_NG[:, g, None], codes(of_group(keys[2]), most), 0.0)
        codes_NA = _at_largest(log_u_NA / world.weight_A[first:last], values_NK)
        if shape.neighbours:
            left_NA = jnp.pad(codes_NA, ((0, 0), (1, 0)))[:, :-1]
            pair_key, code_key = jax.random.split(of_group(keys[3]))
            odd_A = jnp.arange(last - first) % 2 == 1
            along_NA = jax.random.bernoulli(pair_key, world.coactivation, (last - first, n)).T & (left_NA > 0) & odd_A
            new_NA = along_NA & (codes_NA == 0) & (world.weight_A[first:last] > 0)
            codes_NA = jnp.where(new_NA, codes(code_key, last - first), codes_NA)
        parts.append(codes_NA)
    return jnp.concatenate(parts, axis=1) * world.magnitude_A


def _at_largest(score_NA: Array, values_NK: Array) -> Array:
    """Zeros, but in every row the K values at the places of its K largest scores, the largest first."""
    if values_NK.shape[1] == 0:
        return jnp.zeros(score_NA.shape)
    _, index_NK = jax.lax.top_k(score_NA, values_NK.shape[1])
    return jnp.zeros(score_NA.shape).at[jnp.arange(len(score_NA))[:, None], index_NK].set(values_NK, unique_indices=True)


@functools.partial(jax.jit, static_argnums=0)
def tokens(shape: Shape, world: World, seed: Array, piece: Array) -> tuple[Float[Array, "N D"], Float[Array, "N A"]]:
    """The `PIECE` tokens of one piece of the stream of a seed, and their codes. Equal on every call; pieces and seeds are independent."""
    root = jax.random.key(0, impl="threefry2x32")
    codes_key, noise_key = jax.random.split(jax.random.fold_in(jax.random.fold_in(root, seed), piece))
    codes_NA = draw_codes(shape, world, codes_key, PIECE)
    # The same rows in stages that multiply at different precision.
    clean_ND = jnp.matmul(codes_NA, world.atoms_AD, precision=jax.lax.Precision.HIGHEST)
    return clean_ND + world.noise * jax.random.normal(noise_key, (PIECE, shape.width)), codes_NA


@dataclasses.dataclass(frozen=True, eq=False)
class SyntheticStream:
    """Tokens of a world, drawn when they are asked for; satisfies `activations.stream.Stream`.

    Attributes:
      shape, world: what tokens are made of.
      seed: of the draws.
      tokens: that there are, gone over again and again; 0: no two are the same.
    """

    shape: Shape
    world: World
    seed: int
    tokens: int = 0

    def rows(self, start: int, count: int) -> np.ndarray:
        """Tokens (count, D) float32 at places `start` … `start + count − 1`."""
        return self._at(start, count, 0)

    def codes(self, start: int, count: int) -> np.ndarray:
        """What those tokens hold: (count, A), the atoms in the order of `Truth`."""
        return self._at(start, count, 1)[:, np.asarray(self.world.weight_A) > 0]

    def _at(self, start: int, count: int, which: int) -> np.ndarray:
        if self.tokens:
            return self._all[which][np.arange(start, start + count) % self.tokens]
        return self._drawn(start, count, which)

    @functools.cached_property
    def _all(self) -> tuple[np.ndarray, np.ndarray]:
        return self._drawn(0, self.tokens, 0), self._drawn(0, self.tokens, 1)

    def _drawn(self, start: int, count: int, which: int) -> np.ndarray:
        pieces = range(start // PIECE, -(-(start + count) // PIECE))
        drawn = [tokens(self.shape, self.world, *jax.device_put((np.uint32(self.seed), np.uint32(p))))[which] for p in pieces]
        return np.concatenate([np.asarray(d) for d in drawn])[start - pieces.start * PIECE :][:count]
