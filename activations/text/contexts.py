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
