"""Firing rates by label: what the choice of text adds to their intervals."""

import numpy as np
import pytest

from experiments.reappearance import rates
from experiments.reappearance.labels import LabelRule
from saes.evaluation import Evaluation
from tests.experiments.dictionaries import listed

S, F, P = 8, 60, 10
RULE, RNG = LabelRule(), np.random.default_rng(0)
STABLE_F = np.arange(F) < 30
HITS = np.broadcast_to(STABLE_F, (S, S, F)) & ~np.eye(S, dtype=bool)[:, :, None]
EVERYONE = np.ones((S, F), bool)


def counted(of_part_P, rows_P):
    """Features fire alike in all seeds; stable ones so many times as often in each part."""
    per_row = np.where(STABLE_F[:, None], 0.02 * of_part_P, 0.02)
    firings = np.broadcast_to(per_row * rows_P, (S, F, P)) * RNG.lognormal(0, 0.01, (S, F, 1))
    zeros = np.zeros((S, F))
    return Evaluation(np.zeros(S), np.zeros(S), firings.sum(-1), firings, *[zeros] * 5, int(rows_P.sum()), rows_P)


def ratio(evaluation, without):
    rate = evaluation.firings_SF / evaluation.rows
    return rates.figures(RULE, HITS, EVERYONE, EVERYONE, rate, without)["firing_rate_stable_over_unstable"]


def test_rates_without_a_part_are_those_of_the_other_rows():
    rows = np.array([100] * 9 + [50])
    evaluation = counted(np.ones(P), rows)
    without = rates.without_parts(evaluation)
    assert without.shape == (P, S, F)
    np.testing.assert_allclose(without[9], evaluation.firings_SFP[..., :9].sum(-1) / 900)
    alone = evaluation._replace(firings_SFP=evaluation.firings_SFP.sum(-1, keepdims=True), rows_P=rows[:1])
    assert rates.without_parts(alone).shape == (0, S, F)


def test_text_in_which_stable_features_fire_more_often_widens_the_interval():
    rows = np.full(P, 1000)
    apart, alike = counted(RNG.lognormal(0.7, 0.5, P), rows), counted(np.full(P, 2.0), rows)
    width = lambda evaluation, without: np.log((e := ratio(evaluation, without)).high / e.low)
    fixed = width(apart, ())
    assert width(apart, rates.without_parts(apart)) > 5 * fixed
    assert width(alike, rates.without_parts(alike)) == pytest.approx(width(alike, ()), rel=0.05)
    # The spread over parts is that of a mean of P of them.
    of_text = np.log(apart.firings_SFP[0, 0] / apart.firings_SFP[0, -1])
    assert width(apart, rates.without_parts(apart)) / 2 == pytest.approx(2.26 * of_text.std(ddof=1) / np.sqrt(P), rel=0.4)


@pytest.mark.parametrize("rows", [40, 999, 10_241, 12_000, 65_536])
def test_the_rows_are_cut_into_ten_parts_of_about_equal_length(rows):
    saes = listed([np.eye(3, dtype=np.float32)[:2]])
    evaluation = rates.evaluated(saes, np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float32), 1)
    assert len(evaluation.rows_P) == P and evaluation.rows_P.sum() == rows and (evaluation.rows_P[:-1] == evaluation.rows_P[0]).all()
    assert evaluation.rows_P[0] - evaluation.rows_P[-1] <= 10 + rows // 100
