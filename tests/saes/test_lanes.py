"""Many SAEs at once: bits that do not depend on company, frozen seeds, knobs along the axis, one trace, no collectives, TPU lowering."""

import functools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saes import autoencoder, lanes, topk
from saes.autoencoder import Knobs
from saes.dead import auxiliary_loss
from saes.selection import top_k_mask
from saes.variants import VARIANTS as OF_VARIANT
from tests.saes.settings import VARIANTS, D, batches, mesh, sae, train

TRAIN = train()


def start(seeds, plan, c, lr=None, k=None):
    seeds = [seeds[m] for m in plan.members]
    given = lambda values, default: jnp.asarray([(values or {}).get(s, default) for s in seeds])
    knobs = Knobs(lr=given(lr, 3e-3), k=given(k, c.k).astype(jnp.int32), sparsity=given(None, 0.5), decoder_rate=given(None, 1.0))
    return lanes.init_lanes(c, TRAIN, mesh(), lanes.initial_keys(np.array(seeds)), knobs, jnp.zeros((len(seeds), D)))


@functools.cache
def trained(seeds, name="topk", dispatches=3, poison=None, settings=(), lr=(), k=(), own=False):
    c, plan = sae(variant=name, **dict(settings)), lanes.plan_lanes(len(seeds), 1, 2)
    state = start(seeds, plan, c, dict(lr), dict(k))
    if poison is not None:
        w = state.params.w_enc_DF.at[poison, 0, 0].set(jnp.nan)
        state = state.replace(params=state.params.replace(w_enc_DF=w))
    run = lanes.make_train_steps(plan, c, TRAIN, mesh(), own_batches=own)
    for i in range(dispatches):
        x = batches(seed=i)
        state, metrics = run(state, jnp.stack([x] * len(plan.members)) if own else x)
    return jax.tree.map(lambda a: np.array(a)[: len(seeds)], (state, metrics))


