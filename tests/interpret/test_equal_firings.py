"""Scores from equally many firings: planted rules, definitions by brute force, and rare features that are like frequent ones."""

import numpy as np
import pytest
from scipy import sparse

from interpret import equal_firings, surface
from interpret.equal_firings import OTHERS, Halves
from tests.interpret.test_surface import PREDICATES, VOCABULARY, V

RNG = np.random.default_rng(0)


def scores(fit, test, rows, firings):
    rng = np.random.default_rng(1)
    counted = Halves(fit, test)
    drawn = Halves(*(equal_firings.sample(rng, half, firings) for half in counted))
    return drawn, equal_firings.scores(drawn, counted, rows, firings, PREDICATES)


def test_a_sample_is_of_firings_without_replacement():
    table = RNG.integers(0, 6, (40, V))
    table[3] = 0
    drawn = equal_firings.sample(np.random.default_rng(0), sparse.csr_array(table), 30).toarray()
    enough = table.sum(1) >= 30
    np.testing.assert_array_equal(drawn.sum(1), np.where(enough, 30, 0))
    assert (drawn <= table).all() and 0 < enough.sum() < 40 and not enough[3]
    # Each firing is as likely as any other.
    many = np.mean([equal_firings.sample(np.random.default_rng(s), table[:1], 20).toarray()[0] for s in range(400)], axis=0)
    np.testing.assert_allclose(many, 20 * table[0] / table[0].sum(), atol=0.3)


def test_f1_against_its_definition():
    fit, test = RNG.integers(0, 20, (2, 30, V))
    rows = RNG.integers(20, 50, (2, V))
    drawn, found = scores(fit, test, rows, 25)
    holds = PREDICATES.holds_VP.toarray()

    def f1(some_V, all_V, rows_V, rule):
        silent = rows_V - all_V
        said = some_V @ rule + OTHERS * 25 * (silent @ rule) / silent.sum()
        return 2 * (some_V @ rule) / (said + 25)

    for f in range(30):
        some = [half.toarray()[f] for half in drawn]
        by_rule = [f1(some[0], fit[f], rows[0], holds[:, p]) for p in range(holds.shape[1])]
        assert found.f1_F[f] == pytest.approx(f1(some[1], test[f], rows[1], holds[:, int(np.argmax(by_rule))]))
        assert found.top_share_F[f] == (some[0] + some[1]).max() / 50


def test_features_with_too_few_firings_have_no_score():
    fit = np.zeros((2, V), int)
    fit[0, 0], fit[1, 0] = 25, 24
    found = scores(fit, np.full((2, V), 5), np.full((2, V), 100), 25)[1]
    np.testing.assert_array_equal(np.isnan(found.f1_F), [False, True])
    np.testing.assert_array_equal(np.isnan(found.top_share_F), [False, True])


def test_tokens_without_text_have_no_rule():
    fit = np.zeros((1, V), int)
    fit[0, VOCABULARY.index("")] = 30
    assert scores(fit, fit, np.full((2, V), 100), 25)[1].f1_F == [0.0]


def test_rare_features_score_as_frequent_ones_of_the_same_kind():
    """A feature fires on any token, or rather on some; a rare one has few of these firings. From all of them the rare one scores higher, which is the artefact."""
    rows = np.full((2, V), 20_000)
    chance = RNG.dirichlet(np.full(V, 0.5), 300)
    frequent = [np.stack([RNG.multinomial(4000, p) for p in chance]) for _ in range(2)]
    rare = [np.stack([RNG.multinomial(40, p) for p in chance]) for _ in range(2)]
    by_all = [surface.top_token(sum(halves))[1].mean() for halves in (rare, frequent)]
    assert by_all[0] > by_all[1] + 0.01
    equal = [scores(*halves, rows, 25)[1] for halves in (rare, frequent)]
    assert abs(equal[0].top_share_F.mean() - equal[1].top_share_F.mean()) < 0.01
    assert abs(equal[0].f1_F.mean() - equal[1].f1_F.mean()) < 0.03
