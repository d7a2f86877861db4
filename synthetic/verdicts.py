"""Why latents of a world differ between seeds: what an SAE that starts at the truth says of those that start at random."""

from typing import Literal, get_args

from stability.estimates import Estimate

Verdict = Literal["identified", "optimisation", "degenerate tie", "the objective prefers another basis", "undecided"]
VERDICTS = get_args(Verdict)
IDENTIFIED = 0.9  # p̂ from which nothing is left to explain
KEPT = 0.5  # share of atoms still held by the SAEs that started there, from which they have not left


def verdict(p: Estimate, kept: Estimate, gain: Estimate, tie: float) -> Verdict:
    """Every rule asks for a whole interval.

    identified: from random starts latents reappear (p̂ ≥ 0.9).
    the objective prefers another basis: fewer than half of the atoms that SAEs started at are still held, or they end with less
      explained variance than random starts do.
    optimisation: they stay and explain more; random starts do not get there.
    degenerate tie: they stay and explain as much (within `tie`), though random starts end elsewhere.

    Args:
      p: of the block's latents between random starts, at the cosine from which an atom counts as found.
      kept: share of the block's atoms that SAEs started at the truth still hold at the end.
      gain: explained variance at the end, started at the truth less started at random.
      tie: explained variances closer than this are equal.
    """
    if _above(p, IDENTIFIED):
        return "identified"
    if _below(kept, KEPT) or _below(gain, -tie):
        return "the objective prefers another basis"
    if _above(kept, KEPT) and _above(gain, tie):
        return "optimisation"
    if _above(kept, KEPT) and _above(gain, -tie) and _below(gain, tie):
        return "degenerate tie"
    return "undecided"


def _above(estimate: Estimate, threshold: float) -> bool:
    return estimate.low is not None and estimate.low >= threshold


def _below(estimate: Estimate, threshold: float) -> bool:
    return estimate.high is not None and estimate.high <= threshold
