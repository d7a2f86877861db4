"""Why a latent of a world of known atoms does not reappear, told from the truth: what a diagnosis that has not seen it is scored against."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from stability.combinations import best_combinations
from stability.diagnosis import AMBIGUOUS, NEVER, SPLIT, UNDER_TRAINED, UNEXPLAINED
from stability.reappearance import DEAD
from synthetic.generator import Truth


@dataclasses.dataclass(frozen=True)
class Causes:
    """From where on a cause is there, and from where on it is clear; see `configs/synthetic_causes.py`.

    Attributes:
      inside, clear_inside: share of a latent's squared norm inside one block.
      combined, clear_combined: share of it that up to three free atoms hold.
      single, clear_single: share of it that one of them holds, at most.
      clear_rare: firings of its atom, as a share of those below which a feature is rare.
      clear_nothing: share inside blocks, and held by three free atoms, below which a latent clearly has no cause.
    """

    inside: float
    clear_inside: float
    combined: float
    clear_combined: float
    single: float
    clear_single: float
    clear_rare: float
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


def true_causes(
    truth: Truth, unit_ND: np.ndarray, stratum_N: np.ndarray, firings_A: np.ndarray, rare_below: int, rules: Causes
) -> TrueCauses:
    """The first that applies: dead; crowded into a block; a combination of free atoms; of an atom that hardly fires; none.

    Args:
      unit_ND: unit decoder rows.
      stratum_N: of the latents, on held-out tokens.
      firings_A: how often every atom fires on as many.
      rare_below: firings below which a feature is rare.
    """
    partial_bases = [b for b in truth.bases if b.shape[1] < b.shape[0]]  # a block of full rank crowds nothing
    inside_NB = np.stack([np.square(unit_ND @ b).sum(1) for b in partial_bases], axis=1) if partial_bases else np.zeros((len(unit_ND), 1))
    inside_N = inside_NB.max(axis=1)
    crowded_A = np.isin(truth.group_A, [g for g, b in enumerate(truth.bases, start=1) if b.shape[1] < b.shape[0]])
    free_AD, free_firings_A = truth.atoms_AD[~crowded_A].astype(np.float32), firings_A[~crowded_A]
    best = best_combinations(jnp.asarray(unit_ND, jnp.float32), jnp.asarray(free_AD), 3)
    share_N3, index_N3 = np.asarray(best.share_FM), np.asarray(best.index_FM)
    own_N = free_firings_A[index_N3[:, 0]]

    dead_N = stratum_N == DEAD
    in_block_N = inside_N >= rules.inside
    combined_N = (share_N3[:, 2] >= rules.combined) & (share_N3[:, 0] < rules.single)
    rare_N = (own_N < rare_below) & (share_N3[:, 0] >= rules.inside)
    reason_N = np.select([dead_N, in_block_N, combined_N, rare_N], [NEVER, AMBIGUOUS, SPLIT, UNDER_TRAINED], UNEXPLAINED)
    clear = {
        NEVER: dead_N,
        AMBIGUOUS: inside_N >= rules.clear_inside,
        SPLIT: (share_N3[:, 2] >= rules.clear_combined) & (share_N3[:, 0] < rules.clear_single),
        UNDER_TRAINED: own_N < rules.clear_rare * rare_below,
        UNEXPLAINED: np.maximum(inside_N, share_N3[:, 2]) < rules.clear_nothing,
    }
    clear_N = np.select([reason_N == reason for reason in clear], list(clear.values()), False)
    return TrueCauses(reason_N, clear_N, np.where(in_block_N, inside_NB.argmax(axis=1) + 1, 0))
