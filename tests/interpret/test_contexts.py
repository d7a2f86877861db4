import numpy as np

from activations.store import Rows
from interpret.contexts import ContextReader

VOCABULARY = [chr(ord("a") + i) for i in range(26)]


def reader():
    # Document 0: positions 0–5 and, after a part that was not harvested, 8–9; document 1: positions 0–3.
    document = np.array([0] * 8 + [1] * 4)
    position = np.array([0, 1, 2, 3, 4, 5, 8, 9, 0, 1, 2, 3])
    return ContextReader(Rows(np.zeros((12, 1)), document, position, np.arange(12)), VOCABULARY, ["first", "second"])


def test_neighbours_in_the_document():
    assert reader().context(3, 2, 1) == ("bc", "d", "e", "first")


def test_not_over_gaps_documents_or_ends():
    assert reader().context(6, 5, 5) == ("", "g", "h", "first")
    assert reader().context(5, 2, 5) == ("de", "f", "", "first")
    assert reader().context(8, 5, 2) == ("", "i", "jk", "second")
    assert reader().context(11, 1, 5) == ("k", "l", "", "second")
    assert reader().context(0, 3, 0) == ("", "a", "", "first")
