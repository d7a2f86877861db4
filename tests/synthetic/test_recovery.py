"""Known answers: the truth itself, the truth turned inside its block, nothing of it."""

import dataclasses

import numpy as np
import pytest

from configs import synthetic
from experiments import registry
from experiments.ground_truth import recovery as stage
from experiments.reappearance.labels import LabelRule
from stability.nulls import chance_of_match
from stability.subspaces import span_overlap
from synthetic import recovery
from synthetic.config import Recovery, WorldConfig
from synthetic.generator import make_truth


@pytest.fixture(scope="module")
def settings():
    c = synthetic.get_config("tiny")
    c.synthetic.width, c.synthetic.block_rank = 40, 12
    return registry.validated(c)


def measure(settings, w, alive):
    return stage.measure(settings[Recovery], settings[LabelRule], settings[WorldConfig], w, alive)


def orthogonal(rng, n):
    return np.linalg.qr(rng.normal(size=(n, n)))[0]


def dictionaries(settings, turn):
    """Three seeds with a latent on every atom, in an order of their own; block latents turned inside the block if `turn`."""
    truth, out = make_truth(settings[WorldConfig]), []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        rows = truth.atoms_AD.copy()
        if turn:
            basis = truth.bases[0]
            inside = truth.group_A == 1
            rows[inside] = rows[inside] @ basis @ orthogonal(rng, basis.shape[1]) @ basis.T
        out.append(rows[rng.permutation(len(rows))] * rng.uniform(0.5, 2.0, (len(rows), 1)))
    return np.stack(out).astype(np.float32)


def value(figures, *place):
    return figures[place].value


def test_spectra_are_shares_of_squared_norm_and_end_with_the_rank():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(30, 4)) @ orthogonal(rng, 10)[:4]
    share = recovery.spectrum(rows)
    assert share.shape == (10,) and share.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(share, np.sort(np.linalg.eigvalsh(rows.T @ rows))[::-1] / np.square(rows).sum(), atol=1e-12)
    assert share[3] > 0.01 > share[4]


def test_the_truth_is_found_in_every_sense(settings):
    w = dictionaries(settings, turn=False)
    got = measure(settings, w, np.ones(w.shape[:2], bool))
    for group in ("free", "block"):
        for figure in ("atoms found at 0.9", "atoms found one to one at 0.9", "p̂ at 0.9", "p̂ at 0.7", "PW-MCC", "ground-truth MCC"):
            assert value(got, group, "latents", figure) == pytest.approx(1.0, abs=1e-5), (group, figure)
    assert value(got, "free", "latents", "latents") == 20 and value(got, "block", "latents", "latents") == 24
    assert value(got, "block", "subspace", "top plane, overlap with the planted one, all its latents") == pytest.approx(1.0)
    assert value(got, "block", "subspace", "top plane, overlap between seeds, its unstable latents") is None  # none is unstable


def test_turned_inside_the_block_the_span_is_found_and_the_atoms_by_chance(settings):
    w = dictionaries(settings, turn=True)
    got = measure(settings, w, np.ones(w.shape[:2], bool))
    assert value(got, "free", "latents", "atoms found at 0.9") == 1.0
    for which in ("all its latents", "its unstable latents"):
        for what in ("overlap with the planted one", "overlap between seeds"):
            figure = got["block", "subspace", f"top plane, {what}, {which}"]
            assert figure.value == pytest.approx(1.0, abs=1e-5) and 12 / 40 < figure.null < 0.9  # noise chosen by where it lies
        angle = got["block", "subspace", f"largest principal angle to the planted plane, {which}"]
        assert angle.value < 0.1 < 30 < angle.null
    for what in ("overlap with the planted one", "overlap between seeds"):
        figure = got["blocks", "subspace", f"top plane, {what}, {stage.UNCHOSEN}"]
        assert (
            figure.value == pytest.approx(1.0, abs=1e-5) and abs(figure.null - 12 / 40) < 0.1
        )  # free atoms are stable, so nothing else is chosen
    p = got["block", "latents", "p̂ at 0.7"]
    assert p.null == pytest.approx(chance_of_match(0.7, 12, 24))
    assert abs(p.value - p.null) < 4 * (p.null * (1 - p.null) / (6 * 24)) ** 0.5  # 6 ordered pairs of 24 latents
    assert got["block", "latents", "PW-MCC"].value == pytest.approx(got["block", "latents", "PW-MCC"].null, abs=0.1)
    assert value(got, "block", "latents", "atoms found at 0.9") < 0.2


