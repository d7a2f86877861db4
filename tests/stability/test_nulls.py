import jax
import numpy as np
import pytest

from stability import nulls, similarity


@pytest.mark.parametrize(
    ("rank", "f", "expected"), [(8, 64, 0.685), (16, 512, 0.362), (32, 512, 0.0015), (64, 1024, 4.4e-8), (3, 24, 0.98)]
)
def test_closed_form_of_the_specification(rank, f, expected):
    np.testing.assert_allclose(nulls.chance_of_match(0.7, rank, f), expected, rtol=0.03)


@pytest.mark.parametrize(("theta", "rank", "f"), [(0.7, 8, 64), (0.5, 12, 100), (0.9, 3, 24), (0.0, 4, 1), (0.7, 2, 1)])
def test_closed_form_by_simulation(theta, rank, f):
    rng, draws = np.random.default_rng(0), 4000
    w = rng.normal(size=(draws, f, rank))
    cosine = w[..., 0] / np.linalg.norm(w, axis=-1)  # against the first axis: any fixed direction does
    got = (cosine.max(1) >= theta).mean()
    expected = nulls.chance_of_match(theta, rank, f)
    assert abs(got - expected) < 4 * np.sqrt(expected * (1 - expected) / draws) + 1e-3


@pytest.mark.parametrize("arguments", [(0.7, 1, 5), (1.2, 4, 5), (-0.1, 4, 5), (0.7, 4, 0)])
def test_where_the_closed_form_does_not_apply(arguments):
    with pytest.raises(ValueError, match="chance_of_match"):
        nulls.chance_of_match(*arguments)


def test_rotations_are_orthogonal_and_uniform():
    q = np.asarray(nulls.haar_rotations(jax.random.key(0), 3000, 4))
    np.testing.assert_allclose(np.einsum("nij,nkj->nik", q, q), np.tile(np.eye(4), (3000, 1, 1)), atol=1e-5)
    np.testing.assert_allclose(q.mean(0), 0, atol=4 * 0.5 / np.sqrt(3000))  # without the sign fix the diagonal is biased
    np.testing.assert_allclose((q**2).mean(0), 0.25, atol=0.02)


def test_a_rotation_keeps_a_dictionary_and_belongs_to_its_seed():
    w = np.random.default_rng(0).normal(size=(3, 10, 6)).astype(np.float32)
    turned = np.asarray(nulls.rotate_each(jax.random.key(0), w, (4, 7, 9)))
    np.testing.assert_allclose(np.einsum("sfd,sgd->sfg", turned, turned), np.einsum("sfd,sgd->sfg", w, w), atol=1e-5)
    again = np.asarray(nulls.rotate_each(jax.random.key(0), w[::-1], (9, 7, 4)))
    np.testing.assert_allclose(again[::-1], turned, atol=1e-6)
    assert np.abs(np.asarray(nulls.rotate_each(jax.random.key(1), w, (4, 7, 9))) - turned).max() > 0.1


def orthonormal(d, r, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, r)))[0].astype(np.float32)


def test_a_rotation_inside_a_subspace_leaves_what_is_outside():
    w = np.random.default_rng(0).normal(size=(2, 10, 6)).astype(np.float32)
    basis = orthonormal(6, 3)
    turned = np.asarray(nulls.rotate_each_inside(jax.random.key(0), w, (0, 1), basis))
    np.testing.assert_allclose(turned - turned @ basis @ basis.T, w - w @ basis @ basis.T, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(turned @ basis, axis=-1), np.linalg.norm(w @ basis, axis=-1), rtol=1e-4)
    np.testing.assert_allclose(np.einsum("sfd,sgd->sfg", turned, turned), np.einsum("sfd,sgd->sfg", w, w), atol=1e-4)
    assert np.abs((turned - w) @ basis).max() > 0.1


def test_rows_inside_one_plane_agree_by_chance_alone_once_it_is_turned():
    """Shared rows in a plane of rank 8: p̂ falls from 1 to the closed form."""
    basis = orthonormal(40, 8)
    rows = np.random.default_rng(1).normal(size=(64, 8)) @ basis.T
    w = np.tile(rows[None], (12, 1, 1)).astype(np.float32)
    turned = nulls.rotate_each_inside(jax.random.key(0), w, tuple(range(12)), basis)
    p = lambda w: float((np.nan_to_num(similarity.all_pairs(w).cosine) >= 0.7).sum() / (12 * 11 * 64))
    assert p(w) == 1 and abs(p(turned) - nulls.chance_of_match(0.7, 8, 64)) < 0.03


def test_the_whitened_rotation_keeps_the_metric_of_the_activations():
    rng = np.random.default_rng(0)
    scale = np.diag([9.0, 4.0, 1.0, 1.0, 0.25])
    w = rng.normal(size=(3, 10, 5)).astype(np.float32)
    turned = np.asarray(nulls.rotate_each_whitened(jax.random.key(0), w, (0, 1, 2), scale), np.float64)
    whitened = lambda rows: rows / np.sqrt(np.diag(scale))
    np.testing.assert_allclose(
        np.einsum("sfd,sgd->sfg", whitened(turned), whitened(turned)), np.einsum("sfd,sgd->sfg", whitened(w), whitened(w)), atol=1e-3
    )
    equal = np.asarray(nulls.rotate_each_whitened(jax.random.key(0), w, (0, 1, 2), 2.0 * np.eye(5)))
    np.testing.assert_allclose(equal, np.asarray(nulls.rotate_each(jax.random.key(0), w, (0, 1, 2))), atol=1e-5)
