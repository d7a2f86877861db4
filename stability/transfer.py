"""Can unstable features be told from stable ones by their decoder rows, on seeds that took no part? With the baselines it must beat.

Stable rows recur in other seeds, so that a classifier may know them by heart. What it learns from and what it is judged on therefore have no seed in
common, neither as anchor nor as comparison, and no direction: features that are each other's best match, and all that hang together so, are held out whole.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stability import reappearance

ROWS, NEIGHBOUR, CROWDING, FREQUENCY, PREVALENCE = "decoder rows", "nearest neighbour", "crowding", "frequency", "prevalence"
BOTH = "frequency and crowding"
LEAST_LOG_RATE = -20.0  # of what never fires
PREDICTORS = (ROWS, NEIGHBOUR, CROWDING, FREQUENCY, BOTH, PREVALENCE)
BASELINES = (NEIGHBOUR, CROWDING, FREQUENCY, BOTH)
OF_TEXT = (FREQUENCY, BOTH)  # predictors that ask how often features fire


class Seeds(NamedTuple):
    """What is known of S seeds.

    Attributes:
      unit_SFD: unit decoder rows.
      hits_SSF: whether a feature of the first seed reappears in the second.
      among_SF: features that are classified (live ones).
      crowding_SF: mean cosine with the nearest in the own dictionary.
      log_rate_SF: logarithm of the firing rate; None where nothing is known of it.
      direction_SF: features with one number are one direction, found in several seeds (`directions`).
    """

    unit_SFD: np.ndarray
    hits_SSF: np.ndarray
    among_SF: np.ndarray
    crowding_SF: np.ndarray
    log_rate_SF: np.ndarray | None
    direction_SF: np.ndarray


class Labelled(NamedTuple):
    """Stable and unstable features of some seeds, labelled by these seeds alone; intermediate ones are left out.

    Attributes:
      rows_ND: unit decoder rows.
      crowding_N, log_rate_N: as of `Seeds`.
      unstable_N: bool.
      direction_N: as of `Seeds`.
    """

    rows_ND: np.ndarray
    crowding_N: np.ndarray
    log_rate_N: np.ndarray | None
    unstable_N: np.ndarray
    direction_N: np.ndarray

    def part(self, chosen_N: np.ndarray) -> "Labelled":
        return Labelled(*(None if values is None else values[chosen_N] for values in self))  # type: ignore[arg-type]

    def weight_N(self) -> np.ndarray:
        """Weights with which every direction counts once."""
        _, place_N, count = np.unique(self.direction_N, return_inverse=True, return_counts=True)
        return np.asarray(1.0 / count[place_N])


class Score(NamedTuple):
    """Of a predictor on features it has not seen.

    Attributes:
      f1: of the class unstable.
      auroc: area under the receiver operating curve; ½ by chance.
      auroc_R: the same with directions drawn with replacement, R times.
    """

    f1: float
    auroc: float
    auroc_R: np.ndarray


def directions(partner_SSF: np.ndarray, hits_SSF: np.ndarray) -> np.ndarray:
    """(S, F): a number for each direction. Two features of different seeds are of one if they are each other's best match at or above θ, and so are all that
    hang together by such pairs.

    Args:
      partner_SSF: (anchor, other, feature) → index of its best match in the other.
      hits_SSF: whether that match is at or above θ.
    """
    seeds, _, features = partner_SSF.shape
    here, there = [], []
    for a in range(seeds):
        for b in range(a + 1, seeds):
            back_F = partner_SSF[b, a][np.clip(partner_SSF[a, b], 0, features - 1)]
            mutual = np.flatnonzero(hits_SSF[a, b] & (partner_SSF[a, b] >= 0) & (back_F == np.arange(features)))
            here.append(a * features + mutual)
            there.append(b * features + partner_SSF[a, b][mutual])
    edges = (np.concatenate(here), np.concatenate(there)) if here else (np.empty(0, int), np.empty(0, int))
    graph = scipy.sparse.coo_array((np.ones(len(edges[0]), bool), edges), shape=(seeds * features,) * 2)
    return np.asarray(scipy.sparse.csgraph.connected_components(graph, directed=False)[1]).reshape(seeds, features)


def labelled(seeds: Seeds, places: Sequence[int], epsilon: float, most: int) -> Labelled:
    """The features of the seeds at `places`, each labelled in its comparisons with the others of them; of more than `most` an even part.

    Raises:
      ValueError: fewer than two seeds.
    """
    if len(places) < 2:
        raise ValueError(f"{len(places)} seed: labels need at least 2")
    used = np.asarray(places)
    counts_SF = seeds.hits_SSF[np.ix_(used, used)].sum(axis=1)
    labels_SF = reappearance.labels(counts_SF, len(used) - 1, epsilon)
    chosen_SF = seeds.among_SF[used] & (labels_SF != reappearance.INTERMEDIATE)
    chosen_SF[chosen_SF] = np.arange(chosen_SF.sum()) % max(1, -(-chosen_SF.sum() // most)) == 0
    pick = lambda values: values[used][chosen_SF]
    rate_N = None if seeds.log_rate_SF is None else pick(seeds.log_rate_SF)
    unstable_N = labels_SF[chosen_SF] == reappearance.UNSTABLE
    return Labelled(pick(seeds.unit_SFD), pick(seeds.crowding_SF), rate_N, unstable_N, pick(seeds.direction_SF))


def scores(train: Labelled, test: Labelled, folds: int, draws: int = 0, only: Sequence[str] = PREDICTORS) -> dict[str, Score]:
    """Of every predictor of `only` that has what it needs; {} where a side lacks a class, in a fold too.

    Directions are dealt into `folds`, stable and unstable ones evenly; each fold's features of `test` are judged by what was learned from the features of
    `train` outside it. A direction counts once however many features it has. Logistic regressions (L2, scikit-learn's default strength on standardised
    columns) call unstable what has a probability of at least ½; the nearest neighbour what is nearer to an unstable row than to any stable one, by how
    much being its score; prevalence calls everything unstable, which is what an F1 must be held against.

    Args:
      folds: 0: no direction is held out.
      draws: of directions with replacement.
    """
    if any(len(np.unique(side.unstable_N)) < 2 for side in (train, test)):
        return {}
    train_fold_N, test_fold_N = _folds(train, test, folds) if folds else (np.ones(len(train.unstable_N)), np.zeros(len(test.unstable_N)))
    calls: dict[str, np.ndarray] = {}
    areas: dict[str, list[np.ndarray]] = {}
    weight_N = test.weight_N()
    drawn_RN = np.vstack([weight_N, weight_N * _drawn(test.direction_N, draws)])
    for fold in range(max(1, folds)):
        known, asked_N = train.part(train_fold_N != fold), test_fold_N == fold
        if len(np.unique(known.unstable_N)) < 2 or not asked_N.any():
            return {}
        asked = test.part(asked_N)
        for name, (called_N, value_N) in _predictions(known, asked, only).items():
            calls.setdefault(name, np.zeros(len(asked_N), bool))[asked_N] = called_N
            areas.setdefault(name, []).append(weighted_auroc(asked.unstable_N, value_N, drawn_RN[:, asked_N]))
    out = {}
    for name in (n for n in PREDICTORS if n in calls):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Mean of empty slice")  # no fold with both classes
            auroc_R = np.nanmean(areas[name], axis=0)  # within folds: values of two folds come from two classifiers
        if np.isnan(auroc_R[0]):
            return {}
        out[name] = Score(float(f1_score(test.unstable_N, calls[name], sample_weight=weight_N)), float(auroc_R[0]), auroc_R[1:])
    return out


def _folds(train: Labelled, test: Labelled, folds: int) -> tuple[np.ndarray, np.ndarray]:
    """The fold of each feature of both: directions with an unstable feature and those without are dealt out evenly, in an order drawn by chance."""
    numbers = np.concatenate([train.direction_N, test.direction_N])
    unstable_N = np.concatenate([train.unstable_N, test.unstable_N])
    out = np.zeros(numbers.max() + 1, int)
    rng, with_unstable = np.random.default_rng(0), np.unique(numbers[unstable_N])
    for kind in (with_unstable, np.setdiff1d(numbers, with_unstable)):
        out[rng.permutation(kind)] = np.arange(len(kind)) % folds
    return out[train.direction_N], out[test.direction_N]


def _drawn(direction_N: np.ndarray, draws: int) -> np.ndarray:
    """(draws, N): how often each feature's direction is drawn; one direction's draws are the same in every call."""
    of_direction = lambda number: np.random.default_rng((1, number)).poisson(1.0, draws)
    numbers, place_N = np.unique(direction_N, return_inverse=True)
    return np.array([of_direction(number) for number in numbers.tolist()], np.float32).reshape(len(numbers), draws).T[:, place_N]


def _predictions(train: Labelled, test: Labelled, only: Sequence[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By predictor whether each feature of `test` is called unstable, and its score."""
    columns: dict[str, Callable[[Labelled], np.ndarray]] = {
        ROWS: lambda side: side.rows_ND,
        CROWDING: lambda side: side.crowding_N[:, None],
    }
    if train.log_rate_N is not None and test.log_rate_N is not None:
        columns[FREQUENCY] = lambda side: np.asarray(side.log_rate_N)[:, None]
        columns[BOTH] = lambda side: np.stack([np.asarray(side.log_rate_N), side.crowding_N], axis=1)
    out = {}
    for name, read in ((n, read) for n, read in columns.items() if n in only):
        p_N = _logistic(read(train), train.unstable_N, train.weight_N()).predict_proba(read(test))[:, 1]
        out[name] = (p_N >= 0.5, p_N)
    if NEIGHBOUR in only:
        near, far = (
            NearestNeighbors(n_neighbors=1).fit(train.rows_ND[chosen_N]).kneighbors(test.rows_ND)[0][:, 0]
            for chosen_N in (train.unstable_N, ~train.unstable_N)
        )
        out[NEIGHBOUR] = (near <= far, far - near)
    if PREVALENCE in only:
        everyone = np.ones(len(test.unstable_N))
        out[PREVALENCE] = (everyone > 0, everyone)
    return out


