"""Every null model on dictionaries of which it is known what is shared."""

import dataclasses

import numpy as np
import pytest

from experiments.reappearance import null_models
from experiments.reappearance.labels import LabelRule, Reappearance
from stability import nulls
from tests.experiments.dictionaries import listed, unit

C, RULE = Reappearance(null_draws=2, span_rank=4), LabelRule()
S, F, D = 4, 60, 24
NOBODY = np.full((S, S, F), -1)
LIVE = np.ones((S, F), bool)


def planted(seed=0):
    """Half of the rows shared; the other half lies in one plane of rank 4, with a basis of its own in every seed."""
    rng = np.random.default_rng(seed)
    common_rows, plane = unit(F // 2, D, rng=rng), np.linalg.qr(rng.normal(size=(D, 4)))[0].T
    return [np.concatenate([common_rows, unit(F // 2, 4, rng=rng) @ plane]) for _ in range(S)]


@pytest.fixture(scope="module")
def models():
    firings = np.tile(np.arange(F), (S, 1))
    unstable = np.zeros((S, F), bool)
    unstable[:, F // 2 :] = True
    gaussian = listed([unit(F, D, rng=np.random.default_rng(9 + s)) for s in range(2)])
    covariance = np.diag(np.linspace(4.0, 0.5, D))
    of_gaussian = (gaussian, np.ones((2, F), bool))
    return null_models.measure(C, RULE, listed(planted()), NOBODY, of_gaussian, covariance, firings, LIVE, unstable, lambda: None)


def test_all_that_can_be_had_are_there(models):
    assert set(models.figures) == {
        null_models.HAAR, null_models.GAUSSIAN, null_models.WHITENED, null_models.FREQUENCY, null_models.CLOSED, null_models.SPAN
    }  # fmt: skip
    assert all(len(curve) == len(C.thetas) for curve in models.p_of_theta.values())
    assert all(a >= b for curve in models.p_of_theta.values() for a, b in zip(curve, curve[1:], strict=False))  # falls with θ


def test_unrelated_dictionaries_match_at_the_closed_form_rate(models):
    expected = nulls.chance_of_match(RULE.theta, D, F)
    for model in (null_models.GAUSSIAN, null_models.CLOSED):
        assert abs(models.figures[model]["p"] - expected) < 0.02
    half_in_a_plane = models.figures[null_models.HAAR]["p"]  # rotated planes are no more alike
    assert half_in_a_plane < 0.1


def test_inside_their_span_unstable_features_match_by_chance(models):
    """The plane is shared, so turning inside it leaves the closed form of its rank."""
    assert abs(models.figures[null_models.SPAN]["p"] - nulls.chance_of_match(RULE.theta, 4, F // 2)) < 0.08


def test_the_strongest_null_is_no_model_that_is_only_shown_or_speaks_of_some_features():
    figures = {
        null_models.HAAR: {"p": 0.1, "unstable": 0.8},
        null_models.GAUSSIAN: {"p": 0.2, "unstable": 0.6},
        null_models.WHITENED: {"p": 0.9, "unstable": 0.0},
        null_models.SPAN: {"p": 0.8},
    }
    curves = {null_models.HAAR: [0.3, 0.1], null_models.GAUSSIAN: [0.2, 0.2], null_models.WHITENED: [1.0, 1.0]}
    found = null_models.NullModels(figures, curves, np.empty(0))
    assert found.strongest("p") == 0.2 and found.strongest("unstable") == 0.6 and found.strongest_p_of_theta() == [0.3, 0.2]


def test_without_activations_and_without_unstable_features_fewer_are_left():
    found = null_models.measure(C, RULE, listed(planted()), NOBODY, None, None, None, LIVE, np.zeros((S, F), bool), lambda: None)
    assert set(found.figures) == {null_models.HAAR, null_models.CLOSED}


def test_the_order_of_seeds_changes_no_null():
    """Rotations are keyed by seed, so a list turned around gives the same."""
    w = planted()
    a, b = (
        null_models.measure(C, RULE, of, NOBODY, None, None, None, LIVE, np.zeros((S, F), bool), lambda: None).figures[null_models.HAAR]
        for of in (listed(w, seeds=(4, 5, 6, 7)), listed(w[::-1], seeds=(7, 6, 5, 4)))
    )
    assert a == pytest.approx(b, abs=1e-9)


def test_matched_frequency_draws_neighbours_in_rate_and_never_the_best_match():
    """Rows in pairs of one direction, a pair next to each other in rate: neighbours are alike, others are not."""
    rng = np.random.default_rng(0)
    w = np.repeat(unit(F // 2, 64, rng=rng), 2, axis=0)
    firings = np.tile(np.arange(1, F + 1), (2, 1))
    partner = np.tile(np.arange(F), (2, 2, 1))
    of = lambda rows, rates: null_models.measure(
        C, RULE, listed([w, rows]), partner, None, None, rates, LIVE[:2], np.zeros((2, F), bool), lambda: None
    ).figures[null_models.FREQUENCY]["p"]
    near, far = of(w, firings), of(w, np.stack([firings[0], rng.permutation(firings[1])]))
    assert 0.1 < near < 0.6 and far < 0.1
    assert of(unit(F, 64, rng=rng), firings) == 0


def test_a_null_asks_no_more_seeds_than_it_is_told():
    some = dataclasses.replace(C, null_seeds=2)
    pairs = []
    found = null_models.measure(
        some, RULE, listed(planted()), NOBODY, None, None, None, LIVE, np.zeros((S, F), bool), lambda: pairs.append(1)
    )
    assert len(pairs) == C.null_draws and found.rotated_SSF.shape == (2, 2, F)


def test_a_larger_dictionary_behind_the_nulls_seeds_changes_no_shape_and_counts_for_chance():
    some = dataclasses.replace(C, null_seeds=2)
    w = [rows[:20] for rows in planted()[:2]] + [planted()[2]]
    live = np.arange(F) < np.array([20, 20, F])[:, None]
    found = null_models.measure(some, RULE, listed(w), NOBODY[:3, :3], None, None, live * 5, live, live & (np.arange(F) > 9), lambda: None)
    assert found.figures[null_models.CLOSED]["p"] == nulls.chance_of_match(RULE.theta, D, F) and found.rotated_SSF.shape == (2, 2, 20)


def test_a_null_of_few_saes_does_not_make_labels_easier():
    """Features that match in 30 % of comparisons: 'in none of them' is far rarer among 20 than among the null's own two."""
    hits = np.random.default_rng(0).uniform(size=(3, 3, 4000)) < 0.3
    hits[np.arange(3), np.arange(3)] = False
    everyone = np.ones((3, 4000), bool)
    among_two = (hits.sum(axis=1) == 0).mean()
    same = np.zeros((3, 3, 4000), bool)
    same[[0, 1, 2], [1, 2, 0]] = True  # every feature in half of the comparisons
    assert among_two > 0.45
    assert null_models.label_share(same, everyone, 0.05, 20, stable=False) < 1e-3
    assert null_models.label_share(hits & False, everyone, 0.05, 20, stable=False) == 1
    assert null_models.label_share(~np.eye(3, dtype=bool)[:, :, None] | hits, everyone, 0.05, 20, stable=True) == 1


def test_dead_features_are_no_part_of_a_null():
    live = LIVE.copy()
    live[:, : F // 2] = False
    of = lambda live: null_models.measure(C, RULE, listed(planted()), NOBODY, None, None, None, live, live & False, lambda: None)
    turned = of(live).rotated_SSF
    assert of(live).figures[null_models.HAAR]["mmcs"] != of(LIVE).figures[null_models.HAAR]["mmcs"]
    assert np.nanmean(turned[:, :, F // 2 :]) == pytest.approx(of(live).figures[null_models.HAAR]["mmcs"], abs=0.05)


def test_without_any_live_feature_there_is_no_null_but_the_closed_form():
    nobody = LIVE & False
    found = null_models.measure(C, RULE, listed(planted()), NOBODY, None, None, None, nobody, nobody, lambda: None)
    assert found.strongest("mmcs") is None and found.strongest("p") == nulls.chance_of_match(RULE.theta, D, F)
    assert not np.isnan(found.strongest_p_of_theta()).any()


def test_a_model_added_to_the_records_is_measured_shown_and_counts_as_it_says(monkeypatch):
    added = [
        null_models.NullModel(f"one value ({counts})", counts, lambda m: null_models.Measured({"p": 0.9}, [])) for counts in (True, False)
    ]
    measured = lambda: null_models.measure(C, RULE, listed(planted()), NOBODY, None, None, None, LIVE, np.zeros((S, F), bool), lambda: None)
    for model, strongest in zip(added, (0.9, measured().strongest("p")), strict=True):
        with monkeypatch.context() as m:
            m.setattr(null_models, "NULL_MODELS", (*null_models.NULL_MODELS, model))
            assert measured().figures[model.name] == {"p": 0.9} and measured().strongest("p") == strongest
