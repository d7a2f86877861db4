"""The update of one SAE: by hand, its schedules, who is dead, what is carried along."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saes import control, step
from saes.autoencoder import LossParts
from saes.variants import variant
from tests.saes.settings import VARIANTS, D, batches, knobs, sae, train

TRAIN = train()
one_step = jax.jit(step.train_step, static_argnums=(0, 1))
update = jax.jit(control.update, static_argnums=1)


@pytest.mark.parametrize("name", VARIANTS)
def test_three_steps_by_hand(name):
    """Adam with moments of its own on the projected, clipped gradient at the coefficient of that step, then unit rows, in NumPy."""
    c, t = sae(variant=name, sparsity_warmup_fraction=0.2), train(clip_norm=0.3, adam_b1=0.8, adam_b2=0.95)
    v = variant(name)
    gradient_of = jax.jit(jax.grad(lambda p, turned, x: v.loss(p, c, turned, x, jnp.zeros(c.n_features, bool))[0]))
    state = step.init_state(jax.random.key(0), c, t, knobs(sparsity=0.7), jnp.zeros(D))
    moments = {}
    for n, x in enumerate(batches(3)):
        progress = n / 8  # of the 40 steps the penalty warms up over the first 8
        coefficient = (
            progress * np.exp(float(state.control.log_sparsity) + c.control_gain * float(state.control.error)) if v.penalised else 0.0
        )
        turned = state.knobs.replace(sparsity=jnp.float32(coefficient))
        grads = gradient_of(state.params, turned, x)
        g = {field: np.asarray(leaf, np.float64) for field, leaf in vars(grads).items()}
        w = np.asarray(state.params.w_dec_FD, np.float64)
        if v.unit_rows:
            g["w_dec_FD"] -= (g["w_dec_FD"] * w).sum(1, keepdims=True) * w
        norm = np.sqrt(sum((a**2).sum() for a in g.values()))
        after, metrics = one_step(c, t, state, x)
        assert norm > 0.3
        np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-5)
        np.testing.assert_allclose(metrics["sparsity"], coefficient, rtol=1e-5)
        assert (coefficient > 0) == (v.penalised and n > 0)
        for field, gradient in g.items():
            gradient = gradient * 0.3 / norm
            first, second = moments.get(field, (0.0, 0.0))
            first, second = 0.8 * first + 0.2 * gradient, 0.95 * second + 0.05 * gradient**2
            moments[field] = first, second
            update = first / (1 - 0.8 ** (n + 1)) / (np.sqrt(second / (1 - 0.95 ** (n + 1))) + 1e-8)
            moved = np.asarray(getattr(state.params, field), np.float64) - 3e-3 * float(step.learning_rate(t)(n)) * update
            if field == "w_dec_FD" and v.unit_rows:
                moved /= np.linalg.norm(moved, axis=1, keepdims=True)
            # Adam's steps have the length of the rate whatever the gradient: where that is rounding noise its sign is too.
            clear = np.sqrt(second) > 1e-6
            assert clear.mean() > 0.1 or field in ("r_mag_F", "log_threshold_F")
            np.testing.assert_allclose(
                np.asarray(getattr(after.params, field))[clear], moved[clear], atol=2e-5, err_msg=f"{field}, step {n}"
            )
        state = after


def test_an_update_that_overflows_is_not_taken():
    state = step.init_state(jax.random.key(0), sae(), TRAIN, knobs(lr=3e38), jnp.zeros(D))
    for x in batches(3):
        state, _ = one_step(sae(), TRAIN, state, x)
    assert int(state.frozen_at) >= 0 and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_learning_rate_law_and_shape():
    rate, steps = step.learning_rate(TRAIN), TRAIN.steps
    assert 0 < float(rate(0)) < 1
    np.testing.assert_allclose([rate(4), rate(steps - 8), rate(steps - 4), rate(steps)], [1, 1, 0.5, 0], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(TRAIN.peak_lr(48), 2e-4 * np.sqrt(2**14 / 48))
    assert train(lr=0.5).peak_lr(48) == 0.5
    assert float(step.learning_rate(train(tokens=10**6, warmup_steps=50))(50)) == 1.0 > float(step.learning_rate(train(tokens=10**6))(50))


def test_a_coefficient_is_fixed_where_the_controller_is_off():
    c, state = sae(variant="l1", control_rate=0.0, control_gain=0.0), control.init(knobs(sparsity=2.0))
    for l0 in (40.0, 1.0, 0.0):
        state = update(state, c, knobs(sparsity=2.0), parts(l0), jnp.float32(1.0))
        np.testing.assert_allclose(control.sparsity(state, c, jnp.float32(1.0)), 2.0, rtol=1e-6)
    assert not c.controlled and sae(variant="l1").controlled


def test_dead_features_are_counted_in_tokens():
    state = step.init_state(jax.random.key(0), sae(), TRAIN, knobs(), jnp.zeros(D))
    x = jnp.tile(batches(1)[0][:1], (16, 1))  # one direction: few features ever fire
    seen = []
    for _ in range(6):
        state, metrics = one_step(sae(), TRAIN, state, x)
        seen.append(float(metrics["dead_fraction"]))
    assert seen[:4] == [0.0] * 4 and seen[5] > 0.5  # 64 tokens are 4 steps of 16


def parts(l0, smallest=0.0):
    zero = jnp.float32(0.0)
    return LossParts(zero, zero, zero, jnp.float32(l0), jnp.zeros(48, bool), jnp.float32(smallest))


def test_the_controller_holds_a_plant_at_its_target():
    """L0 = 40·λ^−0.8, following with a lag of 50 steps, from a first coefficient wrong by a factor of 100 either way."""
    c = sae(variant="jumprelu")
    for first in (0.05, 500.0):
        state, l0 = control.init(knobs(sparsity=first)), 24.0
        for _ in range(1500):
            coefficient = float(control.sparsity(state, c, jnp.float32(1.0)))
            l0 += (min(48.0, 40 * coefficient**-0.8) - l0) / 50
            state = update(state, c, knobs(), parts(l0), jnp.float32(1.0))
        assert abs(l0 / 4 - 1) < 0.02


def test_the_penalty_warms_up_from_nothing_and_its_target_falls_to_k():
    c, state = sae(variant="l1"), control.init(knobs(sparsity=2.0))
    assert float(control.sparsity(state, c, jnp.float32(0.0))) == 0.0
    np.testing.assert_allclose(control.sparsity(state, c, jnp.float32(0.25)), 0.5, rtol=1e-6)
    for progress, target in ((0.0, 24.0), (0.5, (24 * 4) ** 0.5), (1.0, 4.0)):
        after = update(state, c, knobs(sparsity=2.0), parts(target), jnp.float32(progress))
        np.testing.assert_allclose(after.error, 0.0, atol=1e-6)
    for l0 in (48.0, 0.0):
        stuck = state
        for _ in range(3000):
            stuck = update(stuck, c, knobs(sparsity=2.0), parts(l0), jnp.float32(1.0))
        np.testing.assert_allclose(jnp.exp(jnp.abs(stuck.log_sparsity - jnp.log(2.0))), control.MOST, rtol=1e-3)
    collapsed = update(state, c, knobs(), parts(0.0), jnp.float32(1.0))
    assert float(collapsed.error) == -1.0 and np.isfinite(collapsed.log_sparsity)


def test_the_threshold_follows_batches_in_the_warm_up_and_averages_them_behind_it():
    c, state = sae(variant="batchtopk", threshold_decay=0.9), control.init(knobs())
    state = update(state, c, knobs(), parts(4, smallest=3.0), jnp.float32(0.5))
    assert float(state.threshold) == 3.0
    state = update(state, c, knobs(), parts(4, smallest=1.0), jnp.float32(1.0))
    np.testing.assert_allclose(state.threshold, 0.9 * 3 + 0.1 * 1, rtol=1e-6)


def test_steps_and_snapshots_are_whole_dispatches():
    t = train(tokens=1_000, batch_size=16, steps_per_dispatch=4, snapshots=6)
    assert t.steps == 64 and t.steps * 16 >= 1000
    steps = t.snapshot_steps()
    assert steps == [0, 4, 8, 16, 32, 64] and steps[-1] == t.steps
    assert all(s % 4 == 0 for s in steps) and steps == sorted(set(steps))
    assert train(tokens=1_000, eval_at_tokens=(1, 64, 65, 999)).snapshot_steps() == [0, 4, 8, 64]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("eval_at_tokens", (0,)),
        ("eval_at_tokens", (640,)),
        ("lr", -1.0),
        ("snapshots", 1),
        ("steps_per_dispatch", 0),
        ("decay_fraction", 0.95),
    ],
)
def test_impossible_training_names_the_field(field, value):
    with pytest.raises(ValueError, match=f"config.train.{field}"):
        train(**{field: value})


def test_a_row_too_long_for_its_norm_freezes_the_seed_at_once():
    """Its norm is infinite, so that it would come out as zeros, which are finite."""
    state = step.init_state(jax.random.key(0), sae(), TRAIN, knobs(), jnp.zeros(D))
    state = state.replace(
        params=state.params.replace(w_dec_FD=state.params.w_dec_FD.at[0].set(1e25)), knobs=state.knobs.replace(lr=jnp.float32(0.0))
    )
    moved, metrics = one_step(
        sae(), TRAIN, state.replace(params=state.params.replace(w_enc_DF=state.params.w_enc_DF.at[:, 0].set(0.0))), batches(1)[0]
    )
    assert int(metrics["frozen_at"]) == 0
    np.testing.assert_array_equal(moved.params.w_dec_FD, state.params.w_dec_FD)
