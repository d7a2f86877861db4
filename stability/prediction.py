"""How probable it is that a feature of a new SAE reappears, predicted from a bank of SAEs of the same model and layer, with its calibration.

A feature's share of bank SAEs in which it has a match is an estimate of its own, but a coarse one where the bank is small.  The prediction
learns from the bank how that share, how near the best matches are, what is known of them, and how crowded the feature is go together with
reappearing in SAEs that were not looked at.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

BINS = 10


class Bank(NamedTuple):
    """S SAEs of one model and layer.

    Attributes:
      cosine_SSF, partner_SSF: best signed cosine of a feature of the first SAE in the second, and whose; NaN and −1 on the diagonal.
      crowding_SF: mean cosine with the nearest in the own dictionary.
    """

    cosine_SSF: np.ndarray
    partner_SSF: np.ndarray
    crowding_SF: np.ndarray


class Calibration(NamedTuple):
    """Of predictions for SAEs that were left out one at a time.

    Attributes:
      predicted_T, observed_T, features_T: mean prediction and share that reappeared in each of ten bins of equally many.
      brier: mean squared error of the prediction against each comparison's outcome, and of what it must beat: the share in the reference
        SAEs, and the mean of all.
      error: expected calibration error, the mean over bins of |predicted − observed|.
    """

    predicted_T: np.ndarray
    observed_T: np.ndarray
    features_T: np.ndarray
    brier: float
    brier_of_share: float
    brier_of_mean: float
    error: float


class Model(NamedTuple):
    """A fitted prediction.

    Attributes:
      fitted: scikit-learn's.
      reference: SAEs that a feature is looked for in.
      theta: cosine from which it is found.
    """

    fitted: Any
    reference: int
    theta: float


def fit(bank: Bank, theta: float, places: Sequence[int] | None = None) -> Model:
    """Learns from the SAEs at `places` (None: all): each in turn is the new one, half of the others are looked at, the rest say what is true.

    Raises:
      ValueError: fewer than three SAEs, or nothing that reappears, or all.
    """
    places = list(range(len(bank.cosine_SSF)) if places is None else places)
    if len(places) < 3:
        raise ValueError(f"a bank of {len(places)} SAEs: at least 3 are needed, one anew, one to look at, one to tell what is true")
    reference = (len(places) - 1) // 2
    x, hits, trials = [], [], []
    for anchor in places:
        for looked_at, rest in _cuts(places, anchor, reference):
            x.append(_columns(bank, anchor, looked_at, theta))
            hits.append((bank.cosine_SSF[anchor, rest] >= theta).sum(axis=0))
            trials.append(np.full(len(hits[-1]), len(rest)))
    x_NC, hits_N, trials_N = np.concatenate(x), np.concatenate(hits), np.concatenate(trials)
    if not 0 < hits_N.sum() < trials_N.sum():
        raise ValueError("in the bank every feature reappears everywhere, or none anywhere: nothing to learn from")
    outcome_N = np.repeat([1, 0], len(x_NC))  # a feature counts with its hits as found, with its misses as not found
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    weight_N = np.concatenate([hits_N, trials_N - hits_N])
    model.fit(np.concatenate([x_NC, x_NC]), outcome_N, logisticregression__sample_weight=weight_N)
    return Model(model, reference, theta)


def predict(model: Model, bank: Bank, cosine_SF: np.ndarray, partner_SF: np.ndarray, crowding_F: np.ndarray) -> np.ndarray:
    """p̂ of every feature (F,) of an SAE that is not in the bank: the mean over cuts of the bank into as many SAEs as the model looks at.

    Args:
      cosine_SF, partner_SF: its best matches in every SAE of the bank.
      crowding_F: as of `Bank`.
    """
    s = len(cosine_SF)
    cuts = [looked_at for looked_at, _ in _cuts(list(range(s)), None, min(model.reference, s))]
    of_cut = [_of_matches(bank, cosine_SF, partner_SF, crowding_F, looked_at, model.theta) for looked_at in cuts]
    return np.mean([model.fitted.predict_proba(x)[:, 1] for x in of_cut], axis=0)


def calibrate(bank: Bank, theta: float, among_SF: np.ndarray) -> Calibration:
    """Leaves every SAE out in turn, learns from the others, and holds its predictions against SAEs it did not look at.

    Of the others a half is looked at, and the rest tell the truth; the model was fitted among all of them, without the one left out.

    Args:
      among_SF: features that count (live ones).

    Raises:
      ValueError: fewer than four SAEs.
    """
    s = len(bank.cosine_SSF)
    if s < 4:
        raise ValueError(f"a bank of {s} SAEs: at least 4 are needed to tell how good predictions are")
    predicted, share, outcome, trials = [], [], [], []
    for anchor in range(s):
        others = [place for place in range(s) if place != anchor]
        model = fit(bank, theta, others)
        for looked_at, rest in _cuts(others, None, model.reference):
            chosen = among_SF[anchor]
            predicted.append(model.fitted.predict_proba(_columns(bank, anchor, looked_at, theta))[chosen, 1])
            share.append((bank.cosine_SSF[anchor, looked_at] >= theta).mean(axis=0)[chosen])
            outcome.append((bank.cosine_SSF[anchor, rest] >= theta).sum(axis=0)[chosen])
            trials.append(np.full(chosen.sum(), len(rest)))
    p_N, share_N, hits_N, trials_N = (np.concatenate(a) for a in (predicted, share, outcome, trials))
    mean = hits_N.sum() / trials_N.sum()
    brier = lambda guess_N: float((hits_N * (1 - guess_N) ** 2 + (trials_N - hits_N) * guess_N**2).sum() / trials_N.sum())
    bins = np.array_split(np.argsort(p_N, kind="stable"), BINS)
    bins = [b for b in bins if len(b)]
    predicted_T = np.array([p_N[b].mean() for b in bins])
    observed_T = np.array([hits_N[b].sum() / trials_N[b].sum() for b in bins])
    features_T = np.array([len(b) for b in bins])
    error = float(np.sum(features_T * np.abs(predicted_T - observed_T)) / features_T.sum())
    return Calibration(predicted_T, observed_T, features_T, brier(p_N), brier(share_N), brier(np.full(len(p_N), mean)), error)


def _cuts(places: list[int], anchor: int | None, size: int) -> list[tuple[list[int], list[int]]]:
    """(SAEs that are looked at, the rest) of those that are not the anchor: a ring, so that each is looked at equally often."""
    others = [place for place in places if place != anchor]
    return [
        (looked_at, [place for place in others if place not in looked_at])
        for start in range(len(others))
        for looked_at in [[others[(start + step) % len(others)] for step in range(size)]]
    ]


def _columns(bank: Bank, anchor: int, looked_at: list[int], theta: float) -> np.ndarray:
    return _of_matches(bank, bank.cosine_SSF[anchor], bank.partner_SSF[anchor], bank.crowding_SF[anchor], looked_at, theta)


def _of_matches(
    bank: Bank, cosine_SF: np.ndarray, partner_SF: np.ndarray, crowding_F: np.ndarray, looked_at: list[int], theta: float
) -> np.ndarray:
    """What is known of every feature (F, C): share found; mean, least and best cosine; how often its partners are found among those looked at; crowding."""
    cosine_RF = cosine_SF[looked_at]
    partners = []
    for place in looked_at:
        others = [other for other in looked_at if other != place]
        found_F = (bank.cosine_SSF[place, others] >= theta).mean(axis=0) if others else np.zeros(bank.cosine_SSF.shape[-1])
        partners.append(found_F[partner_SF[place]])
    columns = [(cosine_RF >= theta).mean(0), cosine_RF.mean(0), cosine_RF.min(0), cosine_RF.max(0), np.mean(partners, 0), crowding_F]
    return np.stack(columns, axis=1)
