"""The kernel against NumPy, its edge cases, and the known answers of reappearance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stability import nulls, reappearance, similarity

RNG = np.random.default_rng(0)


def unit(*shape, rng=RNG):
    w = rng.normal(size=shape).astype(np.float32)
    return w / np.linalg.norm(w, axis=-1, keepdims=True)


@pytest.mark.parametrize("block_size", [1, 4, 7, 30, 1000])
@pytest.mark.parametrize(("f", "g"), [(30, 30), (30, 12), (1, 5), (7, 1)])
def test_best_match_agrees_with_numpy(f, g, block_size):
    a, b = unit(f, 6), unit(g, 6)
    cosine = a @ b.T
    there, back = similarity.best_match(a, b, block_size=block_size)
    for match, matrix in ((there, cosine), (back, cosine.T)):
        np.testing.assert_allclose(match.cosine, matrix.max(1), atol=1e-6)
        np.testing.assert_allclose(matrix[np.arange(len(matrix)), np.asarray(match.partner)], matrix.max(1), atol=1e-6)


def test_no_f_by_g_matrix_is_kept():
    shape = jax.ShapeDtypeStruct((4096, 16), jnp.float32)
    memory = similarity.best_match.lower(shape, shape, block_size=128).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 8 * 128 * 4096 * 4  # a few blocks; the whole matrix is 32 of them


def test_ties_go_to_the_lowest_index_in_both_directions():
    a = np.repeat(unit(2, 5), 3, axis=0)
    there, back = similarity.best_match(a, a, block_size=2)
    assert there.partner.tolist() == back.partner.tolist() == [0, 0, 0, 3, 3, 3]


def test_zero_rows_match_nothing_and_nan_is_refused():
    w = unit(2, 5, 4)
    w[0, 3] = 0
    best = similarity.all_pairs(w)
    assert best.cosine[0, 1, 3] == 0
    assert not reappearance.reappears(np.asarray(best.cosine), 0.7)[0, 1, 3]
    w[1, 2, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        similarity.all_pairs(w)
    with pytest.raises(ValueError, match="at least 2"):
        similarity.all_pairs(unit(1, 5, 4))


def p_of(w, theta=0.7):
    hits = reappearance.reappears(np.asarray(similarity.all_pairs(w).cosine), theta)
    return hits.sum(1) / (len(w) - 1)


def test_a_permuted_copy_reappears_everywhere():
    w = unit(60, 32)
    copies = np.stack([w[RNG.permutation(60)] for _ in range(4)])
    assert (p_of(copies) == 1).all()


def test_a_rotated_copy_reappears_nowhere():
    w = np.stack([unit(60, 64)] * 4)
    turned = nulls.rotate_each(jax.random.key(0), w, (0, 1, 2, 3))
    assert (p_of(turned) == 0).all()


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_a_planted_share_of_common_rows_comes_back(share):
    n = int(share * 80)
    common = unit(n, 64)
    w = np.stack([np.concatenate([common, unit(80 - n, 64)])[RNG.permutation(80)] for _ in range(5)])
    assert p_of(w).mean() == share


def test_independent_bases_of_one_plane_reappear_at_the_closed_form_rate():
    rank, f, s = 8, 64, 12
    basis = np.linalg.qr(RNG.normal(size=(40, rank)))[0].T.astype(np.float32)
    w = np.stack([unit(f, rank) @ basis for _ in range(s)])
    expected = nulls.chance_of_match(0.7, rank, f)
    assert abs(p_of(w).mean() - expected) < 0.03


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99), s=st.sampled_from([2, 4]), f=st.sampled_from([13]))
def test_laws(seed, s, f):
    """Order of features, order of seeds, lengths of rows and a common rotation change nothing."""
    rng = np.random.default_rng(seed)
    w = unit(s, f, 6, rng=rng) + 0.7 * unit(1, f, 6, rng=rng)
    best = np.asarray(similarity.all_pairs(w).cosine)
    permutation, order = rng.permutation(f), rng.permutation(s)
    np.testing.assert_allclose(np.asarray(similarity.all_pairs(w[:, permutation]).cosine), best[..., permutation], atol=2e-6)
    np.testing.assert_allclose(np.asarray(similarity.all_pairs(w[order]).cosine), best[order][:, order], atol=2e-6)
    lengths = np.exp(rng.normal(size=(s, f, 1))).astype(np.float32)
    np.testing.assert_allclose(np.asarray(similarity.all_pairs(w * lengths).cosine), best, atol=2e-6)
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0].astype(np.float32)
    np.testing.assert_allclose(np.asarray(similarity.all_pairs(w @ turn).cosine), best, atol=5e-6)
    assert np.isnan(best[np.arange(s), np.arange(s)]).all()
