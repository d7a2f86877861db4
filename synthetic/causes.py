"""Why a latent of a world of known atoms does not reappear, told from the truth: what a diagnosis that has not seen it is scored against."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.fields import config, field
from stability.combinations import best_combinations
from stability.diagnosis import AMBIGUOUS, NEVER, SPLIT, UNDER_TRAINED, UNEXPLAINED
from stability.reappearance import DEAD, RARE
from synthetic.generator import Truth


@config("causes")
class Causes:
    """From where on a latent has a planted cause of its instability, and from where on that is clear."""

    inside: float = field(default=0.5, doc="basis ambiguity: share of its squared norm inside a block", gt=0, le=1)
    clear_inside: float = field(default=0.9, doc="from where on that is clear", gt=0, le=1)
    combined: float = field(default=0.9, doc="split or absorbed: share of it that up to three free atoms hold", gt=0, le=1)
    clear_combined: float = field(default=0.95, doc="from where on that is clear", gt=0, le=1)
    single: float = field(default=0.9, doc="split or absorbed: share of it that one free atom holds, at most", gt=0, le=1)
    clear_single: float = field(default=0.8, doc="from where on that is clear", gt=0, le=1)
    clear_nothing: float = field(default=0.7, doc="unexplained: nothing of all that holds so much of it", gt=0, le=1)


class TrueCauses(NamedTuple):
    """Of N latents, NumPy.

    Attributes:
      reason_N: one of `stability.diagnosis.REASONS`.
      clear_N: whether nobody could doubt it.
      block_N: the block that holds most of it, from 1; 0 where there is none.
    """

    reason_N: np.ndarray
    clear_N: np.ndarray
    block_N: np.ndarray


def true_causes(truth: Truth, unit_ND: np.ndarray, stratum_N: np.ndarray, moving_N: np.ndarray, rules: Causes) -> TrueCauses:
    """The first that applies: dead or rare; crowded into a block; a combination of free atoms; still moving; none. Dead, rare and moving are what is
    seen of a latent and no secret of the world.

    Args:
      unit_ND: unit decoder rows.
      stratum_N: of the latents, on held-out tokens.
      moving_N: whose direction still changes.
    """
    low_rank = [g for g, basis in enumerate(truth.bases, start=1) if basis.shape[1] < basis.shape[0]]  # a block of full rank crowds nothing
    inside_NB = np.stack([np.square(unit_ND @ truth.bases[g - 1]).sum(1) for g in low_rank] or [np.zeros(len(unit_ND))], axis=1)
    inside_N = inside_NB.max(axis=1)
    free_AD = truth.atoms_AD[~np.isin(truth.group_A, low_rank)]
    share_NM = np.zeros((len(unit_ND), 1))
    if len(free_AD):
        best = best_combinations(jnp.asarray(unit_ND, jnp.float32), jnp.asarray(free_AD, jnp.float32), min(3, len(free_AD)))
        share_NM = np.asarray(best.share_FM)

    in_block_N = inside_N >= rules.inside
    combined_N = (share_NM[:, -1] >= rules.combined) & (share_NM[:, 0] < rules.single)
    conditions = [stratum_N == DEAD, stratum_N == RARE, in_block_N, combined_N, moving_N]
    reason_N = np.select(conditions, [NEVER, UNDER_TRAINED, AMBIGUOUS, SPLIT, UNDER_TRAINED], UNEXPLAINED)
    clear = {
        AMBIGUOUS: inside_N >= rules.clear_inside,
        SPLIT: (share_NM[:, -1] >= rules.clear_combined) & (share_NM[:, 0] < rules.clear_single),
        UNEXPLAINED: np.maximum(inside_N, share_NM[:, -1]) < rules.clear_nothing,
    }
    clear_N = np.select([reason_N == reason for reason in clear], list(clear.values()), True)
    return TrueCauses(reason_N, clear_N, np.where(in_block_N, np.array(low_rank or [0])[inside_NB.argmax(axis=1)], 0))
