"""How far a feature's firing is a matter of the token's text: a deterministic score from three parts, each between 0 and 1.

The share of its activation on one token; how well the best rule on the token's text predicts where it fires, chosen on half of the contexts and
judged on the other (F1); and how little activation falls when the tokens of a context are put in random order.
"""

import json
import keyword
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

CELLS = 2**24  # of a block of features by predicates, most of which are empty
LONGEST, LONGEST_END = 4, 3  # characters of what a token contains, begins or ends with
Table = Any  # (F, V): an array, or one of scipy.sparse

# Each is asked of a token's whole text; a blank stands before words in many vocabularies.
CLASSES: dict[str, Callable[[str], Any]] = {
    name: re.compile(pattern).fullmatch
    for name, pattern in {
        "whitespace": r"\s+",
        "newline and indentation": r"\s*\n\s*",
        "punctuation": r"[^\w\s]+",
        "punctuation or whitespace": r"[^\w]+",
        "bracket": r"\s*[()\[\]{}]+",
        "digits": r"\s*\d+",
        "lower-case word": r" ?[a-z]+",
        "capitalised word": r" ?[A-Z][a-z]+",
        "UPPER CASE": r" ?[A-Z_]*[A-Z][A-Z_]*",
        "identifier": r" ?[A-Za-z_]\w*",
        "a piece within a word": r"[A-Za-z]+",
        "begins with a blank": r"(?s) .*",
        "one character": r"(?s).",
        "with an underscore": r"(?s).*_.*",
        "not ASCII": r"(?s).*[^\x00-\x7f].*",
    }.items()
} | {"Python keyword": lambda text: keyword.iskeyword(text.strip())}


class Predicates(NamedTuple):
    """Rules on a token's text, the simplest first.

    Attributes:
      names: of P rules, for people.
      holds_VP: for which tokens each holds.
    """

    names: list[str]
    holds_VP: sparse.csr_array

    @classmethod
    def from_vocabulary(cls, vocabulary: Sequence[str]) -> "Predicates":
        """Regular classes, every exact text, what begins or ends with up to 3 characters, what contains up to 4; of rules that hold for the same
        tokens the first is kept, and but for exact texts those that hold for one text alone are left out. A token of n characters is in about 4n + 6 of them."""
        tokens: dict[str, list[int]] = {}
        for place, text in enumerate(vocabulary):
            tokens.setdefault(text, []).append(place)
        classes = {name: [t for t in tokens if holds(t)] for name, holds in CLASSES.items()}
        exact = {f"is «{_shown(text)}»": [text] for text in tokens if text}
        parts: dict[str, list[str]] = {}
        for what in ("begins with", "ends with", "contains"):
            for text in tokens:
                for part in _parts(text, what):
                    parts.setdefault(f"{what} «{_shown(part)}»", []).append(text)
        several = lambda groups: {name: texts for name, texts in groups.items() if len(texts) > 1}
        columns: dict[tuple[str, ...], str] = {}  # the first name of every set of tokens
        for name, texts in (several(classes) | exact | several(parts)).items():
            columns.setdefault(tuple(texts), name)
        ids = [np.concatenate([tokens[text] for text in texts]) for texts in columns]
        at = (np.concatenate(ids), np.repeat(np.arange(len(ids)), [len(i) for i in ids])) if ids else (np.zeros(0, int), np.zeros(0, int))
        holds_VP = sparse.csr_array((np.ones(len(at[0])), at), shape=(len(vocabulary), len(ids)))
        return cls(list(columns.values()), holds_VP)