def _logistic(x_NC: np.ndarray, y_N: np.ndarray, weight_N: np.ndarray) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
        return model.fit(x_NC, y_N, logisticregression__sample_weight=weight_N)


def weighted_auroc(positive_N: np.ndarray, value_N: np.ndarray, weight_RN: np.ndarray) -> np.ndarray:
    """(R,): probability that a positive has a higher value than a negative, ties half, under each row of weights; NaN where a class has no weight."""
    order = np.argsort(value_N, kind="stable")
    first_G = np.flatnonzero(np.r_[True, np.diff(value_N[order]) > 0])
    in_groups = lambda chosen_N: np.add.reduceat(np.where(chosen_N, weight_RN, 0.0)[:, order], first_G, axis=1, dtype=np.float64)
    positive_RG, negative_RG = in_groups(positive_N), in_groups(~positive_N)
    below_RG = np.cumsum(negative_RG, axis=1) - negative_RG / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((positive_RG * below_RG).sum(1) / (positive_RG.sum(1) * negative_RG.sum(1)))


def splits(seeds: int, count: int) -> list[tuple[list[int], list[int]]]:
    """Disjoint halves of the seeds' places: those who are learned from, those who are judged; each split also the other way round."""
    out = []
    for draw in range(count):
        order = np.random.default_rng((seeds, draw)).permutation(seeds).tolist()
        one, other = sorted(order[: seeds // 2]), sorted(order[seeds // 2 :])
        out += [(one, other), (other, one)]
    return out


def between_halves(
    seeds: Seeds,
    epsilon: float,
    count: int,
    folds: int,
    most: int,
    excluded_seed: int | None = None,
    draws: int = 0,
    only: Sequence[str] = PREDICTORS,
) -> dict[str, Score]:
    """Mean score of every predictor of `only` over the splits, each half labelled by itself and of at most so many features; `excluded_seed`: left out, which
    leaves its half smaller."""
    found: dict[str, list[Score]] = {}
    for train, test in splits(len(seeds.hits_SSF), count):
        sides = [[place for place in side if place != excluded_seed] for side in (train, test)]
        if min(map(len, sides)) < 2:
            continue
        learned, judged = (labelled(seeds, side, epsilon, most) for side in sides)
        for name, score in scores(learned, judged, folds, draws, only).items():
            found.setdefault(name, []).append(score)
    mean = lambda values: sum(values) / len(values)
    return {
        name: Score(mean([s.f1 for s in several]), mean([s.auroc for s in several]), np.asarray(mean([s.auroc_R for s in several])))
        for name, several in found.items()
    }
