import numpy as np
import pytest

from stability import prediction, reappearance, similarity, transfer
from stability.prediction import References
from stability.transfer import BOTH, CROWDING, FREQUENCY, NEIGHBOUR, PREDICTORS, PREVALENCE, ROWS, Seeds
from tests.stability import planted

D, F, S = 16, 60, 6


def seeds_of(rows_SFD, rate=None):
    unit_SFD = planted.unit(rows_SFD).astype(np.float32)
    best = similarity.all_pairs(unit_SFD)
    crowding = np.zeros(unit_SFD.shape[:2])
    hits = reappearance.reappears(best.cosine, 0.9)
    return Seeds(unit_SFD, hits, np.ones(unit_SFD.shape[:2], bool), crowding, rate, transfer.directions(best.partner, hits)), best


def halves_apart(rng, shared=30):
    """Shared rows point to one half of the space, the others to the other: told by their first coordinate."""
    common = np.abs(rng.normal(size=(shared, D)))
    rows = np.stack([np.concatenate([common, rng.normal(size=(F - shared, D))]) for _ in range(S)])
    rows[:, :shared, 0], rows[:, shared:, 0] = 3.0, -3.0
    return rows


def test_what_can_be_told_is_told():
    of, _ = seeds_of(halves_apart(np.random.default_rng(0)), rate=np.zeros((S, F)))
    found = transfer.between_halves(of, 0.05, 2, 3, 1000)
    assert tuple(found) == PREDICTORS
    assert found[ROWS].auroc > 0.99 and found[ROWS].f1 > 0.9
    assert found[CROWDING].auroc == found[FREQUENCY].auroc == found[BOTH].auroc == found[PREVALENCE].auroc == 0.5
    # A stable direction counts once, in how many seeds ever it is: 30 of them beside 30 unstable ones in each of three seeds.
    assert found[PREVALENCE].f1 == pytest.approx(2 * 0.75 / 1.75)


def test_what_cannot_be_told_is_at_chance():
    """Labels by rows of which nobody knows which is shared: other shared rows in each half of the seeds."""
    rng = np.random.default_rng(1)
    scores = []
    for _ in range(12):
        common = rng.normal(size=(2, 30, D))
        rows = np.stack([np.concatenate([common[s % 2], rng.normal(size=(F - 30, D))]) for s in range(4)])
        of, _ = seeds_of(rows)
        sides = [transfer.labelled(of, places, 0.05, 1000) for places in ([0, 2], [1, 3])]
        assert [side.unstable_N.mean() for side in sides] == [0.5, 0.5]
        scores.append(transfer.scores(*sides, folds=3)[ROWS].auroc)
    assert abs(np.mean(scores) - 0.5) < 0.06


def test_what_recurs_cannot_be_told_by_heart():
    """Stable rows are everywhere in space, as unstable ones are: the nearest neighbour knew them, so long as they were among what it learned from."""
    rng = np.random.default_rng(8)
    common = rng.normal(size=(200, D))
    rows = np.stack([np.concatenate([common, rng.normal(size=(200, D))]) for _ in range(4)])
    of, _ = seeds_of(rows)
    sides = [transfer.labelled(of, places, 0.05, 10_000) for places in ([0, 1], [2, 3])]
    by_heart, held_out = transfer.scores(*sides, folds=0), transfer.scores(*sides, folds=4, draws=50)
    assert by_heart[NEIGHBOUR].auroc > 0.99
    for name in (ROWS, NEIGHBOUR):
        spread = held_out[name].auroc_R.std()
        assert 0.005 < spread < 0.06 and abs(held_out[name].auroc - 0.5) < 3 * spread


