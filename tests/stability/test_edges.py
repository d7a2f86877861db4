"""Values at the edge of what numbers hold, and inputs of which nothing can be said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stability import matching, nulls, pooling, reappearance, similarity
from stability.subspaces import effective_rank

RNG = np.random.default_rng(0)
BASE = RNG.normal(size=(7, 5))


def unit_in_numpy(w):
    w = np.asarray(w, np.longdouble)
    w = w / np.where((top := np.abs(w).max(axis=-1, keepdims=True)) > 0, top, 1)
    norm = np.sqrt(np.square(w).sum(-1, keepdims=True))
    return (w / np.where(norm > 0, norm, 1)).astype(np.float64)


@pytest.mark.parametrize("power", [-44, -40, -38, -30, 0, 20, 30, 37])
def test_rows_of_any_length_have_a_direction(power):
    w = (BASE * 10.0**power).astype(np.float32)
    for of in (similarity.unit_rows, jax.jit(similarity.unit_rows)):
        np.testing.assert_allclose(np.asarray(of(w)), unit_in_numpy(w), atol=3e-7)
    turned = nulls.rotate_each(jax.random.key(0), np.stack([w, w]), (3, 3))
    np.testing.assert_allclose(np.asarray(similarity.unit_rows(turned[0])) @ np.asarray(similarity.unit_rows(turned[1])).T,
                               unit_in_numpy(w) @ unit_in_numpy(w).T, atol=1e-5)  # fmt: skip


@pytest.mark.parametrize("power", [-300, -50, 50, 300])
def test_float64_rows_out_of_float32s_range(power):
    np.testing.assert_allclose(np.asarray(similarity.unit_rows(BASE * 10.0**power)), unit_in_numpy(BASE), atol=3e-7)
    p = reappearance.table([BASE * 10.0**power, BASE])["p"]
    assert (p == 1).all()


def agrees_with_numpy(seed, power, zeros):
    rng = np.random.default_rng(seed)
    with np.errstate(under="ignore"):
        w = [(rng.normal(size=(n, 3)) * 10.0**power).astype(np.float32) for n in rng.integers(1, 6, 3)]
    for of in w:
        of[: min(zeros, len(of) - 1)] = 0
    w[1][-1] = w[0][-1]
    found = reappearance.table(w, theta=0.8)
    units = [unit_in_numpy(of) for of in w]
    expected = [sum((u @ v.T).max() >= 0.8 for j, v in enumerate(units) if i != j) for i, of in enumerate(units) for u in of]
    near = [min(abs((u @ v.T).max() - 0.8) for j, v in enumerate(units) if i != j) for i, of in enumerate(units) for u in of]
    sure = np.array(near) > 1e-5
    np.testing.assert_array_equal(found["reappearances"][sure], np.array(expected)[sure])


@pytest.mark.parametrize("seed", range(4))
def test_tables_agree_with_numpy(seed):
    agrees_with_numpy(seed, [-41, 0, 5, 36][seed], seed)


@pytest.mark.slow
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**6), st.integers(-41, 36), st.integers(0, 3))
def test_tables_agree_with_numpy_everywhere(seed, power, zeros):
    agrees_with_numpy(seed, power, zeros)


@pytest.mark.parametrize("width", [2, 16, 768, 2304])
def test_equal_rows_are_found_at_theta_one(width):
    rng = np.random.default_rng(width)
    w = [rng.normal(size=(20, width)).astype(np.float32) for _ in range(3)]
    for other in w[1:]:
        other[:10] = 3.7 * w[0][:10]
    p = reappearance.table(w, theta=1.0)["p"].reshape(3, 20)
    assert (p[:, :10] == 1).all() and (p[:, 10:] < 1).all()
    units = similarity.unit_rows(w[0])
    assert (np.asarray(similarity.best_match(units, units, thresholds=(1.0,))[0].count) >= 1).all()
    unit_ND = np.concatenate([np.asarray(similarity.unit_rows(of)) for of in w[:2]])
    assert len(pooling.pool(unit_ND, np.arange(40), 1.0, 40).leader_M) == 30
    assert similarity.reaches(0.7, 0.7) and not similarity.reaches(0.6999, 0.7) and not similarity.reaches(np.nan, 0.7)


def test_ranks_do_not_depend_on_scale():
    sigma = np.array([4.0, 2.0, 1.0, 0.5], np.float32)
    right = effective_rank(jnp.asarray(sigma))
    for scale in (1e-40, 1e-30, 1e-10, 1e10, 1e30):
        for a, b in zip(effective_rank(jnp.asarray((sigma * scale).astype(np.float32))), right, strict=True):
            assert float(a) == pytest.approx(float(b), rel=1e-4)
    assert [float(x) for x in effective_rank(jnp.zeros(3))] == [0.0] * 4


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (lambda: reappearance.labels(np.zeros(3, int), 0, 0.05), "0 comparisons"),
        (lambda: reappearance.clopper_pearson(np.zeros(3, int), 0, 0.95), "0 comparisons"),
        (lambda: reappearance.table([BASE, BASE], seeds=[3, 3]), "stands twice"),
        (lambda: reappearance.table([BASE]), "at least 2"),
        (lambda: reappearance.table([BASE, BASE[:0]]), "features, width"),
        (lambda: reappearance.table([BASE, np.where(BASE > 1, np.nan, BASE)]), "NaN or infinity"),
        (lambda: reappearance.table([BASE, BASE.astype(str)]), "real numbers"),
        (lambda: similarity.all_pairs(np.zeros((2, 0, 3), np.float32)), "at least 1"),
        (lambda: matching.one_to_one(3 * BASE, BASE), "of length 1"),
        (lambda: matching.one_to_one(BASE[:0], BASE[:0]), "nothing to match"),
        (lambda: pooling.pool(3 * BASE, np.arange(7), 0.7, 3), "of length 1"),
        (lambda: nulls.rotate_each_whitened(jax.random.key(0), BASE[None], (0,), np.zeros((5, 5))), "covariance"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_refused_in_one_line(what, says):
    with pytest.raises(ValueError, match=says) as problem:
        what()
    assert "\n" not in str(problem.value)


def test_one_feature_is_alone():
    assert np.isnan(similarity.crowding(BASE[:1], 5)).all()
    assert (reappearance.table([BASE[:1], BASE[:1]])["p"] == 1).all()


def test_half_precision_rows_are_compared_in_float32():
    w = BASE.astype(np.float16)
    np.testing.assert_allclose(np.asarray(similarity.unit_rows(w)), unit_in_numpy(w), atol=3e-7)
