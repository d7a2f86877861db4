"""Documents cut into contexts of equal length, each position's place in its document kept."""

from typing import NamedTuple

import numpy as np

from activations.text.corpus import Documents
from activations.text.tokenizer import Tokenizer


class Contexts(NamedTuple):
    """N contexts of T tokens. Position 0 of each is the start token; padding follows a document's end (of an encoder, its end token).

    Attributes:
      tokens_NT: int32 token ids; the start token's id also pads.
      length_N: int32, positions filled, start token included and end token not (2 to T).
      document_N: int32, index into the list of documents that was tokenised.
      offset_N: int32, place in its document of the token at position 1.
    """

    tokens_NT: np.ndarray
    length_N: np.ndarray
    document_N: np.ndarray
    offset_N: np.ndarray


def make_contexts(documents: Documents, tokenizer: Tokenizer, context_length: int) -> Contexts:
    """Tokenises documents and cuts each into windows behind a start token, and before an end token where the tokenizer has one.

    Every token of every document appears exactly once.

    Raises:
      ValueError: a context too short for one token, or no text at all.
    """
    window = context_length - (1 if tokenizer.end is None else 2)
    if window < 1:
        raise ValueError(f"source.context_length is {context_length}: the tokens around the text and at least one of it are needed")
    ids = list(tokenizer.encode(d.text for d in documents))
    count = sum(-(-len(i) // window) for i in ids)
    if not count:
        raise ValueError("the corpus holds no text: nothing to cut into contexts")
    out = Contexts(np.full((count, context_length), tokenizer.start, np.int32), *(np.empty(count, np.int32) for _ in range(3)))
    row = 0
    for index, of_document in enumerate(ids):
        for offset in range(0, len(of_document), window):
            piece = of_document[offset : offset + window]
            out.tokens_NT[row, 1 : 1 + len(piece)] = piece
            if tokenizer.end is not None:
                out.tokens_NT[row, 1 + len(piece)] = tokenizer.end
            out.length_N[row], out.document_N[row], out.offset_N[row] = 1 + len(piece), index, offset
            row += 1
    return out


def contexts_of_rows(document_N: np.ndarray, position_N: np.ndarray, token_N: np.ndarray, context_length: int, start: int) -> Contexts:
    """The contexts of which rows were harvested, made again from the rows' places: whole, and in their order. Of a decoder, whose contexts have no end token.

    Args:
      document_N, position_N, token_N: of rows that follow one another in documents, position counted in the document.
      context_length: of the harvest, start token included.
      start: id of the start token.
    """
    first_N = row_contexts(document_N, position_N, context_length)[1]
    length = np.diff(np.append(first_N, len(token_N)))
    tokens = np.full((len(first_N), context_length), start, np.int32)
    place_N = np.arange(len(token_N)) - np.repeat(first_N, length)
    tokens[np.repeat(np.arange(len(first_N)), length), 1 + place_N] = token_N
    of = lambda values: np.asarray(values)[first_N].astype(np.int32)
    return Contexts(tokens, (length + 1).astype(np.int32), of(document_N), of(position_N))


def row_contexts(document_N: np.ndarray, position_N: np.ndarray, context_length: int) -> tuple[np.ndarray, np.ndarray]:
    """(of every row the index of its context, of every context its first row): windows of a document, in the order of the rows."""
    window_N = np.asarray(position_N) // max(1, context_length - 1)
    new_N = np.ones(len(window_N), bool)
    new_N[1:] = (np.diff(document_N) != 0) | (np.diff(window_N) != 0)
    return np.cumsum(new_N) - 1, np.flatnonzero(new_N)
