"""Why latents of a world differ between seeds: what SAEs that start at the truth say of those that start at random."""

from typing import Literal, get_args

from stability.estimates import Estimate

Verdict = Literal["identified", "optimisation", "degenerate tie", "the objective prefers another basis", "undecided"]
VERDICTS = get_args(Verdict)
IDENTIFIED = 0.9  # p̂ from which nothing is left to explain
KEPT = 0.5  # share of atoms still held by the SAEs that started there, from which they have not left


def verdict(p: Estimate, kept: Estimate, gain: Estimate, leaving: Estimate, tie: float) -> Verdict:
    """Every rule asks for a whole interval.

    identified: from random starts latents reappear (p̂ ≥ 0.9).
    Else, where SAEs that start at the truth stay there:
      optimisation: they explain more than random starts, which do not get there.
      degenerate tie: they explain as much, though random starts end elsewhere.
      the objective prefers another basis: they explain less.
    Where they leave it:
      the objective prefers another basis: they end with more explained variance than those whose decoder is held at the truth.
      degenerate tie: they end with as much.

    Args:
      p: of the block's latents between random starts, at the cosine from which an atom counts as found.
      kept: share of the block's atoms that SAEs started at the truth still hold at the end.
      gain: explained variance at the end, started at the truth less started at random.
      leaving: started at the truth, less started there with the decoder held: what it pays to leave. Both train their encoders, so
        that an encoder badly fitted at the start is no reason to leave.
      tie: explained variances closer than this are equal.
    """
    if _above(p, IDENTIFIED):
        return "identified"
    stay, leave = _above(kept, KEPT), _below(kept, KEPT)
    if stay and _above(gain, tie):
        return "optimisation"
    if (stay and _below(gain, -tie)) or (leave and _above(leaving, tie)):
        return "the objective prefers another basis"
    if (stay and _equal(gain, tie)) or (leave and _equal(leaving, tie)):
        return "degenerate tie"
    return "undecided"


def _above(estimate: Estimate, threshold: float) -> bool:
    return estimate.low is not None and estimate.low >= threshold


def _below(estimate: Estimate, threshold: float) -> bool:
    return estimate.high is not None and estimate.high <= threshold


def _equal(estimate: Estimate, tie: float) -> bool:
    return _above(estimate, -tie) and _below(estimate, tie)
