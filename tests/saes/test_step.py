"""The update step: golden numbers, one trace, seeds that do not know of each other, no collectives, TPU lowering."""

import dataclasses
import functools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saes import step, topk
from saes.config import SAEConfig, TrainConfig

SAE = SAEConfig(variant="topk", n_features=48, k=4, aux_k=0, aux_weight=1 / 32, dead_after_tokens=64)
TRAIN = TrainConfig(
    tokens=640, batch_size=16, lr=0.0, warmup_fraction=0.1, decay_fraction=0.2, adam_b1=0.9, adam_b2=0.999, adam_eps=1e-8,
    clip_norm=1.0, lanes=0, steps_per_dispatch=4, checkpoint_every=8, snapshots=4,
)  # fmt: skip
D = 12


def mesh():
    return jax.make_mesh((1, 1, 1), ("seed", "data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 3)


def batches(n=4, seed=0):
    return jax.random.normal(jax.random.key(seed), (n, TRAIN.batch_size, D))


@functools.cache
def trained(seeds, dispatches=3, poison=None, lanes=0, explode=None):
    plan = step.plan_seeds(seeds, 1, "cpu", lanes)
    state = step.init_seeds(plan, SAE, TRAIN, jnp.zeros(D), mesh())
    if poison is not None:
        w = state.params.w_enc_DF.at[poison, 0, 0].set(jnp.nan)
        state = state.replace(params=state.params.replace(w_enc_DF=w))
    if explode is not None:
        state = state.replace(params=state.params.replace(b_dec_D=state.params.b_dec_D.at[explode].add(1000.0)))
    run = step.make_train_steps(plan, SAE, TRAIN, mesh())
    for i in range(dispatches):
        state, metrics = run(state, batches(seed=i))
    return jax.tree.map(lambda a: np.array(a)[: len(seeds)], (state, metrics))


def lane(tree, i):
    return [leaf[i].tobytes() for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("others", [(3,), (3, 0), (9, 3), (0, 1, 2, 3), (7, 6, 5, 4, 3, 2, 1)])
def test_a_seed_has_the_same_bits_alone_and_in_any_company(others):
    everyone = tuple(range(8))
    assert lane(trained(others), others.index(3)) == lane(trained(everyone), 3)


def test_a_seed_that_is_not_finite_is_frozen_and_the_others_do_not_notice():
    clean, _ = trained((0, 1, 2, 3))
    state, metrics = trained((0, 1, 2, 3), poison=2)
    assert state.frozen_at.tolist() == metrics["frozen_at"].tolist() == [-1, -1, 0, -1]
    for i in (0, 1, 3):
        assert lane(state, i) == lane(clean, i)
    plan = step.plan_seeds((0, 1, 2, 3), 1, "cpu", 0)
    start = step.init_seeds(plan, SAE, TRAIN, jnp.zeros(D), mesh())
    assert (state.params.w_dec_FD[2] == start.params.w_dec_FD[2]).all()  # stands at its last good state


def test_one_trace_serves_all_dispatches(monkeypatch):
    traces = []
    original = topk.loss
    monkeypatch.setattr(topk, "loss", lambda *args: traces.append(1) or original(*args))
    trained((0, 1, 2), dispatches=1)
    once = len(traces)
    trained((0, 1, 2), dispatches=5)
    assert once > 0 and len(traces) == 2 * once


def test_the_step_by_hand():
    """One step of Adam on the projected, clipped gradient, then unit rows, in NumPy; the first step already moves."""
    x = batches(1)[0]
    state = step.init_state(jax.random.key(0), SAE, TRAIN, jnp.zeros(D))
    after, metrics = step.train_step(SAE, TRAIN, state, x)
    grads = jax.grad(lambda p: topk.loss(p, SAE, x, jnp.zeros(48, bool))[0])(state.params)
    g = {f.name: np.asarray(getattr(grads, f.name), np.float64) for f in dataclasses.fields(grads)}
    w = np.asarray(state.params.w_dec_FD, np.float64)
    g["w_dec_FD"] -= (g["w_dec_FD"] * w).sum(1, keepdims=True) * w
    norm = np.sqrt(sum((v**2).sum() for v in g.values()))
    np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-5)
    peak, warmup = 2e-4 * np.sqrt(2**14 / 48), 4
    for name, gradient in g.items():
        gradient = gradient / max(norm, 1.0)
        moved = np.asarray(getattr(state.params, name), np.float64) - peak / warmup * gradient / (np.abs(gradient) + 1e-8)
        if name == "w_dec_FD":
            moved /= np.linalg.norm(moved, axis=1, keepdims=True)
        np.testing.assert_allclose(getattr(after.params, name), moved, atol=2e-5)


def test_learning_rate_law_and_shape():
    rate = step.learning_rate(SAE, TRAIN)
    peak, steps = 2e-4 * np.sqrt(2**14 / 48), TRAIN.steps
    assert 0 < float(rate(0)) < peak
    np.testing.assert_allclose([rate(4), rate(steps - 8), rate(steps - 4), rate(steps)], [peak, peak, peak / 2, 0], rtol=1e-6, atol=1e-9)
    assert float(step.learning_rate(SAE, dataclasses.replace(TRAIN, lr=0.5))(10)) == 0.5


def test_dead_features_are_counted_in_tokens():
    state = step.init_state(jax.random.key(0), SAE, TRAIN, jnp.zeros(D))
    x = jnp.tile(batches(1)[0][:1], (16, 1))  # one direction: few features ever fire
    seen = []
    for _ in range(6):
        state, metrics = step.train_step(SAE, TRAIN, state, x)
        seen.append(float(metrics["dead_fraction"]))
    assert seen[:4] == [0.0] * 4 and seen[5] > 0.5  # 64 tokens are 4 steps of 16


def test_steps_and_snapshots_are_whole_dispatches():
    train = dataclasses.replace(TRAIN, tokens=1_000, batch_size=16, steps_per_dispatch=4, snapshots=6)
    assert train.steps == 64 and train.steps * 16 >= 1000
    steps = train.snapshot_steps()
    assert steps == [0, 4, 8, 16, 32, 64] and steps[-1] == train.steps
    assert all(s % 4 == 0 for s in steps) and steps == sorted(set(steps))


def test_plans_of_seeds():
    assert step.plan_seeds((4,), 1, "cpu", 0) == ((4, 4), 2)
    assert step.plan_seeds((0, 1, 2), 1, "cpu", 0) == ((0, 1, 2, 2), 2)
    assert step.plan_seeds(tuple(range(8)), 4, "tpu", 0) == (tuple(range(8)), 2)
    assert step.plan_seeds(tuple(range(8)), 8, "tpu", 0).seeds == (*range(8), *([7] * 8))
    assert step.plan_seeds(tuple(range(9)), 2, "gpu", 3) == ((*range(9), 8, 8, 8), 3)


def test_lowers_for_tpu():
    plan = step.plan_seeds((0, 1), 1, "cpu", 0)
    state = jax.eval_shape(lambda: step.init_seeds(plan, SAE, TRAIN, jnp.zeros(D), mesh()))
    run = step.make_train_steps(plan, SAE, TRAIN, mesh())
    text = run.trace(state, batches()).lower(lowering_platforms=("tpu",)).as_text()
    assert "stablehlo.dot_general" in text


SHARDED = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from saes import step
from tests.saes.test_step import SAE, TRAIN, D, batches
mesh = jax.make_mesh((4, 1, 1), ("seed", "data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
plan = step.plan_seeds(tuple(range(8)), 4, "cpu", 0)
state = step.init_seeds(plan, SAE, TRAIN, jnp.zeros(D), mesh)
run = step.make_train_steps(plan, SAE, TRAIN, mesh)
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


def test_the_clip_is_each_seeds_own():
    """One lane with a gradient a thousand times larger: a clip outside the vmap would shrink its neighbour's update."""
    assert lane(trained((0, 1), explode=1)[0], 0) == lane(trained((0, 1))[0], 0)
    assert lane(trained((0, 1), explode=1)[0], 1) != lane(trained((0, 1))[0], 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tokens", 0),
        ("batch_size", -1),
        ("lr", -0.1),
        ("warmup_fraction", 1.0),
        ("adam_b2", -0.1),
        ("clip_norm", 0.0),
        ("checkpoint_every", 6),
        ("snapshots", 1),
        ("lanes", 1),
        ("lanes", -2),
    ],
)
def test_impossible_settings_name_the_field(field, value):
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(TRAIN, **{field: value})
