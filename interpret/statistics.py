"""What each feature of one SAE does on held-out tokens: how often, how strongly, where in a context, on which tokens; in one streaming pass.

Array names end in axes: N rows, B rows of a batch, F features, V vocabulary, H halves of the contexts (even and odd ones), T bins of positions,
C contexts, M sampled rows, Q 1 + `PARTS` ways to leave text out, E active entries of a batch (row by row).
"""

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse, special

from interpret.draws import Draws, Smallest, parts, splitmix64

PIECE = 2**21  # activations looked at together; nothing depends on it but speed and memory
PARTS = 5  # of the text, whose firings can be left out of what is drawn
Table = Any  # (F, V): an array, or one of scipy.sparse


class Places(NamedTuple):
    """What is known of N rows.

    Attributes:
      token_N: token ids, int.
      context_N: number of the context in which a row lies, int, never falling: rows of a context are consecutive.  Even and odd contexts are the two
        halves of a study, so documents in many pieces are better told apart by the document's number.
      position_N: place in the context, from 0.
    """

    token_N: np.ndarray
    context_N: np.ndarray
    position_N: np.ndarray


class Statistics(NamedTuple):
    """Of F features on N rows; NumPy.

    Attributes:
      rows: N.
      firings_F: rows on which the feature fires, int64.
      firing_rate_F: the same over N.
      mean_activation_F, std_activation_F: over the rows on which it fires; 0 where it never does.
      max_activation_F: over all rows.
      bin_start_T: first position of every bin: 0, 1, 2, 4, 8, …; a bin ends before the next.
      profile_FT: firing rate in a bin over the rate on all rows, 1 where position does not matter; NaN where it never fires or the bin has no rows.
      dispersion_F: Σ (n_c − r·l_c)² / Σ l_c·r(1 − r) over contexts, n_c firings in l_c rows, r the rate: 1 expected where every row fires by itself
        (less by the share of the rows that a context holds, since r is of the same rows), more where firings come in bursts, less where they keep
        apart.  NaN where it fires never or always.
      row_count_HV: rows of a token in a half, int64.
      count_HFV: firings on a token in a half, int32.
      mass_FV: Σ f on a token, both halves, float32.
      top_rows_FC, top_values_FC: the strongest row of each of the contexts with the strongest, descending, of equals the earlier; −1 and 0 where
        fewer fire.
      sample_rows_FM: uniform random sample without replacement of the rows of odd contexts on which the feature fires, in an order as random, so the
        first m are a sample of m; all of them where there are no more; then −1.  Features that fire on the same rows get the same sample.
      drawn_rows_QHFM: rows of equally many firings of every feature in each half, at random; first from the whole text, then without each of its `PARTS`,
        which changes that part's firings alone; −1 where there are fewer.
    """

    rows: int
    firings_F: np.ndarray
    firing_rate_F: np.ndarray
    mean_activation_F: np.ndarray
    std_activation_F: np.ndarray
    max_activation_F: np.ndarray
    bin_start_T: np.ndarray
    profile_FT: np.ndarray
    dispersion_F: np.ndarray
    row_count_HV: np.ndarray
    count_HFV: np.ndarray
    mass_FV: np.ndarray
    top_rows_FC: np.ndarray
    top_values_FC: np.ndarray
    sample_rows_FM: np.ndarray
    drawn_rows_QHFM: np.ndarray


