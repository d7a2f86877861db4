import numpy as np
import pytest
from scipy import sparse

from interpret import surface
from interpret.surface import Predicates

VOCABULARY = [
    "self",
    " self",
    "ing",
    "ingot",
    "running",
    "sing",
    "0",
    "1",
    "42",
    "(",
    "):",
    "\n    ",
    " ",
    "Class",
    "MAX",
    "a_b",
    "if",
    "é",
    "",
    "�",
    "�",
    "«x»",
    "zzz",
]
V = len(VOCABULARY)
PREDICATES = Predicates.from_vocabulary(VOCABULARY)
RNG = np.random.default_rng(0)


def holds(name):
    return {VOCABULARY[v] for v in PREDICATES.holds_VP[:, [PREDICATES.names.index(name)]].toarray().nonzero()[0]}


def test_rules_hold_for_the_tokens_that_they_name():
    assert holds("digits") == {"0", "1", "42"} and holds("is «self»") == {"self"} and holds("ends with «elf»") == {"self", " self"}
    assert holds("contains «ing»") == {"ing", "ingot", "running", "sing"} and holds("is «\\n    »") == {"\n    "}
    assert holds("is «�»") == {"�"} and PREDICATES.holds_VP[:, [PREDICATES.names.index("is «�»")]].sum() == 2  # two ids, one text
    assert holds("whitespace") == {" ", "\n    "} and "not ASCII" in PREDICATES.names


def test_of_rules_that_hold_for_the_same_tokens_the_simplest_is_kept():
    columns = [tuple(PREDICATES.holds_VP[:, [p]].toarray().nonzero()[0]) for p in range(len(PREDICATES.names))]
    assert len(set(columns)) == len(columns) and all(columns)
    assert "contains «in»" not in PREDICATES.names or holds("contains «in»") != holds("contains «ing»")


def test_an_empty_vocabulary_has_no_rules():
    assert Predicates.from_vocabulary([]).names == [] and Predicates.from_vocabulary([""]).names == []


def counts_of(*members, firings=1000):
    """Firings by token in each half: a feature a set of tokens, always firing there and nowhere else; rows of every token."""
    rows = np.full(V, firings)
    table = np.zeros((len(members), V))
    for f, texts in enumerate(members):
        table[f, [v for v, text in enumerate(VOCABULARY) if text in texts]] = firings
    return table, rows


def test_planted_rules_are_found_with_f1_of_1():
    table, rows = counts_of({"self"}, {"0", "1", "42"}, {"ing", "running", "sing"}, {" ", "\n    "})
    best = surface.best_predictor(table, sparse.csr_array(table), rows, rows, PREDICATES)
    assert [PREDICATES.names[i] for i in best.index_F] == ["is «self»", "digits", "ends with «ing»", "whitespace"]
    np.testing.assert_allclose(best.f1_F, 1.0)
    np.testing.assert_allclose(best.f1_fit_F, 1.0)


def test_f1_against_its_definition_whatever_the_block(monkeypatch):
    fit, test = RNG.integers(0, 20, (2, 30, V))
    rows = RNG.integers(20, 50, (2, V))
    holds_VP = PREDICATES.holds_VP.toarray()

    def f1(table, of):
        return 2 * (table @ holds_VP) / (of @ holds_VP + table.sum(1, keepdims=True))

    for cells in (surface.CELLS, 3 * len(PREDICATES.names)):
        monkeypatch.setattr(surface, "CELLS", cells)
        best = surface.best_predictor(fit, test, *rows, PREDICATES)
        np.testing.assert_array_equal(best.index_F, f1(fit, rows[0]).argmax(1))
        np.testing.assert_allclose(best.f1_fit_F, f1(fit, rows[0]).max(1))
        np.testing.assert_allclose(best.f1_F, f1(test, rows[1])[np.arange(30), best.index_F])