def test_dead_latents_are_neither_counted_nor_matched(settings):
    """Truth and a dead copy of rubbish beside it: the same figures as of the truth alone."""
    w = dictionaries(settings, turn=False)
    rubbish = np.random.default_rng(9).normal(size=w.shape).astype(np.float32)
    alive = np.concatenate([np.ones(w.shape[:2], bool), np.zeros(w.shape[:2], bool)], axis=1)
    alone = measure(settings, w, np.ones(w.shape[:2], bool))
    beside = measure(settings, np.concatenate([w, rubbish], axis=1), alive)
    for place, estimate in alone.items():
        assert beside[place].value == pytest.approx(estimate.value, abs=1e-5), place
    swapped = measure(settings, np.concatenate([rubbish, w], axis=1), ~alive)
    assert swapped["free", "latents", "p̂ at 0.9"].value == pytest.approx(1.0)


def test_latents_belong_to_the_block_that_holds_them():
    truth = make_truth(WorldConfig())
    basis = truth.bases[0]
    outside = truth.atoms_AD[0]
    rows = np.stack([basis[:, 0], outside, 0.8 * basis[:, 1] + 0.6 * outside, 0.6 * basis[:, 1] + 0.8 * outside])
    assert recovery.group_of_latents(truth, rows[None]).tolist() == [[1, 0, 1, 0]]
    assert (recovery.group_of_latents(truth, truth.atoms_AD[None])[0] == truth.group_A).all()


def test_a_plane_has_no_more_dimensions_than_its_rows_and_lacks_the_others():
    plane = recovery.top_plane(np.eye(5)[[0, 1, 1]], 4)
    assert plane.shape == (5, 2) and span_overlap(plane, np.eye(5)[:, :4]) == pytest.approx(0.5)
    assert span_overlap(plane, np.eye(5)[:, :2]) == pytest.approx(1.0) and span_overlap(plane, np.eye(5)[:, 2:4]) == 0
    assert recovery.top_plane(np.eye(5)[:0], 4) is None


def test_assignment_uses_every_latent_once():
    truth = recovery.Truth(np.eye(4), np.zeros(4, int), ())
    twice = np.stack([np.eye(4)[[0, 0, 1]]])
    got = recovery.atom_recovery(truth, twice, 0.9)
    assert got.found_SG[0, 0] == 0.5 and np.nansum(got.assigned_SA[0] > 0.9) == 2
    assert recovery.pairwise_assignment(np.eye(4)[:0], np.eye(4)) != recovery.pairwise_assignment(np.eye(4)[:0], np.eye(4))


@pytest.mark.parametrize(("rank", "width"), [(4, 24), (8, 16), (6, 6)])
def test_directions_chosen_alike_pass_the_choice_and_are_uniform_otherwise(rank, width):
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(width, width)))[0][:, :rank]
    rows = recovery.directions_chosen_alike(np.random.default_rng(1), 4000, basis)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-9)
    share = np.square(rows @ basis).sum(1)
    assert (share >= 0.5).all()
    if rank < width:  # the law of uniform directions that pass
        drawn = np.random.default_rng(2).normal(size=(400_000, width))
        inside = np.square(drawn[:, :rank]).sum(1) / np.square(drawn).sum(1)
        assert abs(share.mean() - inside[inside > 0.5].mean()) < 0.01
    assert np.abs(rows.mean(0)).max() < 0.06


def test_the_null_of_a_span_knows_that_its_latents_were_chosen_by_where_they_lie():
    """Noise that passes the choice overlaps with the planted plane far more than a random plane does."""
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(32, 32)))[0][:, :6]
    null = stage._nulls_of_chosen(basis, 60, 1)
    assert null.planted_overlap > 0.6 > 6 / 32 and null.seed_overlap > 0.4
    unchosen = stage._nulls_without_truth(basis, None, [])
    assert abs(unchosen.planted_overlap - 6 / 32) < 0.12
    acts = np.random.default_rng(1).normal(size=(500, 6)) @ basis.T  # all variance lies in the block
    assert stage._nulls_without_truth(basis, acts, [np.random.default_rng(2).normal(size=(50, 32))]).planted_overlap > 0.99


def test_of_two_blocks_each_is_found_and_their_union_without_the_truth(settings):
    two = settings.replaced(dataclasses.replace(settings[WorldConfig], blocks=2, block_rank=10))
    truth, rng = make_truth(two[WorldConfig]), np.random.default_rng(0)
    w = []
    for _ in range(3):
        rows = truth.atoms_AD.copy()
        for b, basis in enumerate(truth.bases, start=1):
            inside = truth.group_A == b
            rows[inside] = rows[inside] @ basis @ orthogonal(rng, 10) @ basis.T
        w.append(rows)
    got = measure(two, np.stack(w).astype(np.float32), np.ones((3, len(truth.atoms_AD)), bool))
    for group in ("block 1", "block 2"):
        assert value(got, group, "subspace", "top plane, overlap with the planted one, all its latents") == pytest.approx(1.0, abs=1e-5)
    assert {place[0] for place in got} == {"free", "block 1", "block 2", "blocks"}
    unchosen = got["blocks", "subspace", f"top plane, overlap with the planted one, {stage.UNCHOSEN}"]
    assert unchosen.value > 0.9 > unchosen.null