class Accumulator:
    """Takes the activations of one SAE batch by batch; the result is the same however rows are cut into batches, bit for bit.

    Memory does not grow with N.  The tables over tokens take 12 bytes times features times vocabulary, so with 2^14 features and 50,000 tokens
    (9.8 GB) a caller looks at blocks of features, one accumulator and one pass each: at 1024 of them 0.6 GB.

    Args:
      places: of all rows that will come.
      features: the columns of the activations that are looked at, consecutive.
      vocabulary: number of token ids, V.
      contexts: how many contexts are kept in `top_rows_FC`.
      samples: how many rows are kept in `sample_rows_FM`.
      firings: how many are drawn of every feature in each half, `drawn_rows_QHFM`.
      salt: another one draws other samples.

    Raises:
      ValueError: places that are no such thing, or nothing asked for.
    """

    def __init__(
        self, places: Places, features: range, vocabulary: int, *, contexts: int = 20, samples: int = 50, firings: int = 25, salt: int = 0
    ):
        self._places = Places(*(np.asarray(a) for a in places))
        token_N, context_N, position_N = self._places
        n, f = len(token_N), len(features)
        if not n or not f or features.step != 1 or min(contexts, samples, firings) < 1:
            raise ValueError(f"{n} rows, {features}, {contexts} contexts, {samples} samples: at least one of each, features consecutive")
        if not n == len(context_N) == len(position_N):
            raise ValueError(f"{n} tokens, {len(context_N)} contexts and {len(position_N)} positions are not of the same rows")
        if token_N.min() < 0 or token_N.max() >= vocabulary or position_N.min() < 0 or (np.diff(context_N) < 0).any():
            raise ValueError("places need tokens of the vocabulary, positions from 0 and contexts in order")
        self._features, self._vocabulary, self._salt = features, vocabulary, salt
        self._seen = 0
        self._firings_F = np.zeros(f, np.int64)
        self._sum_F, self._square_F, self._max_F = np.zeros(f), np.zeros(f), np.zeros(f, np.float32)
        bins = int(_position_bin(position_N.max())) + 1
        self._bin_T, self._bin_FT = np.zeros(bins, np.int64), np.zeros((f, bins), np.int64)
        self._row_count_HV = np.zeros((2, vocabulary), np.int64)
        self._count_HFV, self._mass_FV = np.zeros((2, f, vocabulary), np.int32), np.zeros((f, vocabulary), np.float32)
        self._lengths = 0  # Σ l_c², and per feature Σ n_c² and Σ n_c·l_c: integers, of which dispersion is made
        self._counts_F, self._products_F = np.zeros(f, np.int64), np.zeros(f, np.int64)
        self._open: _Contexts | None = None  # the last context, of which more rows may come
        self._top = Smallest(f, contexts, np.zeros((), np.float32))
        self._sample = Smallest(f, samples, np.array(2**64 - 1, np.uint64))
        self._draws = tuple(Draws(f, firings, PARTS) for _ in range(2))

    def add(self, z_BF: np.ndarray, first: int) -> None:
        """Takes the rows from `first` on; of all features, of which the columns `features` are looked at; non-negative.

        Raises:
          ValueError: rows out of turn or too many, features that are missing, or activations that are negative or not finite.
        """
        if first != self._seen or first + len(z_BF) > len(self._places.token_N):
            raise ValueError(f"rows {first} to {first + len(z_BF)} do not follow {self._seen} of {len(self._places.token_N)}")
        if z_BF.shape[1] < self._features.stop:
            raise ValueError(f"{z_BF.shape[1]} features, where {self._features} are looked at")
        at_once = max(1, PIECE // len(self._features))
        for start in range(0, len(z_BF), at_once):
            self._add(np.ascontiguousarray(z_BF[start : start + at_once, self._features.start : self._features.stop], np.float32))

    def _add(self, z_BF: np.ndarray) -> None:
        b, f = z_BF.shape
        first, self._seen = self._seen, self._seen + b
        token_B, context_B, position_B = (a[first : first + b].astype(np.int64) for a in self._places)
        half_B, bin_B = context_B & 1, _position_bin(position_B)
        place_E = np.flatnonzero(z_BF != 0)  # of bools: several times as fast as np.nonzero of floats
        value_E = z_BF.reshape(-1)[place_E]
        if not ((value_E > 0) & np.isfinite(value_E)).all():
            raise ValueError(f"activations of rows {first} to {first + b} are negative or not finite")
        row_E, feature_E = np.divmod(place_E, f)

        # np.add.at adds one entry after the other, so that sums of floats do not depend on where batches end.
        self._firings_F += np.bincount(feature_E, minlength=f)
        wide_E = value_E.astype(np.float64)
        np.add.at(self._sum_F, feature_E, wide_E)
        np.add.at(self._square_F, feature_E, wide_E * wide_E)
        np.maximum.at(self._max_F, feature_E, value_E)
        bins = len(self._bin_T)
        self._bin_T += np.bincount(bin_B, minlength=bins)
        self._bin_FT += np.bincount(feature_E * bins + bin_B[row_E], minlength=f * bins).reshape(f, bins)
        np.add.at(self._row_count_HV, (half_B, token_B), 1)
        cell_E = feature_E * self._vocabulary + token_B[row_E]
        np.add.at(self._mass_FV.reshape(-1), cell_E, value_E)
        np.add.at(self._count_HFV.reshape(-1), half_B[row_E] * self._mass_FV.size + cell_E, np.int32(1))

        odd_E = half_B[row_E] == 1
        hash_B = splitmix64(np.arange(first, first + b), self._salt)
        self._sample.offer(feature_E[odd_E], hash_B[row_E[odd_E]], first + row_E[odd_E])
        part_B = parts(np.arange(first, first + b), len(self._places.token_N), PARTS)
        for half, draws in enumerate(self._draws):
            of_half_E = half_B[row_E] == half
            some_E = row_E[of_half_E]
            draws.offer(part_B[some_E], feature_E[of_half_E], hash_B[some_E], first + some_E)
        self._add_contexts(context_B, first, row_E, feature_E, value_E, f)

    def _add_contexts(
        self, context_B: np.ndarray, first: int, row_E: np.ndarray, feature_E: np.ndarray, value_E: np.ndarray, f: int
    ) -> None:
        begins_B = np.diff(context_B, prepend=context_B[0]) != 0
        local_B = np.cumsum(begins_B)
        c = int(local_B[-1]) + 1
        cell_E = local_B[row_E] * f + feature_E
        best_CF, row_CF = np.zeros(c * f, np.float32), np.full(c * f, np.iinfo(np.int64).max)
        np.maximum.at(best_CF, cell_E, value_E)
        best_E = value_E == best_CF[cell_E]
        np.minimum.at(row_CF, cell_E[best_E], first + row_E[best_E])
        count_CF = np.bincount(cell_E, minlength=c * f)
        new = _Contexts(int(context_B[-1]), np.bincount(local_B), *(a.reshape(c, f) for a in (count_CF, best_CF, row_CF)))
        if self._open is not None and self._open.last != context_B[0]:
            self._close(self._open)
        elif self._open is not None:
            new.length_C[0] += self._open.length_C[0]
            new.count_CF[0] += self._open.count_CF[0]
            earlier_F = self._open.value_CF[0] >= new.value_CF[0]
            for mine_CF, theirs_CF in ((new.value_CF, self._open.value_CF), (new.row_CF, self._open.row_CF)):
                mine_CF[0, earlier_F] = theirs_CF[0, earlier_F]
        self._close(_Contexts(new.last, *(a[:-1] for a in new[1:])))
        self._open = _Contexts(new.last, *(a[-1:].copy() for a in new[1:]))

    def _close(self, contexts: "_Contexts") -> None:
        self._lengths += int(np.square(contexts.length_C).sum())
        self._counts_F += np.square(contexts.count_CF).sum(axis=0)
        self._products_F += contexts.length_C @ contexts.count_CF
        # A later context of equal strength does not displace an earlier one.
        context_E, feature_E = np.nonzero(contexts.value_CF > -self._top.key_FM[:, -1])
        self._top.offer(feature_E, -contexts.value_CF[context_E, feature_E], contexts.row_CF[context_E, feature_E])

    def result(self) -> Statistics:
        """When all rows are in.

        Raises:
          ValueError: rows are missing.
        """
        n = len(self._places.token_N)
        if self._seen != n:
            raise ValueError(f"{self._seen} of {n} rows")
        if self._open is not None:
            self._close(self._open)
            self._open = None
        rate_F, some_F = self._firings_F / n, np.maximum(self._firings_F, 1)
        mean_F = self._sum_F / some_F
        with np.errstate(invalid="ignore", divide="ignore"):
            profile_FT = self._bin_FT / self._bin_T / rate_F[:, None]
            scatter_F = self._counts_F - 2 * rate_F * self._products_F + rate_F**2 * self._lengths
            dispersion_F = scatter_F / (n * rate_F * (1 - rate_F))
        return Statistics(
            rows=n,
            firings_F=self._firings_F.copy(),
            firing_rate_F=rate_F,
            mean_activation_F=mean_F,
            std_activation_F=np.sqrt(np.maximum(self._square_F / some_F - mean_F**2, 0.0)),
            max_activation_F=self._max_F.copy(),
            bin_start_T=np.concatenate([[0], 2 ** np.arange(len(self._bin_T) - 1)]).astype(np.int64),
            profile_FT=profile_FT,
            dispersion_F=np.where((self._firings_F > 0) & (self._firings_F < n), np.maximum(dispersion_F, 0.0), np.nan),
            row_count_HV=self._row_count_HV,
            count_HFV=self._count_HFV,
            mass_FV=self._mass_FV,
            top_rows_FC=self._top.row_FM.copy(),
            top_values_FC=np.abs(self._top.key_FM),
            sample_rows_FM=self._sample.row_FM.copy(),
            drawn_rows_QHFM=np.stack([[d.rows(excluded_part) for d in self._draws] for excluded_part in (None, *range(PARTS))]),
        )


class _Contexts(NamedTuple):
    """Consecutive contexts: the last one's number; lengths; firings, largest activation (0: none) and the first row that has it."""

    last: int
    length_C: np.ndarray
    count_CF: np.ndarray
    value_CF: np.ndarray
    row_CF: np.ndarray


def _position_bin(position: np.ndarray) -> np.ndarray:
    """0, 1, 2–3, 4–7, 8–15, …: how many binary digits the position has."""
    return np.frexp(np.asarray(position, np.float64))[1].astype(np.int64)


def token_entropy(count_FV: Table) -> np.ndarray:
    """(F,) entropy in nats of the distribution of tokens on which a feature fires, from firings by token; NaN where it never does.

    0: one token alone.  Few firings have a low entropy whatever they fire on: at most the logarithm of their number (`expected_entropy_of_random`).
    """
    table = sparse.csr_array(count_FV).astype(np.float64)
    firings_F = np.asarray(table.sum(axis=1))
    table.data = special.xlogy(table.data, table.data)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy_F = np.log(firings_F) - np.asarray(table.sum(axis=1)) / firings_F
    return np.where(firings_F > 0, np.maximum(entropy_F, 0.0), np.nan)


def expected_entropy_of_random(rng: np.random.Generator, firings_F: np.ndarray, row_count_V: np.ndarray, draws: int) -> np.ndarray:
    """(F,) what `token_entropy` is on average where a feature fires on as many random rows: its null; NaN where it never fires.

    Simulated for at most 64 numbers of firings, evenly spaced in their logarithm from the fewest to the most, and interpolated between linearly in the
    logarithm, in which the entropy is nearly straight (0 to ln V); every number is simulated where there are no more of them.

    Args:
      firings_F: numbers of firings.
      row_count_V: rows of every token; random rows are drawn from them without replacement.
      draws: random features for every number.

    Raises:
      ValueError: no draws, or more firings than rows.
    """
    firings_F = np.asarray(firings_F)
    if draws < 1 or firings_F.max(initial=0) > row_count_V.sum():
        raise ValueError(f"{draws} draws of up to {firings_F.max(initial=0)} among {row_count_V.sum()} rows")
    numbers = np.unique(firings_F[firings_F > 0])
    if not len(numbers):
        return np.full(len(firings_F), np.nan)
    if len(numbers) > 64:
        numbers = np.unique(np.rint(np.geomspace(numbers[0], numbers[-1], 64)).astype(np.int64))
    colours_V = row_count_V[row_count_V > 0].astype(np.int64)
    entropy = [token_entropy(rng.multivariate_hypergeometric(colours_V, int(n), size=draws, method="marginals")).mean() for n in numbers]
    return np.where(firings_F > 0, np.interp(np.log(np.maximum(firings_F, 1)), np.log(numbers), entropy), np.nan)
