"""Can unstable features be told from stable ones by their decoder rows, on seeds that took no part? With the baselines it must beat.

Stable rows recur in other seeds, so that a classifier may know them by heart: what it learns from and what it is judged on have no seed in
common, neither as anchor nor as comparison.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stability import reappearance

ROWS, NEIGHBOUR, CROWDING, FREQUENCY, PREVALENCE = "decoder rows", "nearest neighbour", "crowding", "frequency", "prevalence"
LEAST_LOG_RATE = -20.0  # of what never fires
PREDICTORS = (ROWS, NEIGHBOUR, CROWDING, FREQUENCY, PREVALENCE)


class Seeds(NamedTuple):
    """What is known of S seeds.

    Attributes:
      unit_SFD: unit decoder rows.
      hits_SSF: whether a feature of the first seed reappears in the second.
      among_SF: features that are classified (live ones).
      crowding_SF: mean cosine with the nearest in the own dictionary.
      log_rate_SF: logarithm of the firing rate; None where nothing is known of it.
    """

    unit_SFD: np.ndarray
    hits_SSF: np.ndarray
    among_SF: np.ndarray
    crowding_SF: np.ndarray
    log_rate_SF: np.ndarray | None


class Labelled(NamedTuple):
    """Stable and unstable features of some seeds, labelled by these seeds alone; intermediate ones are left out.

    Attributes:
      rows_ND: unit decoder rows.
      crowding_N, log_rate_N: as of `Seeds`.
      unstable_N: bool.
    """

    rows_ND: np.ndarray
    crowding_N: np.ndarray
    log_rate_N: np.ndarray | None
    unstable_N: np.ndarray


class Score(NamedTuple):
    """Of a predictor on features it has not seen.

    Attributes:
      f1: of the class unstable.
      auroc: area under the receiver operating curve; ½ by chance.
    """

    f1: float
    auroc: float


def labelled(of: Seeds, places: Sequence[int], epsilon: float, most: int) -> Labelled:
    """The features of the seeds at `places`, each labelled in its comparisons with the others of them; of more than `most` an even part.

    Raises:
      ValueError: fewer than two seeds.
    """
    if len(places) < 2:
        raise ValueError(f"{len(places)} seed: labels need at least 2")
    at = np.asarray(places)
    counts_SF = of.hits_SSF[np.ix_(at, at)].sum(axis=1)
    labels_SF = reappearance.labels(counts_SF, len(at) - 1, epsilon)
    chosen_SF = of.among_SF[at] & (labels_SF != reappearance.INTERMEDIATE)
    chosen_SF[chosen_SF] = np.arange(chosen_SF.sum()) % max(1, -(-chosen_SF.sum() // most)) == 0
    of_chosen = lambda values: values[at][chosen_SF]
    rate_N = None if of.log_rate_SF is None else of_chosen(of.log_rate_SF)
    return Labelled(of_chosen(of.unit_SFD), of_chosen(of.crowding_SF), rate_N, labels_SF[chosen_SF] == reappearance.UNSTABLE)


def scores(train: Labelled, test: Labelled) -> dict[str, Score]:
    """Of every predictor that has what it needs; {} where a side lacks a class.

    Logistic regressions (L2, scikit-learn's default strength on standardised columns) call unstable what has a probability of at least ½; the nearest
    neighbour what is nearer to an unstable row than to any stable one, by how much being its score; prevalence calls everything unstable, which
    is what an F1 must be held against.
    """
    if any(len(np.unique(side.unstable_N)) < 2 for side in (train, test)):
        return {}
    columns: dict[str, Callable[[Labelled], np.ndarray]] = {
        ROWS: lambda side: side.rows_ND,
        CROWDING: lambda side: side.crowding_N[:, None],
    }
    if train.log_rate_N is not None and test.log_rate_N is not None:
        columns[FREQUENCY] = lambda side: np.asarray(side.log_rate_N)[:, None]
    found = {name: _score(_logistic(of(train), train.unstable_N), of(test), test.unstable_N) for name, of in columns.items()}
    near, far = (
        NearestNeighbors(n_neighbors=1).fit(train.rows_ND[of]).kneighbors(test.rows_ND)[0][:, 0]
        for of in (train.unstable_N, ~train.unstable_N)
    )
    found[NEIGHBOUR] = Score(float(f1_score(test.unstable_N, near <= far)), float(roc_auc_score(test.unstable_N, far - near)))
    found[PREVALENCE] = Score(float(f1_score(test.unstable_N, np.ones(len(test.unstable_N), bool))), 0.5)
    return {name: found[name] for name in PREDICTORS if name in found}


def _logistic(x_NC: np.ndarray, y_N: np.ndarray) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(x_NC, y_N)


def _score(model: Any, x_NC: np.ndarray, y_N: np.ndarray) -> Score:
    p_N = model.predict_proba(x_NC)[:, 1]
    return Score(float(f1_score(y_N, p_N >= 0.5)), float(roc_auc_score(y_N, p_N)))


def splits(seeds: int, count: int) -> list[tuple[list[int], list[int]]]:
    """Disjoint halves of the seeds' places: those who are learned from, those who are judged; each split also the other way round."""
    out = []
    for draw in range(count):
        order = np.random.default_rng((seeds, draw)).permutation(seeds).tolist()
        one, other = sorted(order[: seeds // 2]), sorted(order[seeds // 2 :])
        out += [(one, other), (other, one)]
    return out


def between_halves(of: Seeds, epsilon: float, count: int, most: int, excluded_seed: int | None = None) -> dict[str, Score]:
    """Mean score of every predictor over the splits, each half labelled by itself and of at most so many features; `excluded_seed`: left out, which
    leaves its half smaller."""
    found: dict[str, list[Score]] = {}
    for train, test in splits(len(of.hits_SSF), count):
        sides = [[place for place in side if place != excluded_seed] for side in (train, test)]
        if min(map(len, sides)) < 2:
            continue
        for name, score in scores(*(labelled(of, side, epsilon, most) for side in sides)).items():
            found.setdefault(name, []).append(score)
    return {name: Score(*np.mean(of_name, axis=0).tolist()) for name, of_name in found.items()}