def test_directions_are_what_hangs_together_by_mutual_best_matches():
    # Three seeds of four features: 0 is one direction in all; 1 in the first two; 2 of the first matches 3 of the second, whose best is another.
    partner, hits = np.full((3, 3, 4), -1), np.zeros((3, 3, 4), bool)

    def match(a, i, b, j, back=True):
        partner[a, b, i], hits[a, b, i] = j, True
        if back:
            partner[b, a, j], hits[b, a, j] = i, True

    match(0, 0, 1, 0), match(1, 0, 2, 2), match(0, 1, 1, 1)
    match(0, 2, 1, 3, back=False)
    partner[1, 0, 3] = 1
    partner[1, 2, 1], partner[2, 1, 1] = 1, 1  # mutual, but below θ
    found = transfer.directions(partner, hits)
    assert found[0, 0] == found[1, 0] == found[2, 2] and found[0, 1] == found[1, 1]
    assert len(np.unique(found)) == 12 - 2 - 1


def test_a_fold_has_no_direction_of_what_it_is_judged_by(monkeypatch):
    of, _ = seeds_of(halves_apart(np.random.default_rng(3)))
    sides = [transfer.labelled(of, places, 0.05, 1000) for places in ([0, 1, 2], [3, 4, 5])]
    asked = []

    def look(train, test, only):
        assert not set(train.direction_N) & set(test.direction_N) and {True, False} == set(train.unstable_N.tolist())
        asked.extend(test.direction_N.tolist())
        return {ROWS: (test.unstable_N, test.unstable_N.astype(float))}

    monkeypatch.setattr(transfer, "_predictions", look)
    assert transfer.scores(*sides, folds=4)[ROWS].auroc == 1.0
    assert sorted(asked) == sorted(sides[1].direction_N.tolist())


def test_weighted_auroc_is_that_of_scikit_learn():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(9)
    positive, value = rng.random(300) < 0.3, rng.integers(0, 20, 300).astype(float)
    weight = rng.poisson(1.0, (5, 300)).astype(float)
    expected = [roc_auc_score(positive, value, sample_weight=w) for w in weight]
    np.testing.assert_allclose(transfer.weighted_auroc(positive, value, weight), expected, rtol=1e-12)


def test_labels_come_from_the_half_alone():
    """A row that the other half shares is unstable in a half that does not."""
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(4, 20, D))
    rows[2:, 0] = rows[2, 0]  # seeds 2 and 3 have a row in common,
    rows[:, 1] = rows[0, 1]  # all of them another,
    rows[0, 2] = rows[2, 2]  # and seeds 0 and 2 one that says nothing within either half
    of, _ = seeds_of(rows)
    first, second = (transfer.labelled(of, places, 0.05, 1000) for places in ([0, 1], [2, 3]))
    assert (~first.unstable_N).sum() == 2 and (~second.unstable_N).sum() == 4
    fewer = transfer.labelled(of, [2, 3], 0.05, 10)
    assert len(fewer.unstable_N) == 10
    with pytest.raises(ValueError, match="1 seed"):
        transfer.labelled(of, [0], 0.05, 1000)


def test_splits_are_disjoint_halves_and_fixed():
    for seeds in (4, 7):
        pairs = transfer.splits(seeds, 3)
        assert len(pairs) == 6 and pairs == transfer.splits(seeds, 3)
        for train, test in pairs:
            assert not set(train) & set(test) and set(train) | set(test) == set(range(seeds))


def test_nothing_to_learn_from():
    rows = np.stack([np.random.default_rng(3).normal(size=(F, D))] * 4)
    of, _ = seeds_of(rows)  # all stable
    assert transfer.between_halves(of, 0.05, 2, 3, 1000) == {}


def references_of(p_F, seeds, rng):
    """Every feature of a common list is in an SAE with its own probability; else something else stands there."""
    common = planted.anywhere(rng, len(p_F), 32)
    rows = [np.where(rng.uniform(size=(len(p_F), 1)) < p_F[:, None], common, planted.anywhere(rng, len(p_F), 32)) for _ in range(seeds)]
    unit = np.stack(rows).astype(np.float32)
    best = similarity.all_pairs(unit)
    return unit, References(best.cosine, best.partner, np.zeros(unit.shape[:2], np.float32))


