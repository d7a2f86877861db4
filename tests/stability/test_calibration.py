"""Do intervals cover what they should? Trained SAEs of many seeds on a synthetic world are the population; studies are drawn from it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from saes import lanes
from saes.autoencoder import Knobs
from stability import aggregates, reappearance, similarity
from stability.aggregates import pair_mean
from synthetic.config import WorldConfig
from synthetic.generator import SyntheticStream, make_truth, make_world
from tests.saes.settings import mesh, sae, train

SEEDS, FEATURES, STEPS, BATCH, THETA, CONFIDENCE = 192, 24, 1600, 128, 0.8, 0.95
WORLD = dataclasses.replace(
    WorldConfig(**dict(common.synthetic_study().synthetic)),
    width=12, free_atoms=12, free_active=2, block_rank=4, block_atoms=16, block_active=1,
)  # fmt: skip


@functools.cache
def population() -> np.ndarray:
    """(S, S, F): whether a feature of one SAE reappears in another."""
    c = sae(n_features=FEATURES, k=3, dead_after_tokens=10**6)
    t = train(tokens=STEPS * BATCH, batch_size=BATCH, steps_per_dispatch=100)
    truth = make_truth(WORLD)
    stream = SyntheticStream(WORLD.shape(), make_world(WORLD, truth), seed=0)
    plan = lanes.plan_lanes(SEEDS, 1, 8)
    full = lambda value, dtype=jnp.float32: jnp.full(SEEDS, value, dtype)
    knobs = Knobs(lr=full(3e-3), k=full(3, jnp.int32), sparsity=full(0.5), decoder_rate=full(1.0))
    state = lanes.init_lanes(c, t, mesh(), lanes.initial_keys(np.arange(SEEDS)), knobs, jnp.zeros((SEEDS, WORLD.width)))
    run = lanes.make_train_steps(plan, c, t, mesh())
    for dispatch in range(STEPS // 100):
        x = stream.rows(dispatch * 100 * BATCH, 100 * BATCH).reshape(100, BATCH, -1)
        state, _ = run(state, jnp.asarray(x))
    return reappearance.reappears(similarity.all_pairs(np.asarray(jax.device_get(state.params.w_dec_FD))).cosine, THETA)


def coverage(statistic_of, truth, s, studies=1500, **knife):
    """Share of studies of `s` seeds whose interval holds the truth; studies are subsets of the population."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(studies):
        chosen = rng.choice(SEEDS, s, replace=False)
        e = aggregates.jackknifed(statistic_of(chosen), s, CONFIDENCE, null=None, unit="", **knife)
        hits += e.low <= truth <= e.high
    return hits / studies


@pytest.mark.slow
@pytest.mark.parametrize("s", [5, 8, 21])
def test_intervals_of_mean_p_cover_within_two_points_of_nominal(s):
    hits = population()
    table = aggregates.share_reappearing(hits, np.ones(hits.shape[1:], bool))
    assert 0.1 < np.nanmean(table) < 0.9 and np.nanstd(table) > 0.02  # neither all nor nothing
    of = lambda chosen: functools.partial(pair_mean, table[np.ix_(chosen, chosen)])
    # Studies are subsets of the population, so that with 21 of 192 seeds coverage comes out a little high.
    assert coverage(of, float(np.nanmean(table)), s) == pytest.approx(CONFIDENCE, abs=0.02)


@pytest.mark.slow
def test_a_features_interval_covers_at_least_nominally():
    """Clopper–Pearson's is exact: never below the nominal rate on average over features, and above it since counts are whole numbers."""
    hits = population()
    others = SEEDS - 1
    p_SF = hits.sum(axis=1) / others
    rng, covered = np.random.default_rng(1), []
    for _ in range(60):
        anchor, *chosen = rng.choice(SEEDS, 22, replace=False)
        low, high = reappearance.clopper_pearson(hits[anchor, chosen].sum(axis=0), 21, CONFIDENCE)
        covered.append((low <= p_SF[anchor]) & (p_SF[anchor] <= high))
    assert np.mean(covered) >= CONFIDENCE - 0.005
