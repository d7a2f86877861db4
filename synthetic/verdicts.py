"""Why latents of a world differ between seeds: what SAEs that start at the truth say of those that start at random."""

from typing import Literal, get_args

from stability.estimates import Estimate

Verdict = Literal["identified", "optimisation", "degenerate tie", "the objective prefers another basis", "undecided"]
VERDICTS = get_args(Verdict)
IDENTIFIED = 0.9  # p̂ from which nothing is left to explain
KEPT = 0.5  # share of atoms still held by the SAEs that started there, from which they have not left


def verdict(p: Estimate, kept: Estimate, gain: Estimate, leaving: Estimate, tie: float) -> Verdict:
    """Every rule asks for a whole interval; the first that holds decides.

    identified: from random starts latents reappear (p̂ ≥ 0.9).
    the objective prefers another basis: SAEs that start at the truth leave it and end with more explained variance than those whose
      decoder is held there.
    Else what the truth explains, with an encoder trained for it, decides against what random starts end with:
      optimisation: more; random starts do not get there.
      degenerate tie: as much, though random starts end elsewhere.
      the objective prefers another basis: less.

    Args:
      p: of the block's latents between random starts, at the cosine from which an atom counts as found.
      kept: share of the block's atoms that SAEs started at the truth and free to leave still hold at the end.
      gain: explained variance with the decoder held at the truth, less that of random starts.
      leaving: explained variance when free to leave the truth, less that of the held.
      tie: explained variances closer than this are equal.
    """
    if _above(p, IDENTIFIED):
        return "identified"
    if _below(kept, KEPT) and _above(leaving, tie):
        return "the objective prefers another basis"
    if _above(gain, tie):
        return "optimisation"
    if _below(gain, -tie):
        return "the objective prefers another basis"
    if _above(gain, -tie) and _below(gain, tie):
        return "degenerate tie"
    return "undecided"


def _above(estimate: Estimate, threshold: float) -> bool:
    return estimate.low is not None and estimate.low >= threshold


def _below(estimate: Estimate, threshold: float) -> bool:
    return estimate.high is not None and estimate.high <= threshold