def test_predictions_are_calibrated_and_beat_the_share():
    rng = np.random.default_rng(4)
    p_F = rng.choice([0.1, 0.5, 0.9], 300)
    _, references = references_of(p_F, 8, rng)
    found = prediction.calibrate(references, 0.9, np.ones((8, 300), bool))
    assert found.error < 0.03 and found.features_T.sum() == 8 * 7 * 300
    assert found.brier < 0.99 * found.brier_of_share and found.brier < 0.75 * found.brier_of_mean
    # Every bin by itself, so that predictions that are right on average alone do not pass.
    np.testing.assert_allclose(found.predicted_T, found.observed_T, atol=0.08)


def test_query_saes_get_what_the_calibration_says():
    """Predictions for a query SAE follow the probabilities that its features have, as well as the calibration says."""
    rng = np.random.default_rng(5)
    p_F = rng.choice([0.1, 0.5, 0.9], 400)
    unit, whole = references_of(p_F, 9, rng)
    references = References(*(a[:8] if a.ndim == 2 else a[:8, :8] for a in whole))
    everyone = np.ones((8, 400), bool)
    predicted = prediction.predict(
        prediction.fit(references, 0.9, everyone), references, whole.cosine_SSF[8, :8], whole.partner_SSF[8, :8], whole.crowding_SF[8]
    )
    assert unit.shape == (9, 400, 32) and predicted.shape == (400,)
    later, calibration = np.random.default_rng(6), prediction.calibrate(references, 0.9, everyone)
    # What an SAE trained later would show: the feature is of the list (it has its own p̂) or of nobody.
    of_list_F = (whole.cosine_SSF[8, :8] >= 0.9).any(axis=0)
    outcome = of_list_F & (later.uniform(size=(200, 400)) < p_F)
    assert np.mean((predicted - outcome) ** 2) < calibration.brier + 0.02
    assert abs(predicted[of_list_F & (p_F == 0.9)].mean() - 0.9) < 0.07 and predicted[~of_list_F].mean() < 0.06


def test_features_that_do_not_count_change_nothing():
    """Padding of smaller SAEs (no cosine) and dead features are neither learned from nor judged."""
    rng = np.random.default_rng(7)
    _, references = references_of(rng.choice([0.1, 0.9], 100), 5, rng)
    wide = References(
        np.concatenate([references.cosine_SSF, np.full((5, 5, 20), np.nan)], axis=2),
        np.concatenate([references.partner_SSF, np.full((5, 5, 20), -1)], axis=2),
        np.concatenate([references.crowding_SF, np.zeros((5, 20))], axis=1),
    )
    among = np.concatenate([np.ones((5, 100), bool), np.zeros((5, 20), bool)], axis=1)
    plain, padded = prediction.calibrate(references, 0.9, np.ones((5, 100), bool)), prediction.calibrate(wide, 0.9, among)
    np.testing.assert_allclose(plain.predicted_T, padded.predicted_T, rtol=1e-6)
    assert plain.brier == pytest.approx(padded.brier)


def test_references_of_which_nothing_is_learned():
    rng = np.random.default_rng(6)
    everyone = np.ones((3, 20), bool)
    _, references = references_of(np.full(20, 0.5), 3, rng)
    with pytest.raises(ValueError, match="2 reference SAEs: at least 3"):
        prediction.fit(references, 0.9, everyone, [0, 1])
    with pytest.raises(ValueError, match="3 reference SAEs: at least 4"):
        prediction.calibrate(references, 0.9, everyone)
    for p in (0.0, 1.0):
        _, same = references_of(np.full(20, p), 4, rng)
        with pytest.raises(prediction.NothingToLearn, match="nothing to learn from"):
            prediction.calibrate(same, 0.9, np.ones((4, 20), bool))
    with pytest.raises(prediction.NothingToLearn):
        prediction.calibrate(references_of(np.full(20, 0.5), 4, rng)[1], 0.9, np.zeros((4, 20), bool))


def test_cuts_look_at_everybody_equally_often():
    cuts = prediction._cuts([0, 1, 3, 4], 2)
    assert len(cuts) == 4 and sorted(place for cut in cuts for place in cut) == [0, 0, 1, 1, 3, 3, 4, 4]
    assert prediction._cuts([5, 6], 2) == [[5, 6]]
