"""Where SAEs begin that are trained on: as the dictionaries that they were, with silence behind the smaller ones."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import pool
from experiments.pooling import finetune
from experiments.training import population, train
from runtime.mesh import make_mesh
from saes.assembly import NEVER
from saes.config import SAEConfig
from saes.lanes import plan_lanes
from saes.variants import variant
from tests.experiments.dictionaries import unit
from tests.experiments.tasks import task

SIZES, WIDTH, SCALE = (32, 20, 9), 24, 2.0


class Rows:
    """A stream of random directions."""

    def rows(self, first, count):
        return unit(count, WIDTH, rng=np.random.default_rng(first))


@pytest.fixture(params=["topk", "batchtopk", "gated", "jumprelu"])
def begun(request):
    """(as initialised, where they begin, lanes, what each begins as, the parameters of that): three SAEs, of which two are smaller than the others."""
    c = pool.get_config("synthetic-tiny")
    c.sae.variant = request.param
    of, kind = task("train", c), variant(request.param)
    who, sae = population.of_study(of), of.section(SAEConfig)

    def made(n, seed):
        params = kind.init(jax.random.key(seed), dataclasses.replace(sae, n_features=n), jnp.full(WIDTH, float(seed)))
        params = params.replace(**{name: v + 0.1 for name, v in vars(params).items() if name.endswith("_F")})
        return jax.tree.map(np.asarray, kind.to_dictionary(params, SCALE, 4, np.float32(0.1)))

    dictionaries = [made(n, 50 + seed) for seed, n in enumerate(SIZES)]
    plan, streams = plan_lanes(len(SIZES), 1, 2), [Rows()] * len(SIZES)
    members = who.members[: len(SIZES)]
    state = train._init(who, members, streams, plan, np.float32(SCALE), make_mesh())
    start = finetune._starting(request.param, dictionaries, 0.03)
    return (
        state,
        start(state, plan, members, streams, SCALE),
        plan,
        dictionaries,
        [vars(kind.from_dictionary(d, SCALE)) for d in dictionaries],
    )


def test_every_lane_begins_as_its_dictionary_and_what_is_behind_it_is_silent(begun):
    was, state, plan, _, wanted = begun
    assert plan.members == (0, 1, 2, 2)  # the last lane only fills its group
    for lane, m in enumerate(plan.members):
        n = SIZES[m]
        for name, value in vars(state.params).items():
            of_lane, before = np.asarray(value)[lane], np.asarray(getattr(was.params, name))[lane]
            at = (slice(None), slice(n)) if name.endswith("_DF") else (slice(n),) if name.endswith(("_FD", "_F")) else ()
            np.testing.assert_allclose(of_lane[at], wanted[m][name], rtol=1e-6, err_msg=name)
            behind = (slice(None), slice(n, None)) if name.endswith("_DF") else (slice(n, None),)
            if name in ("b_enc_F", "b_gate_F"):
                assert (of_lane[n:] == np.float32(NEVER)).all()
            elif name.endswith(("_FD", "_F", "_DF")):
                np.testing.assert_array_equal(of_lane[behind], before[behind], err_msg=name)
        idle = np.asarray(state.idle_steps_F)[lane]
        assert (idle[:n] == 0).all() and (idle[n:] == -(2**30)).all()


def test_one_rate_holds_for_all_decoder_rows_of_a_lane(begun):
    was, state, plan, *_ = begun
    rate = state.knobs.decoder_rate
    assert rate.shape == was.knobs.decoder_rate.shape == (len(plan.members),) and rate.dtype == was.knobs.decoder_rate.dtype
    np.testing.assert_array_equal(rate, np.full(len(plan.members), 0.03, np.float32))
    for name in ("lr", "k", "sparsity"):
        np.testing.assert_array_equal(getattr(state.knobs, name), getattr(was.knobs, name))
    places = lambda s: jax.tree.map(lambda a: (a.sharding, a.dtype, a.shape), (s.params, s.knobs, s.idle_steps_F))
    assert places(state) == places(was)  # so that the compiled step and its checkpoints take it


def test_what_pools_are_judged_on_is_nothing_that_they_depend_on():
    """A study that was trained may be judged on other rows."""
    c = pool.get_config("tiny")
    was = {name: task(name, c).fingerprint() for name in ("pool", "finetune", "pooled")}
    c.pool.eval_rows, c.pool.predictions = 500, 100
    now = {name: task(name, c).fingerprint() for name in was}
    assert [name for name in was if now[name] != was[name]] == ["pooled"]
