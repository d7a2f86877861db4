"""Which weights an SAE holds, whatever file, format or dtype they came in: the same ones under two names are one SAE."""

import hashlib
from typing import NamedTuple

import ml_dtypes
import numpy as np

from saes.dictionary import Dictionary

LEAST = 1e-3  # the largest weight from which float16 still has three digits of most
CLOSE = 1e-5  # of the longest row: what reading a format may change (unit rows, scales folded in); other training changes much more
_SKETCHES = 2


class Matrix(NamedTuple):
    """What tells one matrix from another.

    Attributes:
      digests: one for each dtype that it may have been rounded to.
      shape: of it.
      sketch: (rows, 2) products of every row with fixed random directions.
      longest: length of its longest row.
    """

    digests: frozenset[str]
    shape: tuple[int, ...]
    sketch: np.ndarray
    longest: float

    def same(self, other: "Matrix") -> bool:
        """Whether both are equal, one of them perhaps rounded, or but for what reading another format changes."""
        if self.digests & other.digests:
            return True
        near = CLOSE * max(self.longest, other.longest)
        return self.shape == other.shape and bool(np.abs(self.sketch - other.sketch).max(initial=0.0) <= near)


class Identity(NamedTuple):
    """Of the rows of decoder and encoder."""

    decoder: Matrix
    encoder: Matrix


def identity(dictionary: Dictionary) -> Identity:
    """Of one SAE without a seed axis. Biases, thresholds and K are left out: with both matrices equal nothing was trained apart."""
    return Identity(_matrix(np.asarray(dictionary.w_dec_FD)), _matrix(np.asarray(dictionary.w_enc_DF).T))


def same_decoder(one: Identity, other: Identity) -> bool:
    """Whether decoder rows are equal, one of them perhaps rounded."""
    return one.decoder.same(other.decoder)


def same_weights(one: Identity, other: Identity) -> bool:
    """Whether decoder and encoder are."""
    return same_decoder(one, other) and one.encoder.same(other.encoder)


def refuse_same_weights(identities: list[Identity], names: list[str], field: str = "") -> None:
    """Raises ValueError naming two SAEs that hold the same weights, and the config field that names them."""
    for i, name in enumerate(names):
        for j in range(i):
            if same_weights(identities[i], identities[j]):
                raise ValueError(f"{field}{': ' * bool(field)}{name} holds the same weights as {names[j]}: leave one out")


def _matrix(rows: np.ndarray) -> Matrix:
    wide = rows.astype(np.float64)
    directions = np.random.default_rng(0).normal(size=(rows.shape[1], _SKETCHES))
    return Matrix(_digests(rows), rows.shape, wide @ directions, float(np.linalg.norm(wide, axis=1).max(initial=0.0)))


def _digests(rows: np.ndarray) -> frozenset[str]:
    """Of a matrix as each of the dtypes has it that float32 weights are published in: weights and their rounded copy share one of them."""
    largest = float(np.abs(rows).max(initial=0.0))
    half = (np.float16,) if LEAST <= largest < np.finfo(np.float16).max else ()
    rounded = [np.ascontiguousarray(rows, dtype) for dtype in (*half, ml_dtypes.bfloat16)]
    return frozenset(f"{a.shape} {a.dtype} {hashlib.sha256(a.tobytes()).hexdigest()}" for a in rounded)
