import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from experiments.subspaces import predictors
from stability import nulls, reproducibility, subspaces

RNG = np.random.default_rng(0)


def plane(d, r, rng=RNG):
    return np.linalg.qr(rng.normal(size=(d, r)))[0].astype(np.float32)


@pytest.mark.parametrize(("r", "q"), [(4, 4), (6, 3), (3, 6), (1, 1)])
@pytest.mark.parametrize("tilt", [1.0, 1e-1, 1e-3, 1e-4, 0.0])
def test_principal_angles_agree_with_scipy(r, q, tilt):
    u = plane(20, r)
    v = np.linalg.qr((u[:, :q] if q <= r else np.concatenate([u, plane(20, q - r)], 1)) + tilt * plane(20, q))[0].astype(np.float32)
    expected = np.sort(scipy.linalg.subspace_angles(u.astype(np.float64), v.astype(np.float64)))
    np.testing.assert_allclose(subspaces.principal_angles(jnp.asarray(u), jnp.asarray(v)), expected, atol=2e-6, rtol=1e-5)


def test_planted_angles_come_back():
    angles = np.array([1e-4, 1e-2, 0.3, 1.2, np.pi / 2])
    q = plane(30, 10).astype(np.float64)
    u, v = q[:, :5], q[:, :5] * np.cos(angles) + q[:, 5:] * np.sin(angles)
    got = subspaces.principal_angles(jnp.asarray(u, jnp.float32), jnp.asarray(v, jnp.float32))
    np.testing.assert_allclose(got, angles, atol=1e-5)
    overlap = subspaces.nested_overlap(jnp.asarray(u, jnp.float32), jnp.asarray(v, jnp.float32), (5,))
    np.testing.assert_allclose(overlap, [np.mean(np.cos(angles) ** 2)], rtol=1e-5)


def test_random_planes_overlap_by_r_over_d():
    q = nulls.haar_rotations(jax.random.key(0), 400, 24)
    got = subspaces.nested_overlap(q[::2], q[1::2], (1, 6, 24)).mean(0)
    np.testing.assert_allclose(got, [1 / 24, 6 / 24, 1.0], rtol=0.15)
    np.testing.assert_allclose(got[2], 1.0, rtol=1e-5)


def test_nested_figures_are_the_plain_ones():
    u, v, rows = plane(12, 8), plane(12, 8), RNG.normal(size=(20, 12)).astype(np.float32)
    overlaps, energies = (
        subspaces.nested_overlap(jnp.asarray(u), jnp.asarray(v), (1, 3, 8)),
        subspaces.nested_energy(jnp.asarray(rows), jnp.asarray(u), (1, 3, 8)),
    )
    for i, r in enumerate((1, 3, 8)):
        np.testing.assert_allclose(overlaps[i], np.linalg.norm(u[:, :r].T @ v[:, :r]) ** 2 / r, rtol=1e-5)
        np.testing.assert_allclose(energies[i], np.linalg.norm(rows @ u[:, :r]) ** 2 / np.linalg.norm(rows) ** 2, rtol=1e-5)


def test_effective_ranks_of_known_spectra():
    flat = subspaces.effective_rank(jnp.array([1.0, 1.0, 1.0, 1.0, 0.0]))
    np.testing.assert_allclose(list(flat), 4.0, rtol=1e-6)
    one = subspaces.effective_rank(jnp.array([3.0, 0.0]))
    np.testing.assert_allclose(list(one), 1.0, rtol=1e-6)
    assert [float(x) for x in subspaces.effective_rank(jnp.zeros(3))] == [0.0] * 4
    sigma = np.array([2.0, 1.0])
    p = sigma / 3
    got = subspaces.effective_rank(jnp.asarray(sigma))
    np.testing.assert_allclose(
        list(got), [np.exp(-(p * np.log(p)).sum()), np.exp(-(0.8 * np.log(0.8) + 0.2 * np.log(0.2))), 25 / 17, 5 / 4], rtol=1e-6
    )


@pytest.mark.parametrize(("n", "expected"), [(500, 0.584), (2000, 0.946)])
def test_effective_rank_grows_with_n(n, expected):
    """The specification's figures for random unit rows at D = 768: why n must be equal."""
    rows = RNG.normal(size=(n, 768))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    sigma = np.linalg.svd(rows, compute_uv=False)
    np.testing.assert_allclose(subspaces.effective_rank(jnp.asarray(sigma)).entropy / 768, expected, atol=0.004)


