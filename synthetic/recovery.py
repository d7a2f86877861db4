"""Is the truth found? Atom by atom, and as subspaces. Arrays in, arrays out; per seed, so that intervals are over seeds."""

from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.stats

from stability.similarity import least_cosine
from synthetic.generator import Truth


class AtomRecovery(NamedTuple):
    """Per seed (S) and group (G).

    Attributes:
      best_SA: largest cosine of any latent with each atom.
      assigned_SA: cosine under the one-to-one assignment of latents to all atoms that has the largest sum; NaN if left over.
      found_SG, assigned_found_SG: share of the group's atoms whose cosine is above the threshold, in either sense.
      assigned_mean_SG: mean cosine of the group's atoms under the assignment, 0 for those left over (ground-truth MCC).
    """

    best_SA: np.ndarray
    assigned_SA: np.ndarray
    found_SG: np.ndarray
    assigned_found_SG: np.ndarray
    assigned_mean_SG: np.ndarray


def atom_recovery(truth: Truth, unit_SFD: np.ndarray, threshold: float) -> AtomRecovery:
    """Signed cosines, since codes are positive.

    Args:
      unit_SFD: unit decoder rows.
      threshold: from which an atom counts as found.
    """
    least = least_cosine(threshold)
    cosine_SAF = np.einsum("ad,sfd->saf", truth.atoms_AD, unit_SFD)
    best = cosine_SAF.max(axis=2)
    assigned = np.full(best.shape, np.nan)
    for s, cosine_AF in enumerate(cosine_SAF):
        atoms, latents = scipy.optimize.linear_sum_assignment(cosine_AF, maximize=True)
        assigned[s, atoms] = cosine_AF[atoms, latents]
    groups = range(len(truth.bases) + 1)
    of_groups = lambda values: np.stack([_mean(values[:, truth.group_A == g]) for g in groups], axis=1)
    return AtomRecovery(best, assigned, of_groups(best >= least), of_groups(assigned >= least), of_groups(np.nan_to_num(assigned)))


def _mean(values_SA: np.ndarray) -> np.ndarray:
    """Of every row; NaN for a group without atoms."""
    return values_SA.mean(axis=1) if values_SA.shape[1] else np.full(len(values_SA), np.nan)


def group_of_latents(truth: Truth, unit_SFD: np.ndarray) -> np.ndarray:
    """(S, F): the block that holds more than half of a latent's squared norm, 0 if none does.

    A block that is the whole space holds everything; there a latent belongs to the group of its nearest atom.
    """
    group_SF = np.zeros(unit_SFD.shape[:2], int)
    for b, basis_DR in enumerate(truth.bases, start=1):
        if basis_DR.shape[0] == basis_DR.shape[1]:
            nearest_SF = np.einsum("ad,sfd->saf", truth.atoms_AD, unit_SFD).argmax(axis=1)
            return truth.group_A[nearest_SF]
        inside_SF = np.square(unit_SFD @ basis_DR).sum(axis=-1)
        group_SF[inside_SF > 0.5] = b
    return group_SF


def pairwise_assignment(a_FD: np.ndarray, b_GD: np.ndarray) -> float:
    """Mean cosine under the one-to-one assignment with the largest sum (PW-MCC of one pair); NaN if either is empty."""
    if not len(a_FD) or not len(b_GD):
        return np.nan
    cosine = a_FD @ b_GD.T
    return float(cosine[scipy.optimize.linear_sum_assignment(cosine, maximize=True)].mean())


def top_plane(rows_FD: np.ndarray, rank: int) -> np.ndarray | None:
    """Orthonormal basis of the top `rank` right singular directions (D, rank), of fewer where there are fewer rows; None of none."""
    if not len(rows_FD):
        return None
    _, size, directions = np.linalg.svd(rows_FD, full_matrices=False)
    return directions[:rank][size[:rank] > 1e-6].T


def spectrum(rows_FD: np.ndarray) -> np.ndarray:
    """Share of the rows' squared norm along each of their principal directions, the largest first: min(F, D) of them."""
    energy = np.square(np.linalg.svd(rows_FD, compute_uv=False))
    total = energy.sum()
    return energy / total if total > 0 else energy


def directions_chosen_alike(rng: np.random.Generator, n: int, basis_DR: np.ndarray) -> np.ndarray:
    """`n` uniform directions of which more than half of the squared norm lies in a block: what `group_of_latents` alone makes of noise.

    The share inside is Beta(r/2, (D−r)/2) above ½. Of a block that is the whole space: uniform directions.
    """
    d, r = basis_DR.shape
    inside, outside = rng.normal(size=(n, r)), rng.normal(size=(n, d - r))
    if r == d:
        return inside / np.linalg.norm(inside, axis=1, keepdims=True) @ basis_DR.T
    law = scipy.stats.beta(r / 2, (d - r) / 2)
    share_N1 = law.isf(law.sf(0.5) * rng.uniform(size=(n, 1))).clip(0.5, 1.0)
    complement = np.linalg.qr(np.concatenate([basis_DR, rng.normal(size=(d, d - r))], axis=1))[0][:, r:]
    unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.sqrt(share_N1) * unit(inside) @ basis_DR.T + np.sqrt(1 - share_N1) * unit(outside) @ complement.T