def test_features_that_do_not_fire_in_a_half():
    table, rows = counts_of({"self"}, {"0"})
    silent = table * np.array([[1], [0]])
    best = surface.best_predictor(silent, table, rows, rows, PREDICATES)
    assert best.index_F[1] == -1 and np.isnan(best.f1_fit_F[1]) and np.isnan(best.f1_F[1])  # no rule could be chosen
    best = surface.best_predictor(table, silent, rows, rows, PREDICATES)
    assert best.index_F[1] >= 0 and best.f1_F[1] == 0  # the rule does not hold elsewhere
    nothing = surface.best_predictor(table, np.zeros_like(table), rows, np.zeros_like(rows), PREDICATES)
    assert np.isnan(nothing.f1_F).all() and np.isfinite(nothing.f1_fit_F[0])  # there is nowhere to judge it


def test_where_no_rule_has_a_hit_there_is_none():
    """A feature of tokens without text, and a vocabulary without any."""
    table, rows = counts_of({""})
    best = surface.best_predictor(table, table, rows, rows, PREDICATES)
    assert best.index_F[0] == -1 and best.f1_fit_F[0] == best.f1_F[0] == 0
    none = surface.best_predictor(np.ones((3, 2)), np.ones((3, 2)), np.ones(2), np.ones(2), Predicates.from_vocabulary(["", ""]))
    assert (none.index_F == -1).all() and (none.f1_F == 0).all()


def test_a_rare_feature_at_random_looks_predictable_where_the_rule_was_chosen_and_not_elsewhere():
    rows = np.full(2000, 50)
    predicates = Predicates.from_vocabulary([f"t{i}" for i in range(2000)])
    probability = rows / rows.sum()
    halves = [surface.null_counts(np.random.default_rng(s), np.full(200, 5), probability) for s in (1, 2)]
    best = surface.best_predictor(*halves, rows, rows, predicates)
    assert best.f1_fit_F.mean() > 0.03 > 5 * best.f1_F.mean()


def test_null_counts_have_as_many_firings_spread_as_the_tokens_are():
    probability = np.array([0.5, 0.3, 0.2, 0.0])
    drawn = surface.null_counts(np.random.default_rng(0), np.array([30_000, 0, 7]), probability)
    np.testing.assert_array_equal(drawn.sum(1), [30_000, 0, 7])
    np.testing.assert_allclose(drawn.toarray()[0] / 30_000, probability, atol=0.015)


@pytest.mark.parametrize("table", [np.array, sparse.csr_array])
def test_the_top_token_and_its_share(table):
    token, share = surface.top_token(table(np.array([[1.0, 3, 0], [0, 0, 0], [2, 2, 0]])))
    assert token.tolist()[::2] == [1, 0] and share[0] == 0.75 and np.isnan(share[1]) and share[2] == 0.5


def test_fall_and_score():
    np.testing.assert_allclose(surface.fall(np.array([2.0, 2, 2, 0]), np.array([2.0, 0.5, 3, 0])), [0, 0.75, 0, np.nan])
    assert surface.score(np.ones(1), np.ones(1), np.zeros(1)) == 1 and surface.score(np.zeros(1), np.zeros(1), np.ones(1)) == 0
    assert surface.score(np.array([0.3]), np.array([0.5]), None) == pytest.approx(0.4)
    assert np.isnan(surface.score(np.array([np.nan]), np.array([0.5]), None))


def test_shuffled_contexts_keep_their_tokens_and_say_where_they_went():
    tokens = RNG.integers(1, 1000, (40, 12))
    length = RNG.integers(2, 13, 40)
    shuffled, place = surface.shuffled_contexts(tokens, length, np.random.default_rng(0))
    np.testing.assert_array_equal(shuffled[:, 0], tokens[:, 0])
    np.testing.assert_array_equal(np.take_along_axis(shuffled, place, 1), tokens)
    moved = 0
    for n in range(40):
        np.testing.assert_array_equal(np.sort(shuffled[n, : length[n]]), np.sort(tokens[n, : length[n]]))
        np.testing.assert_array_equal(shuffled[n, length[n] :], tokens[n, length[n] :])
        moved += (place[n, 1 : length[n]] != np.arange(1, length[n])).sum()
    assert moved > 0.7 * (length - 1).sum()
