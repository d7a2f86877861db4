import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

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
