"""Every verdict from figures that ask for it, and none from intervals that cross a rule."""

import pytest

from stability.estimates import Count, Estimate
from synthetic.verdicts import VERDICTS, verdict


def within(low, high):
    return Estimate((low + high) / 2, low, high, None, Count(8, "seeds"), "")


MORE, LESS = within(0.01, 0.03), within(-0.03, -0.01)
UNSTABLE, STAYS, LEAVES, EQUAL = within(0.1, 0.2), within(0.9, 1.0), within(0.1, 0.3), within(-0.002, 0.002)
PREFERS = "the objective prefers another basis"
CASES = [  # p, kept, gain, worth, leaving
    (within(0.93, 1.0), STAYS, EQUAL, EQUAL, EQUAL, "identified"),
    (within(0.93, 1.0), LEAVES, MORE, LESS, MORE, "identified"),
    (within(0.8, 1.0), STAYS, EQUAL, EQUAL, EQUAL, "degenerate tie"),
    (UNSTABLE, STAYS, MORE, EQUAL, MORE, "optimisation"),
    (UNSTABLE, STAYS, EQUAL, LESS, MORE, "degenerate tie"),
    (UNSTABLE, STAYS, LESS, EQUAL, LESS, PREFERS),
    (UNSTABLE, LEAVES, MORE, EQUAL, MORE, PREFERS),
    (UNSTABLE, LEAVES, EQUAL, MORE, LESS, "optimisation"),
    (UNSTABLE, LEAVES, MORE, EQUAL, EQUAL, "degenerate tie"),
    (UNSTABLE, LEAVES, LESS, LESS, EQUAL, PREFERS),
    (UNSTABLE, LEAVES, LESS, within(-0.007, -0.004), LESS, "undecided"),
    (UNSTABLE, within(0.4, 0.6), MORE, MORE, EQUAL, "undecided"),
    (UNSTABLE, STAYS, within(0.0, 0.01), EQUAL, EQUAL, "undecided"),
    (UNSTABLE, STAYS, Estimate(0.1, None, None, None, Count(2, "seeds"), ""), EQUAL, EQUAL, "undecided"),
]


@pytest.mark.parametrize(("p", "kept", "gain", "worth", "leaving", "expected"), CASES)
def test_verdicts(p, kept, gain, worth, leaving, expected):
    assert verdict(p, kept, gain, worth, leaving, tie=0.005) == expected


def test_every_verdict_is_reached():
    assert {case[-1] for case in CASES} == set(VERDICTS)
