"""Random firings of every feature of a stream, the same however the stream is cut, of which those in one part of the text can be left out.

Array names end in axes: N rows, E entries (row, feature) that fire, F features, P parts, M firings drawn.
"""

import numpy as np

NONE = -1  # where there are fewer rows than asked for


class Smallest:
    """Of all entries offered, the M with the smallest keys of every feature, ascending; rows come in order, and of equal keys the earlier stays.

    Args:
      worst: larger than any key that counts.
    """

    def __init__(self, features: int, most: int, worst: np.ndarray):
        self.key_FM, self.row_FM = np.full((features, most), worst), np.full((features, most), NONE, np.int64)
        self._worst = worst

    def offer(self, feature_E: np.ndarray, key_E: np.ndarray, row_E: np.ndarray) -> None:
        most = self.key_FM.shape[1]
        hope_E = np.flatnonzero(key_E < self.key_FM[feature_E, -1])
        order_E = hope_E[np.lexsort((key_E[hope_E], feature_E[hope_E]))]  # stable
        sorted_E = feature_E[order_E]
        rank_E = np.arange(len(order_E)) - np.searchsorted(sorted_E, sorted_E)
        order_E, rank_E = order_E[rank_E < most], rank_E[rank_E < most]
        touched, place_E = np.unique(feature_E[order_E], return_inverse=True)
        key, row = np.full((len(touched), most), self._worst), np.full((len(touched), most), NONE, np.int64)
        key[place_E, rank_E], row[place_E, rank_E] = key_E[order_E], row_E[order_E]
        both_key, both_row = np.concatenate([self.key_FM[touched], key], axis=1), np.concatenate([self.row_FM[touched], row], axis=1)
        best = np.argsort(both_key, axis=1, kind="stable")[:, :most]
        self.key_FM[touched], self.row_FM[touched] = np.take_along_axis(both_key, best, 1), np.take_along_axis(both_row, best, 1)


class Draws:
    """Of every feature M firings in each part, drawn uniformly without replacement: those whose keys are smallest."""

    def __init__(self, features: int, most: int, parts: int):
        self._of_part = [Smallest(features, most, np.array(2**64 - 1, np.uint64)) for _ in range(parts)]

    def offer(self, part_E: np.ndarray, feature_E: np.ndarray, key_E: np.ndarray, row_E: np.ndarray) -> None:
        """Firings, in the order of rows; keys from `splitmix64`."""
        for part in np.unique(part_E).tolist():
            here = part_E == part
            self._of_part[part].offer(feature_E[here], key_E[here], row_E[here])

    def rows(self, excluded_part: int | None = None) -> np.ndarray:
        """(F, M) rows of M firings of all parts but one, so that what is drawn with and without a part differs by that part's firings alone; NONE where there
        are fewer."""
        kept = [part for i, part in enumerate(self._of_part) if i != excluded_part]
        key, row = (np.concatenate([getattr(part, name) for part in kept], axis=1) for name in ("key_FM", "row_FM"))
        best = np.argsort(key, axis=1, kind="stable")[:, : self._of_part[0].key_FM.shape[1]]
        return np.asarray(np.take_along_axis(row, best, 1))


def splitmix64(row_N: np.ndarray, salt: int) -> np.ndarray:
    """The row-th number of the generator SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators") that is seeded
    with the salt; no two rows have the same."""
    z = np.uint64(salt % 2**64) + (row_N.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def parts(rows: np.ndarray, every: int, count: int) -> np.ndarray:
    """In which of `count` parts of consecutive rows each row lies, of `every`."""
    return np.asarray(rows * count // every)
