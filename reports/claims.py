"""How claims are decided: by rules fixed in the config before the run, with one vocabulary for all of them.

Rooms bring forward the evidence (`experiments/<room>/report.py`). A claim is `yes` or `no` only on enough seeds and features, only if a whole interval lies
on one side of the rule's threshold, and only if the figures do not move any more with training; `yes so far` if they do and the answer was the same at a
quarter and at half of it; else `undecided`. What no stage measures is `not measured yet`.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from experiments.fields import config, field
from reports import course
from reports.course import Point
from reports.results import Estimated, Results

YES, NO, UNDECIDED, NOT_MEASURED = "yes", "no", "undecided", "not measured yet"
YES_SO_FAR = "yes so far"  # at a quarter, at half and at the end of training, and still moving
Sides = Mapping[str, str]  # by the names of the parts of an evidence, YES, NO or UNDECIDED


@config("claims")
class Claims:
    """The decision rules of the claims C1 to C7, fixed before the run."""

    min_seeds: int = field(
        default=6,
        doc="below, every claim is undecided; of 5 comparisons a feature found every other time gets a label by luck in 1 of 16",
        gt=0,
    )
    min_features: int = field(default=50, doc="live stable and live unstable features, in all seeds together", gt=0)
    c1_chance: float = field(default=0.05, doc="C1 holds only if the strongest null's p̂ stays below this")
    c1_reliability: float = field(
        default=0.8, doc="C1 holds only if p̂ correlates between disjoint halves of the comparisons by more than this, whole interval"
    )
    c1_middle: float = field(
        default=0.3, doc="C1: share of live features with true p in [0.2, 0.8]; all its bounds below this: yes, all above: no"
    )
    c2_difference: float = field(
        default=0.0,
        doc="C2: N stable less ratio·N unstable features, in explained variance lost and in cross-entropy gained, at every function.shares and by either ablation, and stable less unstable part of what is explained, whole intervals above this",
    )
    c3_ratio: float = field(default=1.0, doc="C3a: stable over unstable firing rate, by means and by medians, whole intervals above this")
    c3_surface: float = field(
        default=0.5,
        doc="C3b: probability that an unstable feature has a higher surface-form score than a stable one, whole interval above this",
        ge=0,
        le=1,
    )
    c3_substring: float = field(
        default=0.0,
        doc="C3c: share of unstable features that a model explains by a substring less that of stable ones, whole interval above this",
    )
    c4_excess: float = field(
        default=0.0, doc="C4: overlap between seeds and captured energy over each null that decides, all whole intervals above this"
    )
    c5_span: float = field(
        default=0.9, doc="C5: overlaps of the unstable latents' span, and the share of free atoms found, whole intervals above this"
    )
    c5_found: float = field(default=0.5, doc="C5: share of the block's atoms found, whole interval below this")
    c6_p: float = field(
        default=0.1,
        doc="C6: p̂ between independent pools less that between independent products of each competitor at equal compute, on all features and on live ones, whole intervals above this",
    )
    c6_explained: float = field(
        default=-0.01,
        doc="C6: explained variance of the pools less that of each competitor at equal compute, so of the best, whole intervals above this",
    )
    c6_groups: int = field(default=3, doc="C6: with fewer independent pools, or SAEs trained on alike, it is undecided", ge=3)
    c6_long: int = field(default=5, doc="C6: with fewer SAEs trained as long as a pool and its members together, it is undecided", ge=3)
    c7_excess: float = field(
        default=0.0,
        doc="C7: AUROC of decoder rows over the best of frequency, crowding, both, and nearest neighbour, whole interval above this",
    )


class Part(NamedTuple):
    """One of the figures that decide a claim.

    Attributes:
      name: in what is said of it.
      estimates: as in `summary.json`; of several all must lie on one side.
      margin: the whole interval must lie above it.
      must_be_below: it must lie below instead.
      can_refute: whether a figure on the other side refutes the claim; else it leaves the claim undecided.
    """

    name: str
    estimates: tuple[Estimated, ...]
    margin: float
    must_be_below: bool = False
    can_refute: bool = True


class Evidence(NamedTuple):
    """What a room brings forward for a claim.

    Attributes:
      measured: the figures in words.
      parts: that decide it: yes if all say yes, no if one says no.
      withheld: why nothing is decided, if so.
      reason: the reason, from the verdict and the sides of the parts.
      moves: whether it speaks of features that may only be under-trained, so that it is decided on a plateau alone.
    """

    measured: str
    parts: tuple[Part, ...]
    withheld: str = ""
    reason: Callable[[str, Sides], str] = lambda holds, sides: ""
    moves: bool = True


class Statement(NamedTuple):
    """A claim of the source paper: its number, its words, where it can be measured, and the evidence of a run; None where the run has none."""

    name: str
    paper: str
    elsewhere: str
    evidence: Callable[[Results, Claims], Evidence | None]


class Claim(NamedTuple):
    """One row of the claims table."""

    name: str
    paper: str
    measured: str
    holds: str
    because: str


def decide(statements: Iterable[Statement], results: Results, rules: Claims) -> list[Claim]:
    """All claims by number."""
    rows = []
    for s in sorted(statements, key=lambda s: (int(re.findall(r"\d+", s.name)[0]), s.name)):
        evidence = s.evidence(results, rules)
        if evidence is None:
            rows.append(Claim(s.name, s.paper, "–", NOT_MEASURED, s.elsewhere))
        else:
            rows.append(Claim(s.name, s.paper, evidence.measured, *_verdict(s, evidence, results, rules)))
    return rows


def sides(statements: Iterable[Statement], results: Results, rules: Claims) -> dict[str, str]:
    """On which side the figures of each claim stand, of those that are there, whatever the plateau; UNDECIDED where something is withheld."""
    out = {}
    for s in statements:
        evidence = s.evidence(results, rules)
        if evidence is not None:
            out[s.name] = UNDECIDED if evidence.withheld else _stands(evidence)[0]
    return out


def _verdict(statement: Statement, evidence: Evidence, results: Results, rules: Claims) -> tuple[str, str]:
    """(whether the claim holds, why)."""
    if evidence.withheld:
        return UNDECIDED, evidence.withheld
    holds, sides = _stands(evidence)
    reason = evidence.reason(holds, sides)
    if holds == UNDECIDED or not evidence.moves:
        return holds, reason
    earlier = [(point, statement.evidence(point, rules)) for point in results.earlier()]
    if not earlier:
        because = results.summary.get("plateau", {}).get("not_measured", "the stage 'plateau' measures them")
        return UNDECIDED, f"as it stands {holds}, without figures along training ({because}); {reason}"
    at_end = statement.evidence(results.end(), rules)
    end = _point(results.end(), at_end)
    points = [*(_point(*one) for one in earlier), end]
    deciding = [part for part in evidence.parts if holds == YES or sides[part.name] == NO]
    moving = {part.name: text for part in deciding if (text := course.moves(points, part.name, part.margin))}
    sides_of_end = {} if at_end is None else _stands(at_end)[1]
    for part in deciding:
        if (there := sides_of_end.get(part.name, sides[part.name])) != sides[part.name]:
            moving[part.name] = f"of as many features as earlier it stands {there}"
    answers = [_answer(e) for _, e in earlier]
    if (of_end := _answer(at_end)) != holds:  # of as many features as earlier
        answers.append(of_end)
    if (control := results.control()) is not None:
        annealed = statement.evidence(control, rules)
        annealed_points = [*points[:-2], _point(control, annealed), end]
        for part in deciding:
            if part.name not in moving and (text := course.moves(annealed_points, part.name, part.margin)):
                moving[part.name] = f"with SAEs annealed at {control.tokens:,} tokens for those at half: {text}"
        answers.append(_answer(annealed))
        reason = f"{reason}; SAEs annealed at {control.tokens:,} tokens say {answers[-1]}"
    if not moving:
        return holds, reason
    name, text = next(iter(moving.items()))
    still = f"{name}: {text}" + (f" (and {len(moving) - 1} more of {len(deciding)} figures)" if len(moving) > 1 else "")
    if holds == YES and set(answers) == {YES}:
        return YES_SO_FAR, f"at {', '.join(f'{p.tokens:,}' for p in points)} training tokens; {still}; {reason}"
    return UNDECIDED, f"as it stands {holds}, earlier {' and '.join(answers)}; {still}; {reason}"


def _point(results: Results, evidence: Evidence | None) -> Point:
    return Point(results.tokens, {} if evidence is None else _estimates(evidence))


def _answer(evidence: Evidence | None) -> str:
    return UNDECIDED if evidence is None or evidence.withheld else _stands(evidence)[0]


def _estimates(evidence: Evidence) -> dict[str, tuple[Estimated, ...]]:
    return {part.name: part.estimates for part in evidence.parts}


def _stands(evidence: Evidence) -> tuple[str, dict[str, str]]:
    """(what the parts say together, what each says)."""
    sides = {part.name: _of_part(part) for part in evidence.parts}
    return _joint(list(sides.values())), sides


def _of_part(part: Part) -> str:
    sides = {side(e, part.margin) for e in part.estimates}
    common_side = sides.pop() if len(sides) == 1 else UNDECIDED
    if part.must_be_below:
        common_side = {YES: NO, NO: YES}.get(common_side, common_side)
    return UNDECIDED if common_side == NO and not part.can_refute else common_side


def side(estimate: Estimated, threshold: float) -> str:
    """YES if the whole interval lies above the threshold, NO if below, else UNDECIDED."""
    if estimate["low"] is None or estimate["high"] is None:
        return UNDECIDED
    return YES if estimate["low"] > threshold else NO if estimate["high"] < threshold else UNDECIDED


def _joint(sides: list[str]) -> str:
    """YES if all are, NO if one is NO, else UNDECIDED."""
    return NO if NO in sides else UNDECIDED if UNDECIDED in sides else YES


def as_markdown(claims: list[Claim], subject: str) -> str:
    """The table for README, with what it was measured on."""
    lines = ["| claim | the paper says | measured here | on | holds |", "|---|---|---|---|---|"]
    for c in claims:
        where = "–" if c.holds == NOT_MEASURED else subject
        lines.append(f"| {c.name} | {c.paper} | {c.measured} | {where} | **{c.holds}**: {c.because} |")
    return "\n".join(lines) + "\n"
