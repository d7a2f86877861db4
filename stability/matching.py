"""One-to-one matching of the features of two dictionaries: exact where they are small, by auction where they are not.

The assignment with the largest sum of cosines takes O(F³) operations and an F × F matrix.  Above `EXACT` features each bids for its most
similar ones alone (Bertsekas 1988), and prices bound from above what any assignment could reach, over all pairs: that bound less what was
reached is the gap, which is stated with every result.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jaxtyping import Float

from stability.similarity import AnyArray, best_match, check_unit, top_matches

EXACT = 4096  # features up to which the assignment is exact
CANDIDATES = 32  # most similar features that one bids for
STEP = 1e-3  # of a bid, in cosine: the mean cosine among candidates is within this of the best


class Matching(NamedTuple):
    """A one-to-one matching of `a`'s rows to `b`'s, NumPy.

    Attributes:
      partner_F: index of the row of `b`; −1 where `b` has too few.
      cosine_F: with it, NaN where there is none.
      gap: the best assignment's mean cosine is at most so much larger; 0: this is it.
    """

    partner_F: np.ndarray
    cosine_F: np.ndarray
    gap: float

    def mean(self) -> float:
        """Mean cosine of those matched: of two whole dictionaries their PW-MCC."""
        return float(np.nanmean(self.cosine_F))


def one_to_one(a_FD: Float[AnyArray, "F D"], b_GD: Float[AnyArray, "G D"], *, exact: int = EXACT, block_size: int = 512) -> Matching:
    """The matching of min(F, G) pairs with the largest sum of signed cosines, or one close to it.

    Args:
      a_FD, b_GD: unit rows.
      exact: features of the larger dictionary up to which it is the best.
      block_size: as of `best_match`.

    Raises:
      ValueError: rows that are not finite or not of length 1 (nor zeros), or none.
    """
    a, b = np.asarray(a_FD, np.float32), np.asarray(b_GD, np.float32)
    for rows in (a, b):
        check_unit(rows, "a dictionary")
    if not len(a) or not len(b):
        raise ValueError(f"{len(a)} features against {len(b)}: nothing to match")
    if len(a) > len(b):
        other = one_to_one(b, a, exact=exact, block_size=block_size)
        partner, cosine = np.full(len(a), -1), np.full(len(a), np.nan)
        partner[other.partner_F], cosine[other.partner_F] = np.arange(len(b)), other.cosine_F
        return Matching(partner, cosine, other.gap)
    if len(b) <= exact:
        partner, gap = _assignment(a, b), 0.0
    else:
        partner, price_G = _by_auction(a, b, exact, block_size)
    cosine = np.clip(np.einsum("fd,fd->f", a, b[partner]), -1.0, 1.0)
    if len(b) > exact:
        gap = max(0.0, _bound(a, b, price_G, block_size) - float(cosine.mean(dtype=np.float64)))
    return Matching(partner, cosine, gap)


def _assignment(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return scipy.optimize.linear_sum_assignment(a @ b.T, maximize=True)[1]


def _bound(a: np.ndarray, b: np.ndarray, price_G: np.ndarray, block_size: int) -> float:
    """What no assignment's mean cosine exceeds, by weak duality: Σ price + Σ max (cosine − price), for any prices ≥ 0."""
    one_F1, price_G1 = np.ones((len(a), 1), a.dtype), price_G[:, None].astype(b.dtype)
    priced = np.concatenate([a, one_F1], axis=1), np.concatenate([b, -price_G1], axis=1)  # cosine − price as one product
    profit_F = np.asarray(best_match(*map(jnp.asarray, priced), block_size=block_size)[0].cosine, np.float64)
    return float(price_G.sum() + profit_F.sum()) / len(a)


def _by_auction(a: np.ndarray, b: np.ndarray, exact: int, block_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Everyone's partner, and the prices (G,) of the first auction; who is left over goes on among the columns that are.

    Rows of zeros are as similar to one as to another: they take what is left in the end.
    """
    partner, price_G = np.full(len(a), -1), None
    directed = np.flatnonzero(a.any(axis=1))
    while True:
        rest, free = directed[partner[directed] < 0], np.setdiff1d(np.arange(len(b)), partner)
        if not len(rest):
            break
        if len(free) <= exact:
            partner[rest] = free[_assignment(a[rest], b[free])]
            break
        of_rest, of_free = _auction(a[rest], b[free], block_size)
        partner[rest] = np.where(of_rest >= 0, free[of_rest], -1)
        price_G = of_free if price_G is None else price_G
    none = partner < 0
    partner[none] = np.setdiff1d(np.arange(len(b)), partner)[: none.sum()]
    return partner, np.zeros(len(b)) if price_G is None else price_G


def _auction(a: np.ndarray, b: np.ndarray, block_size: int) -> tuple[np.ndarray, np.ndarray]:
    """(partner (F,), −1: left over; prices (G,)). All who have nothing bid at once; a row leaves when none of its candidates is worth more
    to it than the last of them was without a price, since then something that is no candidate may be."""
    m = min(CANDIDATES, len(b))
    value_FM, index_FM = (np.asarray(x) for x in top_matches(jnp.asarray(a), jnp.asarray(b), m, block_size=block_size))
    value_FM = value_FM.astype(np.float64)
    outside_F = value_FM[:, -1]
    partner, owner_G, price_G = np.full(len(a), -1), np.full(len(b), -1), np.zeros(len(b))
    waiting = np.arange(len(a))
    while len(waiting):
        net = value_FM[waiting] - price_G[index_FM[waiting]]
        row, choice = np.arange(len(waiting)), net.argmax(axis=1)
        best = net[row, choice]
        net[row, choice] = -np.inf
        second = np.maximum(net.max(axis=1), outside_F[waiting])
        bids = best >= outside_F[waiting]
        waiting, best, second, column = waiting[bids], best[bids], second[bids], index_FM[waiting, choice][bids]
        offer = price_G[column] + best - second + STEP
        order = np.argsort(offer, kind="stable")  # where an index stands twice NumPy keeps the last: the highest offer
        wanted = np.unique(column)
        outbid = owner_G[wanted][owner_G[wanted] >= 0]
        price_G[column[order]], owner_G[column[order]] = offer[order], waiting[order]
        partner[outbid] = -1
        partner[owner_G[wanted]] = wanted
        waiting = np.concatenate([waiting[partner[waiting] < 0], outbid])
    return partner, price_G


def agreement(a_F: np.ndarray, b_F: np.ndarray) -> float:
    """|A ∩ B| / |A ∪ B| of two sets given as masks; NaN of two empty ones."""
    return float((a_F & b_F).sum() / (a_F | b_F).sum()) if (a_F | b_F).any() else float("nan")


def agreement_by_chance(share_a: float, share_b: float) -> float:
    """`agreement` of two large random sets that hold such shares of all and have nothing to do with each other; NaN of two empty ones."""
    both = share_a * share_b
    return both / (share_a + share_b - both) if share_a + share_b > 0 else float("nan")
