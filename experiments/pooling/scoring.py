"""Dictionaries judged by SAEs that had no part in them: what of theirs reappears there, and what they explain."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.fields import config, field
from runtime import progress
from saes import assembly, spread
from saes.dictionary import Dictionary, left_over
from saes.evaluation import evaluate_each
from stability import matching, pooling, reappearance, similarity

COPY = 0.95  # cosine from which two features of one SAE are the same feature
STEP = 128  # features; sizes are filled up to a multiple of so many, so that few programs are compiled


@config("pool")
class Scoring:
    """On what pools are judged; they themselves do not depend on it."""

    eval_rows: int = field(default=32_768, doc="held-out tokens on which all are judged", gt=0)
    predictions: int = field(
        default=4096, doc="held-out rows, about, on which predictions with reconstructions spliced in are compared; 0: none", ge=0
    )


class DictionaryScore(NamedTuple):
    """A dictionary of M features beside G SAEs that judge it.

    Attributes:
      identity: of the rows and of which of them live: by it figures are kept.
      unit_MD: unit decoder rows.
      live_M: features that fire often enough on the held-out rows; the others are in no figure of reappearance.
      rate_M: firing rate there.
      hits_GM: whether a feature reappears in an SAE that judges.
      explained: explained variance.
      l0: active features a token.
      dead: share of the features that never fire.
    """

    identity: int
    unit_MD: np.ndarray
    live_M: np.ndarray
    rate_M: np.ndarray
    hits_GM: np.ndarray
    explained: float
    l0: float
    dead: float

    @property
    def features(self) -> int:
        return len(self.live_M)


def judge(
    dictionaries: Sequence[Dictionary], judges: Sequence[np.ndarray], rows_ND: np.ndarray, theta: float, rare: int
) -> list[DictionaryScore]:
    """All of them.

    Args:
      judges: unit decoder rows of each SAE that judges.
      rows_ND: held-out tokens.
      theta: cosine from which a feature reappears.
      rare: firings from which a feature is live.
    """
    sizes = [d.w_dec_FD.shape[0] for d in dictionaries]
    filled = [assembly.padded(d, -(-size // STEP) * STEP) for d, size in zip(dictionaries, sizes, strict=True)]
    evaluation = evaluate_each(filled, lambda: progress.batches(rows_ND, "pooled"), 1)
    out = []
    for i, (d, size) in enumerate(zip(dictionaries, sizes, strict=True)):
        unit_MD = np.asarray(similarity.unit_rows(d.w_dec_FD))
        firings_M = evaluation.firings_SF[i, :size]
        hits_GM = np.stack([_reappears(unit_MD, judge_FD, theta) for judge_FD in judges])
        live_M = reappearance.strata(firings_M, rare) == reappearance.LIVE
        out.append(
            DictionaryScore(
                _identity(unit_MD, live_M),
                unit_MD,
                live_M,
                firings_M / evaluation.rows,
                hits_GM,
                float(evaluation.explained_variance_S[i]),
                float(evaluation.l0_S[i]),
                float((firings_M == 0).mean()),
            )
        )
    return out


def with_rows(score: DictionaryScore, rows_MD: np.ndarray, judges: Sequence[np.ndarray], theta: float) -> DictionaryScore:
    """The same with other decoder rows: what of these reappears."""
    unit_MD = np.asarray(similarity.unit_rows(rows_MD))
    return score._replace(
        identity=_identity(unit_MD, score.live_M), unit_MD=unit_MD, hits_GM=np.stack([_reappears(unit_MD, u, theta) for u in judges])
    )


def _identity(unit_MD: np.ndarray, live_M: np.ndarray) -> int:
    return int.from_bytes(hashlib.sha256(unit_MD.tobytes() + live_M.tobytes()).digest()[:8])


def _reappears(unit_MD: np.ndarray, other_FD: np.ndarray, theta: float) -> np.ndarray:
    """(M,); rows are filled up, since every size would be compiled anew."""
    m = len(unit_MD)
    fill = lambda rows: np.pad(rows, ((0, -len(rows) % STEP), (0, 0)))
    match = similarity.best_match(jnp.asarray(fill(unit_MD)), jnp.asarray(fill(other_FD)))[0]
    result: np.ndarray = similarity.reaches(np.asarray(match.cosine)[:m], theta)
    return result


def overlap(one: DictionaryScore, other: DictionaryScore, theta: float) -> float:
    """Share of live features of either that the other has too, mean of both directions; NaN where one has none."""
    return (share_in(one, other, theta) + share_in(other, one, theta)) / 2


def share_in(one: DictionaryScore, other: DictionaryScore, theta: float) -> float:
    """Share of live features of one that the other has too, among its live ones; NaN where either has none."""
    a, b = one.unit_MD[one.live_M], other.unit_MD[other.live_M]
    return float(_reappears(a, b, theta).mean()) if len(a) and len(b) else float("nan")


def shared(one: DictionaryScore, other: DictionaryScore, theta: float, n_features: int) -> float:
    """Share of all features of either that the other has too, matched one-to-one; mean of both directions.

    What an SAE gains by killing or merging features counts for nothing: 0 are those that never fire, all but one of those that are copies of each
    other (`COPY`), and those that an SAE has fewer than `n_features`.
    """
    a, b = _different_rows(one), _different_rows(other)
    if not len(a) or not len(b):
        return 0.0
    pairs = int(similarity.reaches(matching.one_to_one(a, b).cosine_F, theta).sum())
    return (pairs / max(one.features, n_features) + pairs / max(other.features, n_features)) / 2


def _different_rows(score: DictionaryScore) -> np.ndarray:
    """Decoder rows of the features that fire; of copies the one that fires most often."""
    order_M = np.argsort(-score.rate_M, kind="stable")
    order_M = order_M[score.rate_M[order_M] > 0]
    if not len(order_M):
        return score.unit_MD[:0]
    rows: np.ndarray = score.unit_MD[pooling.pool(score.unit_MD, order_M, COPY, len(order_M)).leader_M]
    return rows


def bag(scores: Sequence[DictionaryScore], explained: float) -> DictionaryScore:
    """SAEs side by side, whose reconstructions are averaged."""
    join = lambda name, axis=0: np.concatenate([getattr(j, name) for j in scores], axis=axis)
    dead = float(np.average([j.dead for j in scores], weights=[j.features for j in scores]))
    unit_MD, live_M = join("unit_MD"), join("live_M")
    l0 = sum(j.l0 for j in scores)
    return DictionaryScore(_identity(unit_MD, live_M), unit_MD, live_M, join("rate_M"), join("hits_GM", 1), explained, l0, dead)


def explained_by_means(dictionaries: Sequence[Dictionary], rows_ND: np.ndarray) -> tuple[float, list[float]]:
    """Explained variance of the mean reconstruction of all, and of all but each."""
    on_device = jax.device_put(list(dictionaries))
    n, errors = len(dictionaries), np.zeros(len(dictionaries) + 1)
    for first in range(0, len(rows_ND), progress.BATCH):
        progress.look_for_signals()
        x = rows_ND[first : first + progress.BATCH]
        left_SBD = np.stack([np.asarray(left_over(d, jnp.asarray(x)), np.float64) for d in on_device])
        sum_BD = left_SBD.sum(0)  # what a mean of reconstructions leaves is the mean of what they leave
        errors[n] += np.square(sum_BD / n).sum()
        for s in range(n if n > 1 else 0):
            errors[s] += np.square((sum_BD - left_SBD[s]) / (n - 1)).sum()
    explained = 1 - spread.share(errors, spread.of_rows(rows_ND).variance)
    return float(explained[n]), explained[:n].tolist()
