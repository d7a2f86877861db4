"""Subspaces spanned by sets of decoder rows: spectra, effective rank, principal angles, overlap, captured energy."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from stability.similarity import scaled


class EffectiveRank(NamedTuple):
    """Four answers to "how many dimensions", from singular values σ.

    Attributes:
      entropy: exp of the entropy of σ/Σσ (Roy & Vetterli 2007), the paper's.
      entropy_squared: the same of σ²/Σσ².
      participation: (Σσ²)² / Σσ⁴.
      stable: Σσ² / σ₁².
    """

    entropy: Array
    entropy_squared: Array
    participation: Array
    stable: Array


def effective_rank(sigma_R: Float[Array, "*N R"]) -> EffectiveRank:
    """Effective ranks of spectra along the last axis; a spectrum of zeros has rank 0, and none depends on its scale."""
    sigma_R = scaled(sigma_R)

    def exp_entropy(weight: Array) -> Array:
        total = weight.sum(-1, keepdims=True)
        p = weight / jnp.where(total > 0, total, 1.0)
        entropy = -jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1.0)), 0.0), axis=-1)
        return jnp.where(total[..., 0] > 0, jnp.exp(entropy), 0.0)

    square = jnp.square(sigma_R)
    total, fourth, top = square.sum(-1), jnp.square(square).sum(-1), square.max(-1)
    safe = lambda x: jnp.where(x > 0, x, 1.0)
    return EffectiveRank(exp_entropy(sigma_R), exp_entropy(square), jnp.square(total) / safe(fourth), total / safe(top))


def top_directions(rows_ND: Float[Array, "*B N D"]) -> tuple[Float[Array, "*B D R"], Float[Array, "*B R"]]:
    """Right singular vectors as columns, and singular values, both descending; R = min(N, D). Rows are not centred."""
    _, sigma_R, vt_RD = jnp.linalg.svd(rows_ND, full_matrices=False)
    return jnp.swapaxes(vt_RD, -1, -2), sigma_R


def principal_angles(u_DR: Float[Array, "*B D R"], v_DQ: Float[Array, "*B D Q"]) -> Float[Array, "*B M"]:
    """Principal angles in radians, ascending, between the spans of orthonormal columns; M = min(R, Q).

    Björck & Golub (1973): cosines are the singular values of UᵀV, but arccos loses half the digits near 0, so angles
    below π/4 come from the sines, the singular values of the part of the narrower basis outside the wider one's span.
    """
    if u_DR.shape[-1] < v_DQ.shape[-1]:
        u_DR, v_DQ = v_DQ, u_DR
    cross_RQ = jnp.swapaxes(u_DR, -1, -2) @ v_DQ
    cosine = jnp.clip(jnp.linalg.svd(cross_RQ, compute_uv=False), 0.0, 1.0)
    sine = jnp.clip(jnp.linalg.svd(v_DQ - u_DR @ cross_RQ, compute_uv=False)[..., ::-1], 0.0, 1.0)
    return jnp.where(cosine > jnp.sqrt(0.5), jnp.arcsin(sine), jnp.arccos(cosine))


def nested_overlap(u_DR: Float[Array, "*B D R"], v_DQ: Float[Array, "*B D Q"], ranks: tuple[int, ...]) -> Float[Array, "*B K"]:
    """‖UᵀV‖²_F / r of the planes of the leading r columns, for every r in `ranks`, from one product.

    1 if equal, 0 if orthogonal; r/D expected of a random plane.
    """
    square = jnp.square(jnp.swapaxes(u_DR, -1, -2) @ v_DQ)
    return jnp.stack([square[..., :r, :r].sum((-2, -1)) / r for r in ranks], axis=-1)


def span_overlap(u_DR: np.ndarray, v_DQ: np.ndarray) -> float:
    """‖UᵀV‖²_F / max(R, Q) of orthonormal columns: 1 if the spans are equal; a dimension that one lacks counts as missed."""
    return float(np.square(u_DR.T @ v_DQ).sum() / max(u_DR.shape[1], v_DQ.shape[1]))


def nested_energy(rows_ND: Float[Array, "*B N D"], u_DR: Float[Array, "*B D R"], ranks: tuple[int, ...]) -> Float[Array, "*B K"]:
    """‖V U‖²_F / ‖V‖²_F, the share of a set's energy in the leading r columns, for every r in `ranks`, from one product."""
    share_R = jnp.square(rows_ND @ u_DR).sum(-2) / jnp.square(rows_ND).sum((-2, -1))[..., None]
    return jnp.stack([share_R[..., :r].sum(-1) for r in ranks], axis=-1)


def subsample(rng: np.random.Generator, members: np.ndarray, n: int, draws: int, weights: np.ndarray | None = None) -> np.ndarray:
    """`draws` random choices of `n` of `members`, without repeats: int (draws, n). Raises ValueError if there are fewer.

    Args:
      weights: chance of each to be chosen, up to a factor (Efraimidis & Spirakis 2006); those of weight 0 come when no others are left. None: all alike.
    """
    if len(members) < n:
        raise ValueError(f"cannot draw {n} of {len(members)} features")
    if weights is None:
        return np.stack([rng.choice(members, n, replace=False) for _ in range(draws)])
    key_TN = np.log(rng.uniform(size=(draws, len(members)))) / np.maximum(weights, 1e-12)
    return np.asarray(members)[np.argsort(-key_TN, axis=1, kind="stable")[:, :n]]


def matching_weights(values: np.ndarray, targets: np.ndarray, bins: int = 20) -> np.ndarray:
    """With which members of values (N,) are drawn so that theirs are spread as the targets (M,) are: in each bin of equally many targets as often."""
    edges = np.quantile(targets, np.linspace(0, 1, bins + 1)[1:-1])
    of_members, of_targets = np.searchsorted(edges, values), np.searchsorted(edges, targets)
    wanted, there = np.bincount(of_targets, minlength=bins), np.bincount(of_members, minlength=bins)
    return (wanted / np.maximum(there, 1))[of_members]