def _shown(text: str) -> str:
    """On one line, and told apart: line breaks and the like as in a program's text."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _parts(text: str, what: str) -> list[str]:
    """Each once, the longest first: of those that hold for the same tokens the longest says most."""
    if what == "begins with":
        return [text[:n] for n in range(min(LONGEST_END, len(text)), 0, -1)]
    if what == "ends with":
        return [text[-n:] for n in range(min(LONGEST_END, len(text)), 0, -1)]
    return list(dict.fromkeys(text[i : i + n] for n in range(LONGEST, 0, -1) for i in range(len(text) - n + 1)))


class Best(NamedTuple):
    """Of every feature.

    Attributes:
      index_F: place of the rule with the largest F1 where it was chosen; −1 where none has a hit there.
      f1_fit_F: its F1 there, 0 without one; NaN where the feature does not fire there.
      f1_F: its F1 on the other half; NaN where it could not be chosen, since the feature does not fire where it would be, and where that half is empty.
    """

    index_F: np.ndarray
    f1_fit_F: np.ndarray
    f1_F: np.ndarray


def best_predictor(fit_FV: Table, test_FV: Table, fit_V: np.ndarray, test_V: np.ndarray, predicates: Predicates) -> Best:
    """The rule that predicts firing best by F1 = 2·hits / (tokens for which it holds + firings), chosen on one half of the contexts.

    Args:
      fit_FV, test_FV: firings by token, of the half where it is chosen and of the other.
      fit_V, test_V: rows of every token there.
    """
    fit, test = (sparse.csr_array(table, dtype=np.float64) for table in (fit_FV, test_FV))
    f, p = fit.shape[0], len(predicates.names)
    said_P, said_test_P = fit_V @ predicates.holds_VP, test_V @ predicates.holds_VP
    firings_F, firings_test_F = np.asarray(fit.sum(1)), np.asarray(test.sum(1))
    index_F, f1_fit_F, f1_F = np.full(f, -1), np.zeros(f), np.zeros(f)
    block = max(1, CELLS // max(1, p))
    for first in range(0, f if p else 0, block):
        rows = slice(first, first + block)
        hits_BP = fit[rows] @ predicates.holds_VP  # rules without a hit have no entry
        hits_BP.sort_indices()
        of_row_N = np.repeat(np.arange(hits_BP.shape[0]), np.diff(hits_BP.indptr))
        f1_N = 2 * hits_BP.data / (said_P[hits_BP.indices] + firings_F[rows][of_row_N])
        hit_B = np.flatnonzero(np.diff(hits_BP.indptr))
        if len(hit_B):
            f1_fit_F[rows][hit_B] = np.maximum.reduceat(f1_N, hits_BP.indptr[hit_B])
        best_N = np.flatnonzero(f1_N == f1_fit_F[rows][of_row_N])[::-1]  # backwards, so that of equals the first rule is written last
        index_F[rows][of_row_N[best_N]] = hits_BP.indices[best_N]
    ruled_F = np.flatnonzero(index_F >= 0)
    if len(ruled_F):
        rule_F = index_F[ruled_F]
        hits_F = np.asarray(test[ruled_F].multiply(predicates.holds_VP.T.tocsr()[rule_F]).sum(1))
        with np.errstate(invalid="ignore", divide="ignore"):
            f1_F[ruled_F] = np.nan_to_num(2 * hits_F / (said_test_P[rule_F] + firings_test_F[ruled_F]))
    fires_F = firings_F > 0
    judged_F = fires_F & bool(np.sum(test_V))
    return Best(index_F, np.where(fires_F, f1_fit_F, np.nan), np.where(judged_F, f1_F, np.nan))


def null_counts(rng: np.random.Generator, firings_F: np.ndarray, token_probability_V: np.ndarray) -> sparse.csr_array:
    """(F, V) as many firings on random tokens: what the search finds where firing has nothing to do with the token."""
    firings_F = np.asarray(firings_F, np.int64)
    edges_V = np.cumsum(token_probability_V)
    token_N = np.searchsorted(edges_V / max(edges_V[-1], 1e-12), rng.random(int(firings_F.sum())), side="right").clip(0, len(edges_V) - 1)
    feature_N = np.repeat(np.arange(len(firings_F)), firings_F)
    return sparse.coo_array((np.ones(len(token_N)), (feature_N, token_N)), shape=(len(firings_F), len(edges_V))).tocsr()


def top_token(mass_FV: Table) -> tuple[np.ndarray, np.ndarray]:
    """(token_F with most of the activation, of equals the lower; its share_F); NaN where there is none."""
    if isinstance(mass_FV, np.ndarray):
        token_F, most_F = mass_FV.argmax(axis=1), mass_FV.max(axis=1)
    else:
        token_F, most_F = np.asarray(mass_FV.argmax(axis=1)).reshape(-1), mass_FV.max(axis=1).toarray().reshape(-1)
    total_F = np.asarray(mass_FV.sum(axis=1, dtype=np.float64)).reshape(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return token_F, most_F / total_F


def fall(original_F: np.ndarray, shuffled_F: np.ndarray) -> np.ndarray:
    """1 − Σ activation on the same tokens in shuffled contexts / Σ originally, between 0 and 1; NaN where there was none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(original_F > 0, np.clip(1 - shuffled_F / original_F, 0.0, 1.0), np.nan)


def score(top_share_F: np.ndarray, f1_F: np.ndarray, fall_F: np.ndarray | None) -> np.ndarray:
    """Mean of the top token's share, F1 and 1 − fall, of the first two where the fall is not known; NaN where a part is.

    1: the feature fires on one token, always, whatever surrounds it; 0: the text of the token says nothing of where it fires.
    """
    parts = [top_share_F, f1_F] + ([] if fall_F is None else [1.0 - fall_F])
    return np.mean(parts, axis=0)


def shuffled_contexts(tokens_NT: np.ndarray, length_N: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of every context from position 1 on in random order: a token keeps its text and the company of its context, and loses its place
    and what stood before it.

    Args:
      tokens_NT: contexts; position 0 is the start token.
      length_N: positions filled.

    Returns:
      (tokens_NT, place_NT): the shuffled contexts, and where the token of every position went.
    """
    position_T = np.arange(tokens_NT.shape[1])
    real_NT = (position_T > 0) & (position_T < length_N[:, None])
    key_NT = np.where(real_NT, rng.random(tokens_NT.shape), np.where(position_T == 0, -1.0, 1.0 + position_T))
    order_NT = np.argsort(key_NT, axis=1, kind="stable")  # of what stands at each position afterwards
    place_NT = np.argsort(order_NT, axis=1, kind="stable")
    return np.take_along_axis(tokens_NT, order_NT, axis=1), place_NT
