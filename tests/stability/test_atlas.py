import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.reappearance.labels import LabelRule
from experiments.subspaces.atlas import Atlas, rules_of
from stability import atlas, nulls
from stability.subspaces import span_overlap
from tests.stability import planted

D, S = 48, 4
RULES = rules_of(Atlas(), LabelRule(), D)._replace(n_starts=8)


def world(seed, ranks, per_seed=24, noise=12, seeds=S):
    """(rows of every seed, the planes): each plane filled anew in every seed, beside rows that nobody shares."""
    rng = np.random.default_rng(seed)
    planes = planted.planes(rng, D, ranks)
    rows = [np.concatenate([*(planted.filled(rng, p, per_seed) for p in planes), planted.anywhere(rng, noise, D)]) for _ in range(seeds)]
    return rows, planes


@pytest.mark.parametrize(("seed", "ranks"), [(0, (12,)), (1, (8, 12)), (2, (6, 9, 12))])
def test_planted_planes_come_back(seed, ranks):
    rows, planes = world(seed, ranks)
    found = atlas.make(rows, RULES)
    assert len(found) == len(ranks)
    for plane in planes:
        best = max(found, key=lambda e: span_overlap(e.plane_DR, plane))
        assert best.rank == plane.shape[1] and span_overlap(best.plane_DR, plane) > 0.97
        assert best.agreement > 0.9 and best.gap > 5
        for without in best.without_SDR:
            np.testing.assert_allclose(without.T @ without, np.eye(best.rank), atol=1e-5)
            assert span_overlap(without, plane) > 0.95


def test_no_plane_where_nothing_is_shared():
    """Every seed turned by a rotation of its own, 60 times: each still fills its planes, and no two the same."""
    rows, _ = world(3, (8, 12), per_seed=20, noise=20)
    stacked = np.stack(rows).astype(np.float32)
    turn = lambda draw: np.asarray(nulls.rotate_each(jax.random.key(draw), stacked, tuple(range(S))))
    assert len(atlas.make(rows, RULES)) == 2
    assert [len(atlas.make(list(turn(draw)), RULES)) for draw in range(60)] == [0] * 60


def test_features_that_each_reappear_are_no_plane():
    """Rows shared one by one by most seeds span a plane too, but one direction for each dimension says nothing of a basis."""
    rng = np.random.default_rng(4)
    shared = planted.anywhere(rng, 10, D)
    rows = [np.concatenate([planted.unit(shared + 0.02 * rng.normal(size=shared.shape)), planted.anywhere(rng, 30, D)]) for _ in range(S)]
    assert atlas.make(rows, RULES) == []


@pytest.mark.parametrize(("seeds", "fade"), [(4, 6), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((4, 12), (8, 12)))])
def test_a_span_that_fades_out_is_no_plane(seeds, fade):
    """Clouds of one anisotropic law, with nothing else in common: 60 worlds."""
    entries = []
    for world_seed in range(60):
        rng = np.random.default_rng((world_seed, fade))
        rows = [planted.unit(rng.normal(size=(60, D)) * np.exp(-np.arange(D) / fade)) for _ in range(seeds)]
        entries.append(len(atlas.make(rows, RULES)))
    assert entries == [0] * 60


def test_planes_through_the_midst_of_others_are_found_by_blunter_rules():
    """So that what keeps clouds out is seen to do something."""
    found = 0
    for world_seed in range(10):
        rng = np.random.default_rng((world_seed, 12))
        rows = [planted.unit(rng.normal(size=(60, D)) * np.exp(-np.arange(D) / 12)) for _ in range(8)]
        for e in atlas.make(rows, RULES._replace(gap=1.0, min_separation=0.1)):
            found += 1
            assert e.gap < 2.5 or atlas.separation(np.concatenate(rows), e.plane_DR, RULES) < 0.9
    assert found > 3


def test_entries_turn_with_the_rows_and_do_not_depend_on_their_order():
    rows, _ = world(6, (8,))
    rng = np.random.default_rng(7)
    q = np.linalg.qr(rng.normal(size=(D, D)))[0]
    (plain,) = atlas.make(rows, RULES)
    (turned,) = atlas.make([r @ q for r in rows], RULES)
    (shuffled,) = atlas.make([r[rng.permutation(len(r))] for r in rows], RULES)
    (swapped,) = atlas.make([rows[i] for i in (2, 3, 0, 1)], RULES)
    assert span_overlap(plain.plane_DR, q @ turned.plane_DR) > 1 - 1e-6
    for other in (shuffled, swapped):
        assert span_overlap(plain.plane_DR, other.plane_DR) > 1 - 1e-6