def lane(tree, i):
    return [leaf[i].tobytes() for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize(
    "others", [(3,), *(pytest.param(o, marks=pytest.mark.slow) for o in ((3, 0), (9, 3))), (0, 1, 2, 3), (7, 6, 5, 4, 3, 2, 1)]
)
def test_a_seed_has_the_same_bits_alone_and_in_any_company(others):
    everyone = tuple(range(8))
    assert lane(trained(others), others.index(3)) == lane(trained(everyone), 3)


SLOW = ("batchtopk", "gated", "l1")  # `make test-slow`: matryoshka and jumprelu have what is in them


@pytest.mark.parametrize("name", [pytest.param(v, marks=[pytest.mark.slow] * (v in SLOW)) for v in VARIANTS if v != "topk"])
def test_so_it_is_for_every_variant(name):
    assert lane(trained((3,), name), 0) == lane(trained((0, 1, 2, 3), name), 3)


def test_company_with_dead_features_changes_no_bit():
    """The auxiliary loss is computed for a group if any of it has a dead feature."""
    some = (("dead_after_tokens", 16), ("aux_weight", 1.0))
    alone, group = trained((3,), settings=some), trained((3, 5, 8, 0), settings=some)
    assert group[1]["dead_fraction"].max() > 0
    assert lane(alone, 0) == lane(group, 0)


@pytest.mark.parametrize("aux_k", [2, 7])
def test_the_auxiliary_loss_of_a_group_is_that_of_each(aux_k):
    """Behind the conditions: seeds with no, some and many dead features side by side, against plain differentiation of each."""
    keys = jax.random.split(jax.random.key(0), 3)
    params = jax.vmap(lambda key: autoencoder.init(key, 9, jnp.ones(5)))(jax.random.split(keys[0], 3))
    x, residual = (jax.random.normal(k, (3, 16, 5)) for k in keys[1:])
    dead = jnp.asarray([[False] * 9, [True, False, True] * 3, [False] * 8 + [True]])

    def plain(params, x, residual, dead):
        pre = autoencoder.pre_activations(params, x)
        z = jnp.where(top_k_mask(jnp.where(dead, pre, -jnp.inf), aux_k) & dead, jax.nn.relu(pre), 0.0)
        spread = jnp.mean(jnp.sum((residual - residual.mean(0)) ** 2, -1))
        return jnp.where(dead.any(), jnp.mean(jnp.sum((z @ params.w_dec_FD - residual) ** 2, -1)) / spread, 0.0)

    def ours(params, x, residual, dead):
        return auxiliary_loss(params, x, jax.lax.stop_gradient(autoencoder.pre_activations(params, x)), residual, dead, aux_k)

    found, expected = (jax.vmap(jax.value_and_grad(lambda *a, f=f: 3.0 * f(*a)))(params, x, residual, dead) for f in (ours, plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)
    value, gradients = found
    assert value[0] == 0 and all(value[1:] > 0)
    assert all(not g[0].any() and g[1].any() and g[2].any() for g in jax.tree.leaves(gradients))


def test_a_seed_that_is_not_finite_is_frozen_and_the_others_do_not_notice():
    clean, _ = trained((0, 1, 2, 3))
    state, metrics = trained((0, 1, 2, 3), poison=2)
    assert state.frozen_at.tolist() == metrics["frozen_at"].tolist() == [-1, -1, 0, -1]
    for i in (0, 1, 3):
        assert lane(state, i) == lane(clean, i)
    begin = start((0, 1, 2, 3), lanes.plan_lanes(4, 1, 2), sae())
    begin = begin.replace(params=begin.params.replace(w_enc_DF=begin.params.w_enc_DF.at[2, 0, 0].set(jnp.nan)))
    still = lambda s: lane(s.replace(step=jnp.zeros(4), frozen_at=jnp.zeros(4)), 2)
    assert still(state) == still(begin)  # parameters, moments, control and idle counts stand as they were


def test_knobs_vary_along_the_axis_and_each_is_its_own_run():
    """Two learning rates and two K in one vmap: every seed as if all had its values."""
    mixed = trained((0, 1, 2, 3), lr=((1, 1e-2), (3, 1e-2)), k=((2, 2), (3, 2)))
    for i in range(4):
        same = dict.fromkeys(range(4), 1e-2) if i in (1, 3) else {}
        of_k = dict.fromkeys(range(4), 2) if i in (2, 3) else {}
        alone = trained((0, 1, 2, 3), lr=tuple(same.items()), k=tuple(of_k.items()))
        assert lane(mixed, i) == lane(alone, i)
    assert mixed[1]["l0"][0] > 3.5 and mixed[1]["l0"][2] <= 2.0


def test_fewer_active_features_than_the_static_k_is_training_with_fewer():
    under = trained((0, 1), k=((0, 2), (1, 2)))[0]
    plain = trained((0, 1), settings=(("k", 2),))[0]
    np.testing.assert_allclose(under.params.w_dec_FD, plain.params.w_dec_FD, atol=1e-5)


def test_batches_of_their_own_that_are_equal_change_nothing():
    np.testing.assert_allclose(trained((0, 1, 2), own=True)[0].params.w_dec_FD, trained((0, 1, 2))[0].params.w_dec_FD, atol=1e-6)


def test_one_trace_serves_all_dispatches(monkeypatch):
    traces = []
    counting = lambda *args: traces.append(1) or topk.loss(*args)
    monkeypatch.setitem(OF_VARIANT, "topk", OF_VARIANT["topk"]._replace(loss=counting))
    of_its_own = (("dead_after_tokens", 77),)  # what other tests compiled is not compiled again
    trained((0, 1, 2), dispatches=1, settings=of_its_own)
    once = len(traces)
    trained((0, 1, 2), dispatches=5, settings=of_its_own)
    trained((4, 5, 6), dispatches=1, settings=of_its_own, lr=((4, 0.1),))
    assert once > 0 and len(traces) == once


def test_plans():
    assert lanes.plan_lanes(1, 1, 2) == ((0, 0), 2)
    assert lanes.plan_lanes(3, 1, 2) == ((0, 1, 2, 2), 2)
    assert lanes.plan_lanes(8, 4, 2) == (tuple(range(8)), 2)
    assert lanes.plan_lanes(8, 8, 2).members == (*range(8), *([7] * 8))
    assert lanes.plan_lanes(9, 2, 3) == ((*range(9), 8, 8, 8), 3)
    with pytest.raises(ValueError, match="never a single one"):
        lanes.plan_lanes(4, 1, 1)


@pytest.mark.parametrize("name", VARIANTS)
def test_lowers_for_tpu(name):
    plan, c = lanes.plan_lanes(2, 1, 2), sae(variant=name)
    state = jax.eval_shape(lambda: start((0, 1), plan, c))
    run = lanes.make_train_steps(plan, c, TRAIN, mesh())
    text = run.trace(state, batches()).lower(lowering_platforms=("tpu",)).as_text()
    assert "stablehlo.dot_general" in text


SHARDED = """
import json
import jax, numpy as np
from saes import lanes
from tests.saes.settings import batches, sae
from tests.saes import test_lanes
mesh = jax.make_mesh((4, 1, 1), ("seed", "data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
test_lanes.mesh = lambda: mesh
plan = lanes.plan_lanes(8, 4, 2)
state = test_lanes.start(tuple(range(8)), plan, sae())
run = lanes.make_train_steps(plan, sae(), test_lanes.TRAIN, mesh)
hlo = run.lower(state, batches()).compile().as_text()
state, _ = run(state, batches(seed=0))
print(json.dumps({"devices": len(state.step.sharding.device_set), "w": np.asarray(state.params.w_dec_FD).tolist(),
  "collectives": [c for c in ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter") if c + "(" in hlo]}))
"""


def test_over_four_devices_no_collective_runs_and_the_result_is_the_same():
    """Up to rounding: XLA's CPU reductions are cut by the threads that a device has, so bits hold for one number of devices."""
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", SHARDED], env=env, capture_output=True, text=True, check=True)
    got = json.loads(done.stdout.splitlines()[-1])
    assert got["devices"] == 4 and got["collectives"] == []
    state, _ = trained(tuple(range(8)), dispatches=1)
    np.testing.assert_allclose(got["w"], state.params.w_dec_FD, atol=1e-5)
