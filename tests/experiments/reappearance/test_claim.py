"""The rule of claim C1, on tables of hits of which the truth is known."""

import numpy as np
import pytest

from experiments.reappearance import report, stability
from experiments.reappearance.labels import LabelRule
from reports import claims
from stability import reappearance
from tests.stability.test_mixing import hits, law

RULE = LabelRule()


def verdict(found_SSF):
    """What the rule says of a table: whether a feature of the first seed is found in the second."""
    seeds, _, features = found_SSF.shape
    live = np.ones((seeds, features), bool)
    labels = reappearance.labels(found_SSF.sum(axis=1), seeds - 1, RULE.epsilon)
    summary = {name: e.as_dict() for name, e in stability.separation(RULE, found_SSF, live).items()}
    summary |= stability.label_counts(labels, live)
    summary |= {"seeds": list(range(seeds)), "mean_p_live": {"null": 0.001}, "mean_p_unstable": {"null": None}}
    run = type("Run", (), {"summary": {"stability": summary}})()
    (claim,) = claims.decide(report.CLAIMS, run, claims.Claims())
    return claim.holds


def mixed(seeds, features, middle):
    """Features of two kinds, and so large a share with p near a half."""
    rng = np.random.default_rng(11)
    p = law("two kinds", seeds, features)
    return np.where(rng.random(p.shape) < middle, rng.uniform(0.35, 0.65, p.shape), p)


@pytest.mark.parametrize("seeds", [8, 21])
def test_two_kinds_are_separated(seeds):
    assert verdict(hits(mixed(seeds, 400, 0.05), quality=0.2)) == "yes"


@pytest.mark.parametrize("seeds", [8, 21])
def test_features_of_middling_p_are_not(seeds):
    assert verdict(hits(law("middle", seeds, 600))) == "no"


def test_of_too_few_seeds_or_features_nothing_is_said():
    assert verdict(hits(law("two kinds", 5, 400))) == "undecided"
    assert verdict(hits(law("two kinds", 8, 8))) == "undecided"


@pytest.mark.parametrize("seeds", [8, 21])
def test_a_continuum_of_p_is_not_taken_for_two_kinds(seeds):
    """Features that happened to be found in no or in every comparison differ by 0.9 in p̂ of the others even where p is uniform, which had passed for two kinds."""
    assert verdict(hits(law("uniform", seeds, 2000))) != "yes"


def test_a_quarter_in_the_middle_is_told_by_many_seeds():
    assert verdict(hits(mixed(8, 1500, 0.5))) == "no" and verdict(hits(mixed(21, 1500, 0.12))) == "yes"
