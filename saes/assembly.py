"""A dictionary put together from features of several: each brings its encoder, biases and threshold."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from saes.dictionary import Dictionary, kind

NEVER = -1e30  # encoder bias of a feature that is padding
_PER_FEATURE = ("b_enc_F", "threshold_F", "r_mag_F", "b_mag_F")


def assembled(dictionaries: Sequence[Dictionary], group_N: np.ndarray, rows_MD: np.ndarray | None = None) -> Dictionary:
    """One feature a group of theirs: the mean of what encodes it; a group of one is that feature as it is.

    Decoder biases differ between SAEs. The new one is their mean, and encoder biases are moved, so that every pre-activation of a group of one is
    what it was.

    Args:
      dictionaries: of one kind, NumPy leaves without a seed axis; numbers of features may differ.
      group_N: of all their features, one SAE behind the other, the place in the new dictionary; −1: left out. No place is empty.
      rows_MD: unit decoder directions; None: the re-normalised mean of each group. Of mean length.

    Raises:
      ValueError: SAEs of several kinds, or a place without a feature.
    """
    if len({kind(d)[1:] for d in dictionaries}) > 1:
        raise ValueError("SAEs of several kinds or widths cannot be put together: take those of one variant, K and width")
    first = dictionaries[0]
    b_dec_D = np.stack([np.asarray(d.b_dec_D, np.float64) for d in dictionaries]).mean(axis=0)
    columns: dict[str, list[np.ndarray]] = {}
    for d in dictionaries:
        for name, values in _features(d, b_dec_D).items():
            columns.setdefault(name, []).append(values)
    every = {name: np.concatenate(parts) for name, parts in columns.items()}
    m = int(group_N.max(initial=-1)) + 1
    size_M = np.bincount(group_N[group_N >= 0], minlength=m)
    if not m or (size_M == 0).any():
        raise ValueError(f"{m} features of which {int((size_M == 0).sum())} come from nowhere")
    mean = {name: _mean(values, group_N, size_M) for name, values in every.items()}
    length_M = _mean(np.linalg.norm(every["w_dec"].astype(np.float64), axis=1), group_N, size_M)
    alone_M1 = (size_M == 1)[:, None]
    norm_M1 = np.linalg.norm(mean["w_dec"], axis=1, keepdims=True)
    rows = mean["w_dec"] / np.where(norm_M1 > 0, norm_M1, 1.0) if rows_MD is None else rows_MD
    w_dec_MD = np.where(alone_M1 & (rows_MD is None), mean["w_dec"], rows * length_M[:, None])
    leaves: dict[str, Any] = {name: mean[name].astype(np.float32) for name in _PER_FEATURE if name in mean}
    return Dictionary(
        w_enc_DF=np.ascontiguousarray(mean["w_enc"].T, np.float32),
        w_dec_FD=w_dec_MD.astype(np.float32),
        b_dec_D=b_dec_D.astype(np.float32),
        architecture=first.architecture,
        k=first.k,
        subtract_b_dec=first.subtract_b_dec,
        **leaves,
    )


def _features(d: Dictionary, b_dec_D: np.ndarray) -> dict[str, np.ndarray]:
    """Of every feature, float64 where it is moved to the decoder bias `b_dec_D`."""
    w_enc_FD = np.asarray(d.w_enc_DF, np.float64).T
    moved_F = w_enc_FD @ (b_dec_D - d.b_dec_D) if d.subtract_b_dec else np.zeros(len(w_enc_FD))
    found = {"w_enc": w_enc_FD, "w_dec": np.asarray(d.w_dec_FD, np.float64), "b_enc_F": d.b_enc_F + moved_F}
    for name in ("threshold_F", "r_mag_F", "b_mag_F"):
        value = getattr(d, name)
        if value is not None:
            found[name] = np.asarray(value, np.float64)
    if d.architecture == "gated":
        found["b_mag_F"] = found["b_mag_F"] + np.exp(found["r_mag_F"]) * moved_F
    return found


def _mean(values_N: np.ndarray, group_N: np.ndarray, size_M: np.ndarray) -> np.ndarray:
    there = group_N >= 0
    sum_M = np.zeros((len(size_M), *values_N.shape[1:]))
    np.add.at(sum_M, group_N[there], values_N[there])
    return sum_M / size_M.reshape(-1, *[1] * (values_N.ndim - 1))


def padded(dictionary: Dictionary, size: int) -> Dictionary:
    """The same with features behind its own that never fire, up to `size`: one program for dictionaries of many sizes. `first_features` takes them off."""
    more = size - dictionary.w_dec_FD.shape[0]
    if more <= 0:
        return dictionary
    behind = lambda value, axis, by: np.pad(value, [(0, more if i == axis else 0) for i in range(value.ndim)], constant_values=by)
    changed: dict[str, Any] = {
        "w_enc_DF": behind(np.asarray(dictionary.w_enc_DF), 1, 0.0),
        "w_dec_FD": behind(np.asarray(dictionary.w_dec_FD), 0, 0.0),
        "b_enc_F": behind(np.asarray(dictionary.b_enc_F), 0, NEVER),
    }
    for name in ("threshold_F", "r_mag_F", "b_mag_F"):
        if getattr(dictionary, name) is not None:
            changed[name] = behind(np.asarray(getattr(dictionary, name)), 0, 0.0)
    return dataclasses.replace(dictionary, **changed)


def with_features(dictionary: Dictionary, w_enc_DM: np.ndarray, b_enc_M: np.ndarray, w_dec_MD: np.ndarray) -> Dictionary:
    """The same with more features behind its own, active wherever their pre-activation is above 0 (in jumprelu and gated)."""
    join = lambda a, b, axis: np.concatenate([np.asarray(a), np.asarray(b, np.float32)], axis=axis)
    more: dict[str, Any] = {}
    if dictionary.architecture == "jumprelu":
        more["threshold_F"] = join(dictionary.threshold_F, np.zeros_like(b_enc_M), 0)
    if dictionary.architecture == "gated":
        more |= {"r_mag_F": join(dictionary.r_mag_F, np.zeros_like(b_enc_M), 0), "b_mag_F": join(dictionary.b_mag_F, b_enc_M, 0)}
    return dataclasses.replace(
        dictionary,
        **more,
        w_enc_DF=join(dictionary.w_enc_DF, w_enc_DM, 1),
        b_enc_F=join(dictionary.b_enc_F, b_enc_M, 0),
        w_dec_FD=join(dictionary.w_dec_FD, w_dec_MD, 0),
    )
