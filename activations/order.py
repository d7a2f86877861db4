"""The order in which rows are seen: a place in it is one integer, so resuming needs no iterator state."""

import dataclasses
import functools

import numpy as np

KEPT = 128  # windows and epochs in memory: a batch lies in one or across two, and seeds may have orders of their own


@dataclasses.dataclass(frozen=True)
class ShuffledOrder:
    """An endless sequence that runs through rows 0 … size−1 once an epoch, each epoch in another order.

    Whole blocks of `block` neighbouring rows are shuffled, then the rows of every window of so shuffled blocks, so that what is
    read at a time from disk lies in few long pieces.  The order of an epoch depends on (`seed`, epoch) and the sizes alone.

    Attributes:
      size: rows, at least 1.
      seed: of the permutations.
      block: rows that stay together on disk.
      window: rows among which the order is uniform; 0 or at least `size`: all, and blocks mean nothing.
    """

    size: int
    seed: int
    block: int = 1
    window: int = 0

    def rows(self, start: int, count: int) -> np.ndarray:
        """Rows at places `start` … `start + count − 1`, (count,) int64."""
        window = self.window or self.size
        parts, place = [], start
        while place < start + count:
            epoch, within = divmod(place, self.size)
            index, offset = divmod(within, window)
            part = self._window(epoch, index)[offset : offset + start + count - place]
            parts.append(part)
            place += len(part)
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _window(self, epoch: int, index: int) -> np.ndarray:
        if not 0 < self.window < self.size:
            return _permutation(self.size, self.seed, epoch, -1)
        return _window(self, epoch, index)


@functools.lru_cache(maxsize=KEPT)
def _permutation(size: int, seed: int, epoch: int, window: int) -> np.ndarray:
    """A random order of an epoch (`window` −1) or of one of its windows."""
    key = (seed, epoch) if window < 0 else (seed, epoch, window + 1)  # a trailing 0 would give the epoch's own
    return np.random.default_rng(key).permutation(size)


@functools.lru_cache(maxsize=KEPT)
def _window(order: ShuffledOrder, epoch: int, index: int) -> np.ndarray:
    """Rows of one window in order: a slice of the shuffled blocks laid end to end (the file's last block may be short), shuffled."""
    n_blocks = -(-order.size // order.block)
    blocks = _permutation(n_blocks, order.seed, epoch, -1)
    short = order.block * n_blocks - order.size  # rows that the file's last block lacks
    behind_short = np.cumsum(blocks == n_blocks - 1)
    starts = np.arange(n_blocks + 1) * order.block - short * np.concatenate([[0], behind_short])
    first, last = index * order.window, min((index + 1) * order.window, order.size)
    a = np.searchsorted(starts, first, side="right") - 1
    b = np.searchsorted(starts, last, side="left")
    pieces = [np.arange(k * order.block, min((k + 1) * order.block, order.size)) for k in blocks[a:b]]
    rows = np.concatenate(pieces)[first - starts[a] : last - starts[a]]
    return rows[_permutation(len(rows), order.seed, epoch, index)]
