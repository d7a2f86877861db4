"""n-gram baselines for a language model: unigram, bigram, trigram with interpolated absolute discounting.

Ney, Essen & Kneser 1994: p(w|h) = max(c(h,w) − d, 0)/c(h) + d·(types after h)/c(h) · p(w|h′), h′ one token shorter; an
unseen history gives all its mass to h′, and below the unigram lies the uniform distribution.
"""

from collections.abc import Sequence

import numpy as np


class NgramModel:
    """Trained on token sequences, each taken to stand behind a start token.

    Args:
      sequences: int arrays of token ids.
      vocab_size: number of token ids.
      start: id of the start token.
      order: 1 to 3.
      discount: d, in (0, 1).
    """

    def __init__(self, sequences: Sequence[np.ndarray], vocab_size: int, start: int, order: int, discount: float):
        if not 1 <= order <= 3 or vocab_size**order >= 2**62:
            raise ValueError(f"order {order} with {vocab_size} tokens: 1 to 3, and codes must fit 62 bits")
        self._vocab_size, self._start, self._discount = vocab_size, start, discount
        self._levels = []
        for n in range(1, order + 1):
            codes = np.concatenate([self._codes(s, n) for s in sequences])
            grams, counts = np.unique(codes, return_counts=True)
            histories, first = np.unique(grams // vocab_size, return_index=True)
            totals = np.add.reduceat(counts, first)
            types = np.diff(np.append(first, len(grams)))
            self._levels.append((grams, counts, histories, totals, types))

    def nll(self, sequence: np.ndarray) -> np.ndarray:
        """Negative log-likelihood (nats) of every token of a sequence."""
        p = np.full(len(sequence), 1.0 / self._vocab_size)
        for n, (grams, counts, histories, totals, types) in enumerate(self._levels, start=1):
            codes = self._codes(sequence, n)
            count = _look_up(grams, counts, codes)
            total = _look_up(histories, totals, codes // self._vocab_size)
            kinds = _look_up(histories, types, codes // self._vocab_size)
            safe = np.maximum(total, 1)
            seen = np.maximum(count - self._discount, 0) / safe + self._discount * kinds / safe * p
            p = np.where(total > 0, seen, p)
        return -np.log(p)

    def _codes(self, sequence: np.ndarray, n: int) -> np.ndarray:
        """For every token one integer for it and the n−1 before it."""
        padded = np.concatenate([np.full(n - 1, self._start), sequence]).astype(np.int64)
        codes = np.zeros(len(sequence), np.int64)
        for i in range(n):
            codes = codes * self._vocab_size + padded[i : i + len(sequence)]
        return codes


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)
