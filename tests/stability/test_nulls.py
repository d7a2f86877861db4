import jax
import numpy as np
import pytest

from stability import nulls


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
