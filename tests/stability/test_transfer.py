import numpy as np
import pytest

from stability import prediction, reappearance, similarity, transfer
from stability.prediction import Bank
from stability.transfer import CROWDING, FREQUENCY, NEIGHBOUR, PREDICTORS, PREVALENCE, ROWS, Seeds
from tests.stability import planted

D, F, S = 16, 60, 6


def seeds_of(rows_SFD, rate=None):
    unit_SFD = planted.unit(rows_SFD).astype(np.float32)
    best = similarity.all_pairs(unit_SFD)
    crowding = np.zeros(unit_SFD.shape[:2])
    return Seeds(unit_SFD, reappearance.reappears(best.cosine, 0.9), np.ones(unit_SFD.shape[:2], bool), crowding, rate), best


def halves_apart(rng, shared=30):
    """Shared rows point to one half of the space, the others to the other: told by their first coordinate."""
    common = np.abs(rng.normal(size=(shared, D)))
    rows = np.stack([np.concatenate([common, rng.normal(size=(F - shared, D))]) for _ in range(S)])
    rows[:, :shared, 0], rows[:, shared:, 0] = 3.0, -3.0
    return rows


def test_what_can_be_told_is_told():
    of, _ = seeds_of(halves_apart(np.random.default_rng(0)), rate=np.zeros((S, F)))
    found = transfer.between_halves(of, 0.05, 2, 1000)
    assert tuple(found) == PREDICTORS
    assert found[ROWS].auroc > 0.99 and found[ROWS].f1 > 0.95 and found[NEIGHBOUR].auroc > 0.9
    assert found[CROWDING].auroc == found[FREQUENCY].auroc == found[PREVALENCE].auroc == 0.5
    assert found[PREVALENCE].f1 == pytest.approx(2 / 3)  # one half of each: precision ½, recall 1


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
        scores.append(transfer.scores(*sides)[ROWS].auroc)
    assert abs(np.mean(scores) - 0.5) < 0.06


def test_labels_come_from_the_half_alone():
    """A row that the other half shares is unstable in a half that does not."""
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(4, 20, D))
    rows[2:, 0] = rows[2, 0]  # seeds 2 and 3 have a row in common,
    rows[:, 1] = rows[0, 1]  # all of them another
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
    assert transfer.between_halves(of, 0.05, 2, 1000) == {}


def bank_of(p_F, seeds, rng):
    """Every feature of a common list is in an SAE with its own probability; else something else stands there."""
    common = planted.anywhere(rng, len(p_F), 32)
    rows = [np.where(rng.uniform(size=(len(p_F), 1)) < p_F[:, None], common, planted.anywhere(rng, len(p_F), 32)) for _ in range(seeds)]
    unit = np.stack(rows).astype(np.float32)
    best = similarity.all_pairs(unit)
    return unit, Bank(best.cosine, best.partner, np.zeros(unit.shape[:2], np.float32))


def test_predictions_are_calibrated_and_beat_the_share():
    rng = np.random.default_rng(4)
    p_F = rng.choice([0.1, 0.5, 0.9], 300)
    _, bank = bank_of(p_F, 8, rng)
    found = prediction.calibrate(bank, 0.9, np.ones((8, 300), bool))
    assert found.error < 0.03 and found.features_T.sum() > 0
    assert found.brier < 0.95 * found.brier_of_share and found.brier < 0.75 * found.brier_of_mean
    assert (np.diff(found.predicted_T) >= 0).all()


def test_a_newcomer():
    """Predictions for an SAE outside the bank follow the probabilities that its features have."""
    rng = np.random.default_rng(5)
    p_F = np.repeat([0.1, 0.9], 150)
    unit, whole = bank_of(p_F, 9, rng)
    bank = Bank(*(a[:8] if a.ndim == 2 else a[:8, :8] for a in whole))
    predicted = prediction.predict(prediction.fit(bank, 0.9), bank, whole.cosine_SSF[8, :8], whole.partner_SSF[8, :8], whole.crowding_SF[8])
    kept_F = (whole.cosine_SSF[8, :8] >= 0.9).any(axis=0)  # its features of the list, but for those that nobody has
    assert abs(predicted[kept_F & (p_F == 0.9)].mean() - 0.9) < 0.07 and predicted[~kept_F].mean() < 0.05
    assert unit.shape == (9, 300, 32) and predicted.shape == (300,)


def test_banks_that_are_too_small():
    rng = np.random.default_rng(6)
    _, bank = bank_of(np.full(20, 0.5), 3, rng)
    with pytest.raises(ValueError, match="a bank of 2 SAEs: at least 3"):
        prediction.fit(bank, 0.9, [0, 1])
    with pytest.raises(ValueError, match="a bank of 3 SAEs: at least 4"):
        prediction.calibrate(bank, 0.9, np.ones((3, 20), bool))
    _, same = bank_of(np.ones(20), 4, rng)
    with pytest.raises(ValueError, match="nothing to learn from"):
        prediction.fit(same, 0.9)


def test_cuts_look_at_everybody_equally_often():
    cuts = prediction._cuts([0, 1, 2, 3, 4], 2, 2)
    assert len(cuts) == 4 and all(len(a) == 2 and not set(a) & set(b) and 2 not in a + b for a, b in cuts)
    assert sorted(place for a, _ in cuts for place in a) == [0, 0, 1, 1, 3, 3, 4, 4]
