"""Why a latent of a world of known atoms does not reappear, told from the truth: what a diagnosis that has not seen it is scored against."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from stability.combinations import best_combinations
from stability.diagnosis import AMBIGUOUS, NEVER, SPLIT, UNDER_TRAINED, UNEXPLAINED
from stability.reappearance import DEAD, RARE
from synthetic.generator import Truth


@dataclasses.dataclass(frozen=True)
class Causes:
    """From where on a cause is there, and from where on it is clear; see `configs/synthetic_causes.py`.

    Attributes:
      inside, clear_inside: share of a latent's squared norm inside one block.
      combined, clear_combined: share of it that up to three free atoms hold.
      single, clear_single: share of it that one of them holds, at most.
      clear_nothing: share inside blocks, and held by three free atoms, below which a latent clearly has no cause.
    """

    inside: float
    clear_inside: float
    combined: float
    clear_combined: float
    single: float
    clear_single: float
    clear_nothing: float

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if not 0 < getattr(self, field.name) <= 1:
                raise ValueError(f"config.causes.{field.name}={getattr(self, field.name)}: above 0 and at most 1")


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
