"""The text around a row of an activation store."""

from typing import NamedTuple

from activations.store import Rows


class Context(NamedTuple):
    """A token with the text before and behind it, and its document. Plain text: escape it before showing it as HTML."""

    before: str
    token: str
    after: str
    document: str


class ContextReader:
    """Looks up contexts; rows of a store follow the documents' order, so neighbours in a document are neighbouring rows.

    Args:
      rows: of the store.
      vocabulary: text of every token id.
      documents: names by document index.
    """

    def __init__(self, rows: Rows, vocabulary: list[str], documents: list[str]):
        self._rows, self._vocabulary, self._documents = rows, vocabulary, documents

    def context(self, row: int, before: int, after: int) -> Context:
        """Up to `before` and `after` tokens on either side, not beyond the document or a part that was not harvested."""
        document = int(self._rows.document_N[row])
        start = row
        while start > 0 and row - start < before and self._follows(start):
            start -= 1
        end = row + 1
        while end < len(self._rows.token_N) and end - row - 1 < after and self._follows(end):
            end += 1
        return Context(self._text(start, row), self._text(row, row + 1), self._text(row + 1, end), self._documents[document])

    def _follows(self, row: int) -> bool:
        r = self._rows
        return bool(r.document_N[row] == r.document_N[row - 1] and r.position_N[row] == r.position_N[row - 1] + 1)

    def _text(self, start: int, end: int) -> str:
        return "".join(self._vocabulary[t] for t in self._rows.token_N[start:end])