def test_a_shared_plane_is_found_although_no_row_is_shared():
    basis, seeds = plane(40, 6), (0, 1, 2)
    w = np.stack([RNG.normal(size=(50, 6)) @ basis.T for _ in seeds]).astype(np.float32)
    w /= np.linalg.norm(w, axis=-1, keepdims=True)
    everyone = [np.arange(50)] * 3
    bases = reproducibility.draw_bases(w, everyone, 30, 4, seeds, salt=0)
    overlap = reproducibility.overlap_between_seeds(bases, bases, (6,))
    np.testing.assert_allclose(overlap[~np.isnan(overlap)], 1.0, atol=1e-4)
    assert np.isnan(overlap[np.arange(3), np.arange(3)]).all()
    np.testing.assert_allclose(np.nanmean(reproducibility.energy_between_seeds(bases, bases, (6,))), 1.0, atol=1e-4)
    assert np.nanmax(reproducibility.angles_between_seeds(bases, 6)) < 0.1
    np.testing.assert_allclose(reproducibility.overlap_with_plane(bases, basis, (6,)), 1.0, atol=1e-4)
    np.testing.assert_allclose(reproducibility.energy_in_plane(bases, basis, (6,)), 1.0, atol=1e-4)


def test_draws_belong_to_seeds_and_a_common_rotation_changes_nothing():
    w = RNG.normal(size=(3, 30, 8)).astype(np.float32)
    members = [np.arange(30), np.arange(5, 30), np.arange(20)]
    a = reproducibility.draw_bases(w, members, 10, 3, (4, 6, 8), salt=1)
    b = reproducibility.draw_bases(w[::-1], members[::-1], 10, 3, (8, 6, 4), salt=1)
    ranks = (1, 2, 4)
    first = reproducibility.overlap_between_seeds(a, a, ranks)
    np.testing.assert_allclose(reproducibility.overlap_between_seeds(b, b, ranks)[::-1, ::-1], first, atol=1e-5)
    turned = reproducibility.draw_bases(w @ plane(8, 8), members, 10, 3, (4, 6, 8), salt=1)
    np.testing.assert_allclose(reproducibility.overlap_between_seeds(turned, turned, ranks), first, atol=1e-4)


def test_principal_components_are_numpys():
    x = RNG.normal(size=(300, 5)) * [1, 5, 2, 3, 4] + 9
    got = reproducibility.principal_components(x)
    np.testing.assert_allclose(np.abs(got.T @ np.eye(5)[:, [1, 4, 3, 2, 0]]).diagonal(), 1, atol=0.03)


def test_too_few_features():
    with pytest.raises(ValueError, match="cannot draw 5 of 4"):
        subspaces.subsample(RNG, np.arange(4), 5, 2)


def test_draws_are_spread_as_the_targets_are():
    rng = np.random.default_rng(0)
    values, targets = rng.normal(size=4000), rng.normal(1.0, 0.5, size=500)
    weights = subspaces.matching_weights(values, targets)
    drawn = values[subspaces.subsample(rng, np.arange(4000), 200, 40, weights)]
    plain = values[subspaces.subsample(rng, np.arange(4000), 200, 40)]
    np.testing.assert_allclose(np.quantile(drawn, [0.25, 0.5, 0.75]), np.quantile(targets, [0.25, 0.5, 0.75]), atol=0.15)
    assert abs(plain.mean()) < 0.1


def test_weighted_draws_have_no_repeats_and_take_what_weighs_nothing_last():
    rng = np.random.default_rng(1)
    members, weights = np.arange(10, 20), np.array([1.0] * 6 + [0.0] * 4)
    chosen = subspaces.subsample(rng, members, 6, 30, weights)
    assert all(set(row) == set(range(10, 16)) for row in chosen.tolist())
    eight = subspaces.subsample(rng, members, 8, 30, weights)
    assert all(len(set(row)) == 8 and set(range(10, 16)) <= set(row) for row in eight.tolist())
    with pytest.raises(ValueError, match="cannot draw 11 of 10"):
        subspaces.subsample(rng, members, 11, 1, weights)


def test_a_null_of_fewer_features_is_held_against_as_few():
    """Overlap grows with the number of features: a null of few must not look weak for that."""
    table = lambda value: np.where(np.eye(3, dtype=bool), np.nan, value)[..., None]
    predictor = lambda name, n, value: predictors.Predictor(name, n, (4,), table(value), table(value))
    many, few = predictor(predictors.OWN, 100, 0.8), predictor(predictors.OWN, 20, 0.5)
    of_many, of_few = predictors.PCA, predictors.GAUSSIAN
    nulls_of = [predictor(of_many, 100, 0.6), predictor(of_few, 20, 0.45), predictor("random features of another seed", 100, 0.79)]
    against = predictors.against_nulls([many, *nulls_of], {100: many, 20: few}, "overlap", 4)
    assert predictors.excess(list(against.values()), np.ones(3)) == pytest.approx(0.05)
    assert set(against) == {of_many, of_few}  # random live features are no null, since many of them are unstable
