"""Endless streams of activations to train on: stored rows in a shuffled order, or rows that are drawn.

The contract with training is `Stream`: `rows(start, count)` depends on its arguments alone, so a place in the stream is one
integer and nothing of it needs to be saved.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from activations.order import ShuffledOrder


class Stream(Protocol):
    """What can be trained on."""

    def rows(self, start: int, count: int) -> np.ndarray:
        """Activations (count, D) float32 at places `start` … `start + count − 1`."""


@dataclasses.dataclass(frozen=True)
class StoredStream:
    """Rows that are kept somewhere, in a shuffled order.

    Attributes:
      take: row indices (N,) → activations (N, D) float32, from memory or disk.
      order: of the rows of `among`.
      among: a part of the rows; None: all.
    """

    take: Callable[[np.ndarray], np.ndarray]
    order: ShuffledOrder
    among: "RowRanges | None" = None

    def rows(self, start: int, count: int) -> np.ndarray:
        rows = self.order.rows(start, count)
        return self.take(rows if self.among is None else self.among.place(rows))


@dataclasses.dataclass(frozen=True, eq=False)
class RowRanges:
    """A part of the rows of a store.

    Attributes:
      first: row at which each range begins, ascending.
      before: how many rows of the part lie before each range, and at the end how many it has.
    """

    first: np.ndarray
    before: np.ndarray

    def __len__(self) -> int:
        return int(self.before[-1])

    def place(self, numbers: np.ndarray) -> np.ndarray:
        """Numbers within the part → rows of the store."""
        piece = np.searchsorted(self.before, numbers, side="right") - 1
        return self.first[piece] + numbers - self.before[piece]


def half_of_documents(document_N: np.ndarray, half: int) -> RowRanges:
    """The rows whose document's number is even (`half` 0) or odd (1): two disjoint halves of a corpus.

    Raises:
      ValueError: there is no such document.
    """
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(document_N)) + 1, [len(document_N)]])
    chosen = document_N[bounds[:-1]] % 2 == half
    if not chosen.any():
        raise ValueError("config.train.halves: the store holds a single document, which has no halves")
    sizes = np.diff(bounds)[chosen]
    return RowRanges(bounds[:-1][chosen], np.concatenate([[0], np.cumsum(sizes)]))


@dataclasses.dataclass(frozen=True, eq=False)
class GaussianStream:
    """Independent rows of a normal distribution, drawn in pieces keyed by (seed, piece): activations without structure.

    Attributes:
      mean_D, root_DD: the distribution is of mean + g @ root with g standard normal.
      seed: of the draws.
    """

    mean_D: np.ndarray
    root_DD: np.ndarray
    seed: int

    PIECE = 4096

    def rows(self, start: int, count: int) -> np.ndarray:
        pieces = range(start // self.PIECE, -(-(start + count) // self.PIECE))
        drawn = [_gaussian(*self._on_device, *jax.device_put((np.uint32(self.seed), np.uint32(p))), self.PIECE) for p in pieces]
        return np.concatenate([np.asarray(d) for d in drawn])[start - pieces.start * self.PIECE :][:count]

    @functools.cached_property
    def _on_device(self) -> tuple[jax.Array, jax.Array]:
        return jax.device_put((np.asarray(self.mean_D, np.float32), np.asarray(self.root_DD, np.float32)))


@functools.partial(jax.jit, static_argnums=4)
def _gaussian(mean_D: jax.Array, root_DD: jax.Array, seed: jax.Array, piece: jax.Array, rows: int) -> jax.Array:
    key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), piece)
    drawn = jax.random.normal(key, (rows, len(mean_D)))
    return mean_D + jnp.matmul(drawn, root_DD, precision="highest")


def gaussian_like(x_ND: np.ndarray, seed: int) -> GaussianStream:
    """With the mean and covariance of the rows of `x_ND`."""
    x = np.asarray(x_ND, np.float64)
    value_D, vector_DD = np.linalg.eigh(np.cov(x, rowvar=False))
    return GaussianStream(x.mean(axis=0), np.sqrt(np.maximum(value_D, 0.0))[:, None] * vector_DD.T, seed)
