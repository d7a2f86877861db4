"""Every verdict from figures that ask for it, and none from intervals that cross a rule."""

import pytest

from stability.estimates import Count, Estimate
from synthetic.verdicts import VERDICTS, verdict


def within(low, high):
    return Estimate((low + high) / 2, low, high, 0.001, Count(8, "seeds"), "")


MORE, LESS = within(0.01, 0.03), within(-0.03, -0.01)
STAYS, LEAVES, EQUAL = within(0.9, 1.0), within(0.1, 0.3), within(-0.002, 0.002)
UNSTABLE, REAPPEARS = within(0.1, 0.2), within(0.93, 1.0)
NOT_FOUND, FOUND = within(0.1, 0.2), within(0.92, 1.0)
PREFERS = "the objective prefers another basis"
CASES = [  # p, found, kept, gain, worth, leaving
    (REAPPEARS, FOUND, STAYS, EQUAL, EQUAL, EQUAL, "identified"),
    (REAPPEARS, FOUND, LEAVES, MORE, LESS, MORE, "identified"),
    (REAPPEARS, NOT_FOUND, STAYS, MORE, MORE, EQUAL, "reproducible, not the truth"),
    (REAPPEARS, within(0.85, 0.95), STAYS, MORE, MORE, EQUAL, "optimisation"),
    (within(0.8, 1.0), NOT_FOUND, STAYS, EQUAL, EQUAL, EQUAL, "degenerate tie"),
    (UNSTABLE, NOT_FOUND, STAYS, MORE, EQUAL, MORE, "optimisation"),
    (UNSTABLE, NOT_FOUND, STAYS, EQUAL, LESS, MORE, "degenerate tie"),
    (UNSTABLE, NOT_FOUND, STAYS, LESS, EQUAL, LESS, "undecided"),  # stuck at the truth, for all that is known
    (UNSTABLE, NOT_FOUND, LEAVES, MORE, EQUAL, MORE, PREFERS),
    (UNSTABLE, NOT_FOUND, LEAVES, EQUAL, MORE, LESS, "optimisation"),
    (UNSTABLE, NOT_FOUND, LEAVES, MORE, EQUAL, EQUAL, "degenerate tie"),
    (UNSTABLE, NOT_FOUND, LEAVES, LESS, LESS, EQUAL, PREFERS),
    (UNSTABLE, NOT_FOUND, LEAVES, LESS, within(-0.007, -0.004), LESS, "undecided"),
    (UNSTABLE, NOT_FOUND, within(0.4, 0.6), MORE, MORE, EQUAL, "undecided"),
    (UNSTABLE, NOT_FOUND, STAYS, within(0.0, 0.01), EQUAL, EQUAL, "undecided"),
    (UNSTABLE, NOT_FOUND, STAYS, Estimate(0.1, None, None, None, Count(2, "seeds"), ""), EQUAL, EQUAL, "undecided"),
    (UNSTABLE._replace(null=0.2), NOT_FOUND, STAYS, MORE, MORE, EQUAL, "not judged"),
]


@pytest.mark.parametrize(("p", "found", "kept", "gain", "worth", "leaving", "expected"), CASES)
def test_verdicts(p, found, kept, gain, worth, leaving, expected):
    given = {"kept": kept, "gain": gain, "worth": worth, "leaving": leaving}
    assert verdict(p, found, 20.0, **given, tie=0.005) == expected
    assert verdict(p, found, 4.0, **given, tie=0.005) == "not judged"  # too few latents to speak of shares


def test_every_verdict_is_reached():
    assert {case[-1] for case in CASES} == set(VERDICTS)
