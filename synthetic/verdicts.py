"""Why latents of a world differ between seeds: what SAEs that start at the truth say of those that start at random."""

from typing import Literal, get_args

from stability.estimates import Estimate

Verdict = Literal[
    "identified",
    "reproducible, not the truth",
    "optimisation",
    "degenerate tie",
    "the objective prefers another basis",
    "undecided",
    "not judged",
]
VERDICTS = get_args(Verdict)
IDENTIFIED = 0.9  # p̂ and share of atoms found from which nothing is left to explain
KEPT = 0.5  # share of atoms still held by the SAEs that started there, from which they have not left
CHANCE = 0.05  # where latents match or atoms are found by chance more often, p̂ says nothing (STUDY's ε)
LATENTS = 5.0  # live latents of the block a seed, below which shares of them say nothing


def verdict(
    p: Estimate, found: Estimate, latents: float, kept: Estimate, gain: Estimate, worth: Estimate, leaving: Estimate, tie: float
) -> Verdict:
    """Every rule asks for a whole interval.

    not judged: chance is above 0.05, or a seed has fewer than 5 latents in the block.
    identified: from random starts latents reappear (p̂ ≥ 0.9) and atoms are found (≥ 0.9); where they reappear and atoms are not found, what
      reappears is not the truth.  Else, where SAEs that start at the truth and are free to leave it
      stay: what they explain against random starts decides (`gain`): more is optimisation, as much a degenerate tie; less is undecided, since
      they may be stuck there;
      leave, and gain by it (`leaving`): the objective prefers another basis;
      leave without gaining: what the truth explains against random starts decides (`worth`): more is optimisation, as much a degenerate
      tie; with less, the objective prefers another basis.

    Args:
      p: of the block's latents between random starts, at the cosine from which an atom counts as found; its null is the chance.
      found: share of the block's atoms found from random starts.
      latents: live ones of the block, mean over seeds.
      kept: share of the block's atoms that SAEs started at the truth still hold at the end.
      gain: explained variance inside the block's span started at the truth, less started at random.
      worth: with the decoder held at the truth and the encoder trained for it, less started at random.
      leaving: started at the truth and free, less held there.
      tie: explained variances closer than this are equal.
    """
    if latents < LATENTS or p.null is None or p.null > CHANCE:
        return "not judged"
    if _above(p, IDENTIFIED) and _above(found, IDENTIFIED):
        return "identified"
    if _above(p, IDENTIFIED) and _below(found, IDENTIFIED):
        return "reproducible, not the truth"
    if _above(kept, KEPT):
        return "undecided" if _below(gain, -tie) else _by_difference(gain, tie)
    if _below(kept, KEPT):
        return "the objective prefers another basis" if _above(leaving, tie) else _by_difference(worth, tie)
    return "undecided"


def _by_difference(to_random: Estimate, tie: float) -> Verdict:
    if _above(to_random, tie):
        return "optimisation"
    if _below(to_random, -tie):
        return "the objective prefers another basis"
    return "degenerate tie" if _above(to_random, -tie) and _below(to_random, tie) else "undecided"


def _above(estimate: Estimate, threshold: float) -> bool:
    return estimate.low is not None and estimate.low >= threshold


def _below(estimate: Estimate, threshold: float) -> bool:
    return estimate.high is not None and estimate.high <= threshold
