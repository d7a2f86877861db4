"""Atoms and tokens: pure functions of a config, a seed and a place, so that no batch is ever stored."""

import dataclasses
import functools
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from synthetic.config import WorldConfig

PIECE = 512  # tokens drawn from one key


class World(flax.struct.PyTreeNode):
    """What a token is made of; arrays, so that worlds of equal shape lie along a vmapped axis.

    Attributes:
      atoms_AD: unit atoms, group after group.
      log_weight_A: log of the chance of being chosen in its group; −inf: not there.
      magnitude_A: factor on its code.
      active_G: atoms that a token holds of each group, int32.
    """

    atoms_AD: Array
    log_weight_A: Array
    magnitude_A: Array
    active_G: Array


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


def make_world(c: WorldConfig, truth: Truth) -> World:
    weight = np.concatenate([np.arange(1, last - first + 1, dtype=np.float64) ** -c.zipf for first, last in c.groups()])
    return World(
        atoms_AD=jnp.asarray(truth.atoms_AD, jnp.float32),
        log_weight_A=jnp.asarray(np.log(weight), jnp.float32),
        magnitude_A=jnp.asarray(np.where(truth.group_A > 0, c.block_magnitude, 1.0), jnp.float32),
        active_G=jnp.asarray([c.free_active] + [c.block_active] * c.blocks, jnp.int32),
    )


def draw_codes(c: WorldConfig, world: World, key: jax.Array, n: int) -> Float[Array, "N A"]:
    """Codes of `n` tokens: of every group exactly its number of atoms (and neighbours that fire along), without repeats.

    Sampling without replacement in proportion to the weights: the largest of log weight + Gumbel noise (Efraimidis & Spirakis
    2006; Vieira 2014).
    """
    keys = jax.random.split(key, 4)
    score_NA = world.log_weight_A + jax.random.gumbel(keys[0], (n, len(world.log_weight_A)))
    common_N1 = c.code_correlation * jax.random.uniform(keys[1], (n, 1))
    code = lambda key, width: (
        c.code_low + (c.code_high - c.code_low) * (common_N1 + (1 - c.code_correlation) * jax.random.uniform(key, (n, width)))
    )
    parts = []
    sizes = [c.free_active] + [c.block_active] * c.blocks
    for g, ((first, last), most, active) in enumerate(zip(c.groups(), sizes, world.active_G, strict=True)):
        own_NK = code(jax.random.fold_in(keys[2], g), most)
        parts.append(_at_largest(score_NA[:, first:last], jnp.where(jnp.arange(most) < active, own_NK, 0.0)))
    codes_NA = jnp.concatenate(parts, axis=1)
    if c.coactivation:
        left_NA = jnp.concatenate([jnp.zeros((n, 1)), codes_NA[:, :-1]], axis=1)
        pair_key, code_key = jax.random.split(keys[3])
        along = jax.random.bernoulli(pair_key, c.coactivation, codes_NA.shape) & (left_NA > 0) & jnp.asarray(_right_neighbours(c))
        new = along & (codes_NA == 0) & jnp.isfinite(world.log_weight_A)
        codes_NA = jnp.where(new, code(code_key, codes_NA.shape[1]), codes_NA)
    return codes_NA * world.magnitude_A


def _at_largest(score_NA: Array, values_NK: Array) -> Array:
    """Zeros, but in every row the K values at the places of its K largest scores, the largest first."""
    if values_NK.shape[1] == 0:
        return jnp.zeros(score_NA.shape)
    _, index_NK = jax.lax.top_k(score_NA, values_NK.shape[1])
    return jnp.zeros(score_NA.shape).at[jnp.arange(len(score_NA))[:, None], index_NK].set(values_NK, unique_indices=True)


def _right_neighbours(c: WorldConfig) -> np.ndarray:
    """True at odd places of every group."""
    return np.concatenate([np.arange(last - first) % 2 == 1 for first, last in c.groups()])


@functools.partial(jax.jit, static_argnums=0)
def tokens(c: WorldConfig, world: World, seed: Array, piece: Array) -> Float[Array, "N D"]:
    """The `PIECE` tokens of one piece of the stream of a seed. Equal on every call; pieces and seeds are independent."""
    root = jax.random.key(0, impl="threefry2x32")
    codes_key, noise_key = jax.random.split(jax.random.fold_in(jax.random.fold_in(root, seed), piece))
    codes_NA = draw_codes(c, world, codes_key, PIECE)
    return codes_NA @ world.atoms_AD + c.noise * jax.random.normal(noise_key, (PIECE, c.width))


@dataclasses.dataclass(frozen=True, eq=False)
class SyntheticStream:
    """Endless tokens of a world; satisfies `activations.stream.Stream`.

    Attributes:
      config, world: what tokens are made of.
      seed: of the draws.
    """

    config: WorldConfig
    world: World
    seed: int

    def rows(self, start: int, count: int) -> np.ndarray:
        """Tokens (count, D) float32 at places `start` … `start + count − 1`."""
        pieces = range(start // PIECE, -(-(start + count) // PIECE))
        drawn = [tokens(self.config, self.world, *jax.device_put((np.uint32(self.seed), np.uint32(p)))) for p in pieces]
        return np.concatenate([np.asarray(d) for d in drawn])[start - pieces.start * PIECE :][:count]
