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


def test_rows_above_thresholds_are_counted_in_the_same_pass():
    a, b = unit(30, 4), unit(17, 4)
    cosine, thresholds = a @ b.T, (0.2, 0.5, 0.9)
    there, back = similarity.best_match(a, b, thresholds=thresholds, block_size=7)
    for match, matrix in ((there, cosine), (back, cosine.T)):
        expected = np.stack([(matrix >= t).sum(1) for t in thresholds], axis=1)
        assert np.asarray(match.count).tolist() == expected.tolist()


def test_absolute_takes_opposites_for_the_same():
    a, b = unit(9, 3), unit(5, 3)
    there, back = similarity.best_match(a, b, absolute=True, block_size=4)
    np.testing.assert_allclose(there.cosine, np.abs(a @ b.T).max(1), atol=1e-6)
    np.testing.assert_allclose(back.cosine, np.abs(a @ b.T).max(0), atol=1e-6)
    assert (np.asarray(similarity.best_match(a, -a, absolute=True)[0].partner) == np.arange(9)).all()


@pytest.mark.parametrize("block_size", [3, 100])
@pytest.mark.parametrize("same", [False, True])
def test_top_matches_agree_with_numpy(same, block_size):
    a = unit(20, 5)
    b = a if same else unit(11, 5)
    cosine = (a @ b.T).astype(np.float64)
    if same:
        np.fill_diagonal(cosine, -np.inf)
    order = np.argsort(-cosine, axis=1, kind="stable")[:, :4]
    value, index = similarity.top_matches(a, b, 4, same=same, block_size=block_size)
    assert np.asarray(index).tolist() == order.tolist()
    np.testing.assert_allclose(value, np.take_along_axis(cosine, order, 1), atol=1e-6)
    with pytest.raises(ValueError, match="cannot be told"):
        similarity.top_matches(a, b, len(b) + 1 - same, same=same)


def test_the_first_of_equal_neighbours_counts():
    a = np.repeat(unit(2, 5), 3, axis=0)
    assert similarity.top_matches(a, a, 2, same=True)[1].tolist() == [[1, 2], [0, 2], [0, 1], [4, 5], [3, 5], [3, 4]]


def test_dictionaries_of_different_size_stand_side_by_side():
    w = unit(3, 12, 5)
    sizes = (12, 5, 1)
    w[1, 5:] = w[2, 1:] = 0
    best = similarity.all_pairs(w, sizes=sizes, thresholds=(0.3,), block_size=4)
    for i, size in enumerate(sizes):
        for j, other in enumerate(sizes):
            if i != j:
                cosine = w[i, :size] @ w[j, :other].T
                np.testing.assert_allclose(best.cosine[i, j, :size], cosine.max(1), atol=1e-6)  # also where all are below 0
                assert best.partner[i, j, :size].tolist() == cosine.argmax(1).tolist()
                assert best.count[i, j, :size, 0].tolist() == (cosine >= 0.3).sum(1).tolist()
        assert np.isnan(best.cosine[i, :, size:]).all() and (best.partner[i, :, size:] == -1).all()


def test_lengths_of_rows_may_be_anything():
    w = unit(2, 6, 4)
    expected = similarity.all_pairs(w).cosine
    w[0] *= 1e30
    w[1] *= 1e-30
    np.testing.assert_allclose(similarity.all_pairs(w).cosine, expected, atol=1e-6)


def test_every_pair_is_told_and_may_stop():
    seen = []
    similarity.all_pairs(unit(5, 3, 4), on_pair=lambda: seen.append(1))
    assert len(seen) == 10

    def stop():
        raise InterruptedError

    with pytest.raises(InterruptedError):
        similarity.all_pairs(unit(5, 3, 4), on_pair=stop)


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
