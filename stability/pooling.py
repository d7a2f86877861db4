"""One set of features out of those of many seeds: ranked, each direction once, and each with the features of all seeds that say the same.

Greedy: in the order of rank a feature is taken unless one at cosine ≥ θ is taken already.  So no two are within θ, copies of one SAE give its own
features (but those within θ of each other), and the order of the seeds does not matter.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from stability import similarity

BLOCK = 1024  # candidates looked at together


class Pool(NamedTuple):
    """M features out of N candidates.

    Attributes:
      leader_M: candidates that were taken, in the order of rank.
      group_N: of every candidate the place of the nearest taken one at cosine ≥ θ; −1: none, since the pool was full.
    """

    leader_M: np.ndarray
    group_N: np.ndarray


def ranking(p_N: np.ndarray, rate_N: np.ndarray, energy_N: np.ndarray, unit_ND: np.ndarray) -> np.ndarray:
    """Candidates from the first to the last: by p̂, then by firing rate, then by energy; what is equal in all by its direction, so that the order
    in which candidates come decides nothing."""
    return np.lexsort((*unit_ND.T[:3][::-1], -energy_N, -rate_N, -p_N))


def pool(unit_ND: np.ndarray, order_N: np.ndarray, theta: float, most: int) -> Pool:
    """Greedily, up to `most` features.

    Args:
      unit_ND: candidates' directions, unit rows.
      order_N: candidates by rank; those that are not in it take no part.
      theta: cosine from which two are the same.

    Raises:
      ValueError: θ outside (0, 1], room for no feature, or rows that are not of length 1 (nor zeros).
    """
    if not 0 < theta <= 1:
        raise ValueError(f"theta={theta}: a cosine in (0, 1]")
    if most < 1:
        raise ValueError(f"a pool of {most} features: room for at least 1 is needed")
    similarity.check_unit(unit_ND, "unit_ND")
    least = similarity.least_cosine(theta)
    taken: list[int] = []
    for first in range(0, len(order_N), BLOCK):
        if len(taken) == most:
            break
        block = order_N[first : first + BLOCK]
        if taken:
            block = block[_nearest(unit_ND[block], unit_ND[np.asarray(taken)])[0] < least]
        cosine_BB = unit_ND[block] @ unit_ND[block].T
        free = np.ones(len(block), bool)
        for at in range(len(block)):
            if free[at]:
                taken.append(int(block[at]))
                free &= cosine_BB[at] < least
            if len(taken) == most:
                break
    leader_M = np.asarray(taken, int)
    group_N = np.full(len(unit_ND), -1)
    if taken:
        cosine, place = _nearest(unit_ND[order_N], unit_ND[leader_M])
        group_N[order_N] = np.where(cosine >= least, place, -1)
        group_N[leader_M] = np.arange(len(leader_M))  # whatever the last bits say
    return Pool(leader_M, group_N)


def _nearest(a_ND: np.ndarray, b_MD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(cosine, place) of the most similar row of b."""
    fill = lambda rows: np.pad(rows, ((0, -len(rows) % BLOCK), (0, 0)))  # whole blocks: every size is compiled anew
    match = similarity.best_match(jnp.asarray(fill(a_ND)), jnp.asarray(fill(b_MD)))[0]
    n = len(a_ND)
    return np.asarray(match.cosine)[:n], np.asarray(match.partner)[:n]


def means(unit_ND: np.ndarray, of: Pool, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """(unit rows (M, D): the mean direction of every group, and its leader's where the mean would come within θ of another; where it is the mean)."""
    leaders_MD = unit_ND[of.leader_M]
    in_group = of.group_N >= 0
    sum_MD = np.zeros_like(leaders_MD, dtype=np.float64)
    np.add.at(sum_MD, of.group_N[in_group], unit_ND[in_group])
    norm_M1 = np.linalg.norm(sum_MD, axis=1, keepdims=True)
    mean_MD = sum_MD / np.where(norm_M1 > 0, norm_M1, 1.0)  # a row of zeros stays one
    rows_MD, is_mean_M = leaders_MD.copy(), np.zeros(len(leaders_MD), bool)
    for m, mean_D in enumerate(mean_MD.astype(leaders_MD.dtype)):
        cosine_M = rows_MD @ mean_D  # with means before it, with leaders behind it
        cosine_M[m] = -1.0
        if cosine_M.max(initial=-1.0) < similarity.least_cosine(theta):
            rows_MD[m], is_mean_M[m] = mean_D, True
    return rows_MD, is_mean_M


def group_sizes(of: Pool) -> np.ndarray:
    """(M,) candidates in every group."""
    return np.bincount(of.group_N[of.group_N >= 0], minlength=len(of.leader_M))
