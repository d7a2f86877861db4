"""Documents cut into contexts of equal length, each position's place in its document kept."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tokenizers

from activations.corpus import Document
from activations.tokenizer import END_OF_TEXT


class Contexts(NamedTuple):
    """N contexts of T tokens. Position 0 of each is the start token; padding follows a document's end.

    Attributes:
      tokens_NT: int32 token ids; the start token's id also pads.
      length_N: int32, positions filled, start token included (2 to T).
      document_N: int32, index into the list of documents that was tokenised.
      offset_N: int32, place in its document of the token at position 1.
    """

    tokens_NT: np.ndarray
    length_N: np.ndarray
    document_N: np.ndarray
    offset_N: np.ndarray


def make_contexts(documents: Sequence[Document], tokenizer: tokenizers.Tokenizer, context_length: int) -> Contexts:
    """Tokenises documents and cuts each into windows of `context_length - 1` tokens behind a start token.

    Every token of every document appears exactly once.

    Raises:
      ValueError: a context too short for one token, or no text at all.
    """
    if context_length < 2:
        raise ValueError(f"source.context_length is {context_length}: a start token and at least one token are needed")
    start = tokenizer.token_to_id(END_OF_TEXT)
    window = context_length - 1
    rows: list[np.ndarray] = []
    lengths: list[int] = []
    places: list[tuple[int, int]] = []
    encodings = tokenizer.encode_batch([d.text for d in documents], add_special_tokens=False)
    for index, encoding in enumerate(encodings):
        ids = np.asarray(encoding.ids, np.int32)
        for offset in range(0, len(ids), window):
            piece = ids[offset : offset + window]
            row = np.full(context_length, start, np.int32)
            row[1 : 1 + len(piece)] = piece
            rows.append(row)
            lengths.append(1 + len(piece))
            places.append((index, offset))
    if not rows:
        raise ValueError("the corpus holds no text: nothing to cut into contexts")
    document, offset_ = np.asarray(places, np.int32).T
    return Contexts(np.stack(rows), np.asarray(lengths, np.int32), document, offset_)
