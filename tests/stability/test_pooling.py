"""Pools of features whose answer is known."""

import numpy as np
import pytest

from stability import pooling

D, THETA = 24, 0.7


def unit(n, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def keys(n, seed=0):
    """(p̂, rate, energy) with many ties."""
    rng = np.random.default_rng((seed, 1))
    return rng.integers(0, 4, n) / 3, rng.integers(0, 3, n) / 10, rng.random(n)


def test_ranking_is_by_p_then_rate_then_energy():
    rows = unit(5)
    order = pooling.ranking(np.array([0, 1, 1, 1, 1.0]), np.array([9, 1, 2, 2, 2.0]), np.array([9, 9, 1, 3, 2.0]), rows)
    assert order.tolist() == [3, 4, 2, 1, 0]


def test_no_two_are_within_theta_and_all_others_belong_to_one_that_is(monkeypatch):
    n_rows = 150
    rows, of_keys = unit(n_rows), keys(n_rows)
    order = pooling.ranking(*of_keys, rows)
    for block in (7, 1024):
        monkeypatch.setattr(pooling, "BLOCK", block)
        found = pooling.pool(rows, order, THETA, n_rows)
        cosine = rows[found.leader_M] @ rows[found.leader_M].T
        assert (cosine[~np.eye(len(cosine), dtype=bool)] < THETA).all()
        assert (found.group_N >= 0).all()  # there was room
        assert (np.einsum("nd,nd->n", rows, rows[found.leader_M][found.group_N]) >= THETA - 1e-6).all()
        # By hand: the first, and then whoever is within θ of none.
        by_hand = []
        for n in order:
            if not by_hand or (rows[by_hand] @ rows[n]).max() < THETA:
                by_hand.append(n)
        assert found.leader_M.tolist() == by_hand
    assert pooling.group_sizes(found).sum() == n_rows


def test_a_full_pool_leaves_the_rest_out():
    rows = unit(200)
    order = pooling.ranking(*keys(200), rows)
    everything, few = (pooling.pool(rows, order, THETA, most) for most in (200, 10))
    assert len(few.leader_M) == 10 < len(everything.leader_M) and (few.leader_M == everything.leader_M[:10]).all()
    assert (few.group_N == -1).any() and len(pooling.pool(rows, order, THETA, 10**6).leader_M) == len(everything.leader_M)


def test_those_without_a_rank_take_no_part():
    rows = unit(50)
    found = pooling.pool(rows, np.arange(20), THETA, 50)
    assert found.leader_M.max() < 20 and (found.group_N[20:] == -1).all()
    assert pooling.pool(rows, np.arange(0), THETA, 5).leader_M.size == 0


def test_copies_of_one_sae_give_its_own_features_once():
    one = unit(40)
    one[7] = one[3] + 0.05 * unit(1, 5)[0]
    one[7] /= np.linalg.norm(one[7])
    p, rate, energy = (np.tile(k, 3) for k in keys(40))
    rows = np.tile(one, (3, 1))
    found = pooling.pool(rows, pooling.ranking(p, rate, energy, rows), 0.95, 120)
    assert sorted((found.leader_M % 40).tolist()) in ([i for i in range(40) if i != 3], [i for i in range(40) if i != 7])
    assert sorted(pooling.group_sizes(found).tolist()) == [3] * 38 + [6]


def test_the_order_of_seeds_changes_nothing():
    saes = [unit(30, seed) for seed in range(4)]
    saes[2][:10] = saes[0][:10]  # equal features, equal keys
    of_keys = [keys(30, seed) for seed in range(4)]
    of_keys[2] = tuple(np.concatenate([a[:10], b[10:]]) for a, b in zip(of_keys[0], of_keys[2], strict=True))

    def pooled(places):
        rows = np.concatenate([saes[i] for i in places])
        columns = (np.concatenate([of_keys[i][k] for i in places]) for k in range(3))
        found = pooling.pool(rows, pooling.ranking(*columns, rows), THETA, 60)
        return rows[found.leader_M], pooling.means(rows, found, THETA)[0]

    for one, other in zip(pooled([0, 1, 2, 3]), pooled([3, 1, 0, 2]), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_means_are_of_their_group_and_never_within_theta_of_another():
    centres = unit(20, 3)
    rng = np.random.default_rng(0)
    noisy = np.repeat(centres, 12, axis=0) + 0.3 * rng.normal(size=(240, D)).astype(np.float32) / np.sqrt(D)
    rows = noisy / np.linalg.norm(noisy, axis=1, keepdims=True)
    found = pooling.pool(rows, np.arange(240), THETA, 240)
    means, is_mean = pooling.means(rows, found, THETA)
    assert len(means) == 20 and is_mean.all()
    nearer = lambda a: np.einsum("md,md->m", a, centres)
    assert nearer(means).min() > 0.99 > nearer(rows[found.leader_M]).max()
    # Where groups touch, a mean that would come within θ of another gives way to the leader.
    rows = unit(2000, 4)
    found = pooling.pool(rows, np.arange(2000), 0.5, 2000)
    means, is_mean = pooling.means(rows, found, 0.5)
    cosine = means @ means.T
    assert cosine[~np.eye(len(cosine), dtype=bool)].max() < 0.5 and is_mean.any() and not is_mean.all()
    np.testing.assert_array_equal(means[~is_mean], rows[found.leader_M][~is_mean])


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"theta=0.0: a cosine in \(0, 1\]"):
        pooling.pool(unit(3), np.arange(3), 0.0, 3)
    with pytest.raises(ValueError, match="a pool of 0 features"):
        pooling.pool(unit(3), np.arange(3), 0.7, 0)
