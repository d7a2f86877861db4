"""The stage on SAEs of which it is known what is shared, and on ones of different size."""

import numpy as np
import pytest

from configs import common
from experiments.reappearance import sensitivity
from stability import reappearance
from tests.experiments.dictionaries import listed, unit
from tests.experiments.tasks import task

STUDY = task("sensitivity", common.study())
S, F, D = 4, 40, 16


def decoders(share=0.5, seed=0):
    rng = np.random.default_rng(seed)
    shared = unit(int(share * F), D, rng=rng)
    return [np.concatenate([shared, unit(F - len(shared), D, rng=rng)])[rng.permutation(F)] for _ in range(S)]


def study(**changes):
    config = common.study()
    config.sensitivity.update(changes)
    return task("sensitivity", config)


def test_activations_of_a_shared_feature_correlate_and_those_of_another_do_not():
    w = decoders()
    acts = np.random.default_rng(1).normal(size=(3000, D)).astype(np.float32)
    of = listed(w, k=F)  # ReLU of all
    criterion = sensitivity._by_activations(study(candidates=2, rows=3000), of, acts, sensitivity.chosen_pairs(S, 0))
    best = np.stack([[[(a @ b.T).max(1) if i != j else np.full(F, np.nan) for j, b in enumerate(w)] for i, a in enumerate(w)]])[0]
    shared = best > 0.999
    assert (criterion.strength_SSF[shared] > 0.99).all() and np.nanmean(criterion.strength_SSF[best < 0.6]) < 0.8
    assert np.nanmax(np.where(shared, criterion.null_SSF, np.nan)) < 0.2


def test_both_wants_one_partner_for_decoder_and_encoder():
    rng = np.random.default_rng(0)
    w = unit(6, D, rng=rng)
    swapped = w[[1, 0, 2, 3, 4, 5]]
    of = listed([w, w], encoders=[w, swapped])
    compared = lambda rows: sensitivity._compared(STUDY, of, rows, "test")
    both = sensitivity._both(compared(of.w_dec_SFD), compared(of.w_enc_SFD))
    assert both[0, 1, :2].tolist() == [-1, -1] and both[0, 1, 2:] == pytest.approx(1.0) and np.isnan(both[0, 0]).all()


def test_one_to_one_is_stricter_where_one_feature_answers_for_two():
    rng = np.random.default_rng(0)
    base = unit(F, 64, rng=rng)
    twins = base.copy()
    twins[1] = twins[0]  # two features of the first, one of the second
    of = listed([twins, base])
    live = np.ones((2, F), bool)
    compared = sensitivity._compared(STUDY, of, of.w_dec_SFD, "test")
    turned = np.stack([unit(F, 64, rng=rng) for _ in range(2)])
    pairs = sensitivity._one_to_one(STUDY, of, turned, compared.cosine, live, [(0, 1)])
    assert pairs["anchor"] == [0, 1] and pairs["gap"] == [0.0, 0.0]
    assert pairs["shared"] == [pytest.approx((F - 1) / F)] * 2 and pairs["agreement"] == [pytest.approx((F - 1) / F), pytest.approx(1.0)]
    assert 0.9 < pairs["agreement_null"][0] < pairs["agreement"][1]  # nearly everything is in both sets
    assert pairs["pw_mcc_null"][0] < 0.7 < pairs["pw_mcc"][0]
    inside = sensitivity._neighbours(STUDY, of)
    assert (inside.nearest_SF[0] > 0.99).sum() == 2 and (inside.nearest_SF[1] > 0.99).sum() == 0
    several = sensitivity._share_of_several(compared.count[..., 0], live)
    assert several[1, 0] == pytest.approx(1 / F) and several[0, 1] == 0  # one of the second has two in the first


@pytest.mark.parametrize(("seeds", "each", "expected"), [(4, 0, 6), (5, 1, 5), (6, 2, 12), (3, 5, 3), (21, 0, 210), (22, 0, 110)])
def test_chosen_pairs_are_all_or_a_ring(seeds, each, expected):
    pairs = sensitivity.chosen_pairs(seeds, each)
    assert len(pairs) == len(set(pairs)) == expected and all(i < j for i, j in pairs)
    assert {p for pair in pairs for p in pair} == set(range(seeds))


def test_an_saes_own_lone_feature_has_no_neighbour():
    of = listed([unit(1, 3, rng=np.random.default_rng(0)), unit(5, 3, rng=np.random.default_rng(1))])
    inside = sensitivity._neighbours(STUDY, of)
    assert np.isnan(inside.nearest_SF[0]).all() and not np.isnan(inside.nearest_SF[1]).any()


def test_live_features_alone_are_asked():
    strength = np.full((2, 2, 3), np.nan)
    strength[0, 1], strength[1, 0] = [0.9, 0.1, 0.9], [0.1, 0.1, 0.1]
    live = np.array([[True, True, False], [True, False, False]])
    e = sensitivity._p(STUDY, sensitivity.Criterion(strength, strength * 0), 0.7, live)
    assert e.value == pytest.approx((0.5 + 0.0) / 2) and e.null == 0 and reappearance.reappears(strength, 0.7).sum() == 2


def test_the_order_of_saes_changes_no_figure():
    """Sizes differ, so one to one has two directions."""
    rng = np.random.default_rng(3)
    base = unit(F, D, rng=rng)
    saes = [base, base[rng.permutation(F)[:25]], unit(F, D, rng=rng)]
    found = []
    for order in ((0, 1, 2), (2, 0, 1)):
        of = listed([saes[i] for i in order], seeds=order)
        compared = sensitivity._compared(STUDY, of, of.w_dec_SFD, "test")
        pairs = sensitivity._one_to_one(STUDY, of, of.w_dec_SFD, compared.cosine, of.exists_SF, sensitivity.chosen_pairs(3, 0))
        found.append(
            {(a, b): (s, g) for a, b, s, g in zip(pairs["anchor"], pairs["other"], pairs["shared"], pairs["agreement"], strict=True)}
        )
    assert found[0].keys() == found[1].keys()
    for pair, values in found[0].items():
        assert values == pytest.approx(found[1][pair], nan_ok=True), pair
    assert found[0][1, 0] == pytest.approx((1.0, 1.0)) and found[0][0, 1][0] == pytest.approx(25 / F)
