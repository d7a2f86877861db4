"""How far a feature's firing is a matter of the token's text, from equally many firings of every feature.

Of few firings more lie on one token, and some rule fits them better, whatever the feature: scores of rare and of frequent features can be compared only
from as many firings of each, among as many other tokens.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from interpret.surface import CELLS, Predicates, Table, top_token

OTHERS = 19  # tokens on which a feature is silent, for each firing: where it fires at random the best rule's F1 is about 0.1


class Halves(NamedTuple):
    """Firings of F features by token, of the contexts in which a rule is chosen and of those in which it is judged; (F, V) each."""

    fit_FV: Table
    test_FV: Table


class Scores(NamedTuple):
    """Of every feature; NaN where it has too few firings in one of the halves.

    Attributes:
      top_share_F: share of the firings that are on their most frequent token.
      f1_F: of the best rule, as in `surface.best_predictor`, with `OTHERS` silent tokens for each firing.
    """

    top_share_F: np.ndarray
    f1_F: np.ndarray


def sample(rng: np.random.Generator, count_FV: Table, firings: int) -> sparse.csr_array:
    """(F, V) so many firings of every feature, drawn without replacement; rows of features with fewer are empty.

    Args:
      count_FV: firings by token.
    """
    table = sparse.csr_array(count_FV)
    token_N, row_F = [], np.zeros(table.shape[0] + 1, np.int64)
    for f in range(table.shape[0]):
        place = slice(table.indptr[f], table.indptr[f + 1])
        ends_N = np.cumsum(table.data[place].astype(np.int64))
        if len(ends_N) and ends_N[-1] >= firings:
            drawn = rng.choice(int(ends_N[-1]), firings, replace=False, shuffle=False)
            token_N.append(table.indices[place][np.searchsorted(ends_N, drawn, side="right")])
            row_F[f + 1] = firings
    every_N = np.concatenate(token_N) if token_N else np.zeros(0, int)
    rows_N = np.repeat(np.arange(table.shape[0]), row_F[1:])
    drawn_FV = sparse.coo_array((np.ones(len(every_N)), (rows_N, every_N)), shape=table.shape).tocsr()
    drawn_FV.sum_duplicates()
    return drawn_FV


def on_tokens(row_FM: np.ndarray, token_N: np.ndarray, vocabulary: int) -> sparse.csr_array:
    """(F, V) firings by token, from the rows of M firings of every feature; features with fewer are empty.

    Args:
      row_FM: from `Draws.rows`.
    """
    enough_F = (row_FM >= 0).all(axis=1)
    tokens = token_N[row_FM[enough_F]].ravel()
    row_N = np.repeat(np.flatnonzero(enough_F), row_FM.shape[1])
    drawn_FV = sparse.coo_array((np.ones(len(tokens)), (row_N, tokens)), shape=(len(row_FM), vocabulary)).tocsr()
    drawn_FV.sum_duplicates()
    return drawn_FV


def scores(drawn: Halves, counted: Halves, rows_HV: np.ndarray, firings: int, predicates: Predicates) -> Scores:
    """Of `firings` in each half.

    Args:
      drawn: from `sample` or `on_tokens`.
      counted: all firings.
      rows_HV: rows of every token in the two halves.
    """
    fit_FV, test_FV = (sparse.csr_array(half) for half in drawn)
    enough_F = (fit_FV.sum(1) == firings) & (test_FV.sum(1) == firings)
    top_share_F = np.full(len(enough_F), np.nan)
    top_share_F[enough_F] = top_token((fit_FV + test_FV)[enough_F])[1]
    f1_F = np.full(len(enough_F), np.nan)
    places, columns_PV = np.flatnonzero(enough_F), predicates.holds_VP.T.tocsr()
    said_P = [rows_V @ predicates.holds_VP for rows_V in rows_HV]
    block = max(1, CELLS // max(1, len(predicates.names)))
    for first in range(0, len(places) if predicates.names else 0, block):
        chosen = places[first : first + block]
        hits, all_hits = (sparse.csr_array(half)[chosen] @ predicates.holds_VP for half in (fit_FV, counted.fit_FV))
        all_hits = all_hits.multiply(hits > 0).tocsr()  # of rules that hold for a firing that was drawn
        for table in (hits, all_hits):
            table.sort_indices()
        row_N = np.repeat(np.arange(len(chosen)), np.diff(hits.indptr))
        f1_N = _f1(
            hits.data, all_hits.data, said_P[0][hits.indices], _silent_weight(counted.fit_FV, chosen, rows_HV[0], firings)[row_N], firings
        )
        with_rule_B = np.diff(hits.indptr) > 0  # tokens without text have none
        most_B = np.zeros(len(chosen))
        if with_rule_B.any():
            most_B[with_rule_B] = np.maximum.reduceat(f1_N, hits.indptr[:-1][with_rule_B])
        best_N = np.flatnonzero(f1_N == most_B[row_N])[::-1]  # of equals the first rule is written last
        rule_B = np.zeros(len(chosen), int)
        rule_B[row_N[best_N]] = hits.indices[best_N]
        held = columns_PV[rule_B]
        of_rule, all_of_rule = (np.asarray(sparse.csr_array(half)[chosen].multiply(held).sum(1)) for half in (test_FV, counted.test_FV))
        weight_B = _silent_weight(counted.test_FV, chosen, rows_HV[1], firings)
        f1_F[chosen] = np.where(with_rule_B, _f1(of_rule, all_of_rule, said_P[1][rule_B], weight_B, firings), 0.0)
    return Scores(top_share_F, f1_F)


def _silent_weight(count_FV: Table, chosen: np.ndarray, rows_V: np.ndarray, firings: int) -> np.ndarray:
    """For how many tokens each on which a feature is silent counts, so that there are `OTHERS` for each firing that was drawn."""
    silent_B = rows_V.sum() - np.asarray(sparse.csr_array(count_FV)[chosen].sum(1))
    return OTHERS * firings / np.maximum(silent_B, 1)


def _f1(hits: np.ndarray, all_hits: np.ndarray, said: np.ndarray, weight: np.ndarray, firings: int) -> np.ndarray:
    """2·hits / (tokens for which a rule holds, those on which the feature is silent by their weight, + firings)."""
    return 2 * hits / (hits + weight * np.maximum(said - all_hits, 0) + firings)
