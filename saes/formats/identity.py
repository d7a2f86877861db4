"""Which weights an SAE holds, whatever file, format or dtype they came in: the same ones under two names are one SAE."""

import hashlib
from typing import NamedTuple

import ml_dtypes
import numpy as np

from saes.dictionary import Dictionary

LEAST = 1e-3  # the largest weight from which float16 still has three digits of most


class Identity(NamedTuple):
    """Digests of the rows of decoder and encoder, one for each dtype that they may have been rounded to."""

    decoder: frozenset[str]
    encoder: frozenset[str]


def identity(dictionary: Dictionary) -> Identity:
    """Of one SAE without a seed axis. Biases, thresholds and K are left out: with both matrices equal nothing was trained apart."""
    return Identity(_digests(dictionary.w_dec_FD), _digests(np.asarray(dictionary.w_enc_DF).T))


def same_decoder(one: Identity, other: Identity) -> bool:
    """Whether decoder rows are equal, one of them perhaps rounded."""
    return bool(one.decoder & other.decoder)


def same_weights(one: Identity, other: Identity) -> bool:
    """Whether decoder and encoder are."""
    return same_decoder(one, other) and bool(one.encoder & other.encoder)


def refuse_same_weights(identities: list[Identity], names: list[str], field: str = "") -> None:
    """Raises ValueError naming two SAEs that hold the same weights, and the config field that names them."""
    for i, name in enumerate(names):
        for j in range(i):
            if same_weights(identities[i], identities[j]):
                raise ValueError(f"{field}{': ' * bool(field)}{name} holds the same weights as {names[j]}: leave one out")


def _digests(rows: np.ndarray) -> frozenset[str]:
    """Of a matrix as each of the dtypes has it that float32 weights are published in: weights and their rounded copy share one of them."""
    largest = float(np.abs(rows).max(initial=0.0))
    half = (np.float16,) if LEAST <= largest < np.finfo(np.float16).max else ()
    rounded = [np.ascontiguousarray(rows, dtype) for dtype in (*half, ml_dtypes.bfloat16)]
    return frozenset(f"{a.shape} {a.dtype} {hashlib.sha256(a.tobytes()).hexdigest()}" for a in rounded)
