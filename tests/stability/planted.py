"""Rows of several seeds with planted planes, for tests."""

import numpy as np


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def planes(rng, d, ranks):
    """Orthogonal planes (D, r)."""
    frame = np.linalg.qr(rng.normal(size=(d, d)))[0]
    ends = np.cumsum([0, *ranks])
    return [frame[:, a:b] for a, b in zip(ends[:-1], ends[1:], strict=True)]


def filled(rng, plane, n, jitter=0.1):
    """n unit rows in a plane, each a little out of it."""
    rows = unit(rng.normal(size=(n, plane.shape[1]))) @ plane.T
    return unit(rows + jitter * unit(rng.normal(size=rows.shape)))


def anywhere(rng, n, d):
    return unit(rng.normal(size=(n, d)))