def test_wide_rows_are_searched_in_their_leading_directions():
    rows, planes = world(12, (8,), noise=2)
    (whole,), (fewer,) = atlas.make(rows, RULES), atlas.make(rows, RULES._replace(directions=24))
    assert fewer.plane_DR.shape == whole.plane_DR.shape and span_overlap(fewer.plane_DR, planes[0]) > 0.95
    np.testing.assert_allclose(fewer.without_SDR[1].T @ fewer.without_SDR[1], np.eye(8), atol=1e-5)
    assert span_overlap(fewer.plane_DR, whole.plane_DR) > 0.99


def test_what_is_too_little():
    rng = np.random.default_rng(8)
    with pytest.raises(ValueError, match="3 seeds: an atlas compares two halves"):
        atlas.make([planted.anywhere(rng, 5, D)] * 3, RULES)
    assert atlas.make([np.zeros((0, D))] * 4, RULES) == []
    assert atlas.make([planted.anywhere(rng, 1, D) for _ in range(4)], RULES) == []
    assert atlas.make([np.repeat(planted.anywhere(rng, 1, D), 20, axis=0)] * 4, RULES) == []  # one row again and again


def test_members_are_judged_by_planes_of_other_seeds():
    rows, planes = world(9, (8,))
    found = atlas.make(rows, RULES)
    unit_SFD, n = np.stack(rows), 24
    among_SF = np.ones(unit_SFD.shape[:2], bool)
    among_SF[0, :3] = False
    entry_SF, energy_SF = atlas.members(found, unit_SFD, among_SF, 0.7)
    assert (entry_SF[0, :3] == -1).all() and (energy_SF[0, :3] == 0).all()
    assert (entry_SF[1:, :n] == 0).all() and (entry_SF[:, n:] == -1).all()
    expected = np.square(unit_SFD[2] @ found[0].without_SDR[2]).sum(1)
    np.testing.assert_allclose(energy_SF[2], expected, atol=1e-6)
    assert span_overlap(found[0].without_SDR[2], planes[0]) > 0.95


def test_the_plane_without_a_seed_knows_nothing_of_its_rows():
    rows, planes = world(13, (8,))
    rng = np.random.default_rng(14)
    others = [*rows[:2], planted.filled(rng, planes[0], 9, jitter=0.3), rows[3]]
    plain, changed = (atlas._without_each(r, planes[0], RULES) for r in (rows, others))
    np.testing.assert_allclose(plain[2], changed[2], atol=1e-12)
    assert all(np.abs(plain[s] - changed[s]).max() > 1e-3 for s in (0, 1, 3))


def test_spans_agree_and_chance_does_not():
    rows, _ = world(10, (8,))
    chosen = [r[:24] for r in rows]
    span_SS = atlas.span_agreement(chosen, 8)
    assert np.isnan(np.diag(span_SS)).all() and np.nanmin(span_SS) > 0.9
    np.testing.assert_allclose(span_SS, span_SS.T, equal_nan=True)
    turned = np.asarray(nulls.rotate_each(jax.random.key(0), np.stack(rows).astype(np.float32), tuple(range(S))))
    by_chance = [atlas.agreement_by_chance(list(turned), [24] * S, 8, draw) for draw in range(5)]
    # More than random planes, 8/48, since rows are chosen for lying in one; far less than what is planted.
    assert 8 / D < np.mean(by_chance) < 0.5
    none = atlas.span_agreement([np.zeros((0, D)), chosen[0], chosen[1][:3]], 8)
    assert none[0, 1] == 0 and none[1, 2] <= 3 / 8 + 1e-6  # what is missing counts as missed


def test_rank_by_the_largest_gap():
    size = jnp.asarray([9.0, 8.0, 7.0, 6.0, 1.0, 0.9, 0.1, 0.0])
    assert int(atlas._rank_by_gap(size, 2, 5)) == 4
    assert int(atlas._rank_by_gap(size, 5, 6)) == 6
    assert atlas.own_rank(planted.anywhere(np.random.default_rng(0), 4, D), RULES) == 0  # four rows: no rank from 4 on can be told
    rows, _ = world(11, (8,))
    assert atlas.own_rank(rows[0][:24], RULES) == 8
