"""How probable it is that a feature of a new SAE reappears, predicted from reference SAEs of the same model and layer, with its calibration.

A feature's share of reference SAEs in which it has a match is an estimate of its own, but a coarse one where these are few.  The prediction
learns from the reference SAEs how that share, how near the best matches are, what is known of them, and how crowded the feature is go together with
reappearing in an SAE that was not looked at.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stability.similarity import reaches

BINS = 10


class References(NamedTuple):
    """S SAEs of one model and layer.

    Attributes:
      cosine_SSF, partner_SSF: best signed cosine of a feature of the first SAE in the second, and whose; NaN and −1 on the diagonal.
      crowding_SF: mean cosine with the nearest in the own dictionary.
    """

    cosine_SSF: np.ndarray
    partner_SSF: np.ndarray
    crowding_SF: np.ndarray


class NothingToLearn(ValueError):
    """Reference SAEs in which every feature reappears everywhere, or none anywhere, or in which there are no features."""


class Calibration(NamedTuple):
    """Of predictions for SAEs that were left out, each asked about one SAE that was not looked at.

    Attributes:
      predicted_T, observed_T, features_T: mean prediction and share that reappeared in each of ten bins of equally many.
      brier: mean squared error of the prediction against each comparison's outcome, and of what it must beat: the share of the SAEs looked at in
        which the feature is found, and the mean of all.
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


def fit(references: References, theta: float, among_SF: np.ndarray, places: Sequence[int] | None = None) -> Model:
    """Learns from the SAEs at `places` (None: all): each in turn is the new one, all others but one are looked at, and that one says what is true.

    Args:
      among_SF: features that are learned from (live ones).

    Raises:
      ValueError: fewer than three SAEs.
      NothingToLearn: nothing reappears, or all.
    """
    places = list(range(len(references.cosine_SSF)) if places is None else places)
    if len(places) < 3:
        raise ValueError(f"{len(places)} reference SAEs: at least 3 are needed, one anew, one to look at, one to tell what is true")
    reference = len(places) - 2
    x, found = [], []
    for anchor in places:
        others = [place for place in places if place != anchor]
        for looked_at in _cuts(others, reference):
            (told_by,) = (place for place in others if place not in looked_at)
            x.append(_of_matches(references, *_matches(references, anchor), looked_at, theta)[among_SF[anchor]])
            found.append(reaches(references.cosine_SSF[anchor, told_by], theta)[among_SF[anchor]])
    x_NC, found_N = np.concatenate(x), np.concatenate(found)
    if len(np.unique(found_N)) < 2:
        raise NothingToLearn("in the reference SAEs every live feature reappears everywhere, or none anywhere: nothing to learn from")
    return Model(make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(x_NC, found_N), reference, theta)


def predict(
    model: Model,
    references: References,
    cosine_SF: np.ndarray,
    partner_SF: np.ndarray,
    crowding_F: np.ndarray,
    places: Sequence[int] | None = None,
) -> np.ndarray:
    """p̂ of every feature (F,) of a query SAE: the mean over cuts of the reference SAEs into as many as the model looks at.

    Args:
      cosine_SF, partner_SF: its best matches in every reference SAE.
      crowding_F: as of `References`.
      places: reference SAEs that are looked at; None: all.
    """
    places = list(range(len(cosine_SF)) if places is None else places)
    cuts = _cuts(places, min(model.reference, len(places)))
    of_cut = [_of_matches(references, cosine_SF, partner_SF, crowding_F, looked_at, model.theta) for looked_at in cuts]
    return np.mean([model.fitted.predict_proba(x)[:, 1] for x in of_cut], axis=0)


def calibrate(references: References, theta: float, among_SF: np.ndarray) -> Calibration:
    """What `predict` is worth: every SAE is left out in turn, a model fitted among the others, and its predictions from all of them but one held against
    that one.

    Args:
      among_SF: features that count (live ones).

    Raises:
      ValueError: fewer than four SAEs.
      NothingToLearn: as of `fit`, with any one reference SAE left out.
    """
    s = len(references.cosine_SSF)
    if s < 4:
        raise ValueError(f"{s} reference SAEs: at least 4 are needed to tell how good predictions are")
    predicted, share, found = [], [], []
    for anchor in range(s):
        others, chosen = [place for place in range(s) if place != anchor], among_SF[anchor]
        model = fit(references, theta, among_SF, others)
        for told_by in others:
            looked_at = [place for place in others if place != told_by]
            predicted.append(predict(model, references, *_matches(references, anchor, chosen), looked_at))
            share.append(reaches(references.cosine_SSF[anchor, looked_at], theta).mean(axis=0)[chosen])
            found.append(reaches(references.cosine_SSF[anchor, told_by], theta)[chosen])
    p_N, share_N, found_N = (np.concatenate(a) for a in (predicted, share, found))
    brier = lambda guess_N: float(np.mean((guess_N - found_N) ** 2))
    bins = [b for b in np.array_split(np.argsort(p_N, kind="stable"), BINS) if len(b)]
    predicted_T = np.array([p_N[b].mean() for b in bins])
    observed_T = np.array([found_N[b].mean() for b in bins])
    features_T = np.array([len(b) for b in bins])
    error = float(np.sum(features_T * np.abs(predicted_T - observed_T)) / features_T.sum())
    return Calibration(predicted_T, observed_T, features_T, brier(p_N), brier(share_N), brier(found_N.mean()), error)


def _cuts(places: list[int], size: int) -> list[list[int]]:
    """SAEs that are looked at, in a ring, so that each is looked at equally often; one cut if it is all of them."""
    if size == len(places):
        return [places]
    return [[places[(start + step) % len(places)] for step in range(size)] for start in range(len(places))]


def _matches(references: References, anchor: int, chosen: np.ndarray | slice = slice(None)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of features of a reference SAE: best cosines and partners in all others, crowding."""
    return references.cosine_SSF[anchor][:, chosen], references.partner_SSF[anchor][:, chosen], references.crowding_SF[anchor][chosen]


def _of_matches(
    references: References, cosine_SF: np.ndarray, partner_SF: np.ndarray, crowding_F: np.ndarray, looked_at: list[int], theta: float
) -> np.ndarray:
    """What is known of every feature (F, C): share found; mean, least and best cosine; how often its partners are found among those looked at; crowding."""
    cosine_RF = cosine_SF[looked_at]
    partners = []
    for place in looked_at:
        others = [other for other in looked_at if other != place]
        found_F = reaches(references.cosine_SSF[place, others], theta).mean(axis=0) if others else np.zeros(references.cosine_SSF.shape[-1])
        partners.append(found_F[partner_SF[place]])
    columns = [reaches(cosine_RF, theta).mean(0), cosine_RF.mean(0), cosine_RF.min(0), cosine_RF.max(0), np.mean(partners, 0), crowding_F]
    return np.stack(columns, axis=1)
