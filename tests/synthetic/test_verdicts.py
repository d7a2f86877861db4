"""Every verdict from figures that ask for it, and none from intervals that cross a rule."""

import pytest

from stability.estimates import Count, Estimate
from synthetic.verdicts import VERDICTS, verdict


def within(low, high):
    return Estimate((low + high) / 2, low, high, None, Count(8, "seeds"), "")


MORE, LESS = within(0.01, 0.03), within(-0.03, -0.01)
UNSTABLE, STAYS, LEAVES, EQUAL = within(0.1, 0.2), within(0.9, 1.0), within(0.1, 0.3), within(-0.002, 0.002)
PREFERS = "the objective prefers another basis"
CASES = [
    (within(0.93, 1.0), STAYS, EQUAL, EQUAL, "identified"),
    (within(0.93, 1.0), LEAVES, LESS, MORE, "identified"),
    (within(0.8, 1.0), STAYS, EQUAL, EQUAL, "degenerate tie"),
    (UNSTABLE, STAYS, MORE, EQUAL, "optimisation"),
    (UNSTABLE, LEAVES, MORE, LESS, "optimisation"),
    (UNSTABLE, LEAVES, MORE, MORE, PREFERS),
    (UNSTABLE, LEAVES, EQUAL, MORE, PREFERS),
    (UNSTABLE, LEAVES, LESS, EQUAL, PREFERS),
    (UNSTABLE, STAYS, LESS, EQUAL, PREFERS),
    (UNSTABLE, STAYS, EQUAL, MORE, "degenerate tie"),
    (UNSTABLE, LEAVES, EQUAL, LESS, "degenerate tie"),
    (UNSTABLE, within(0.4, 0.6), EQUAL, MORE, "degenerate tie"),
    (UNSTABLE, STAYS, within(0.0, 0.01), EQUAL, "undecided"),
    (UNSTABLE, LEAVES, within(-0.01, 0.0), within(0.0, 0.01), "undecided"),
    (UNSTABLE, STAYS, Estimate(0.1, None, None, None, Count(2, "seeds"), ""), EQUAL, "undecided"),
]


@pytest.mark.parametrize(("p", "kept", "gain", "leaving", "expected"), CASES)
def test_verdicts(p, kept, gain, leaving, expected):
    assert verdict(p, kept, gain, leaving, tie=0.005) == expected


def test_every_verdict_is_reached():
    assert {case[-1] for case in CASES} == set(VERDICTS)
