import numpy as np

from stability import diagnosis
from stability.diagnosis import AMBIGUOUS, NEVER, REASONS, SPLIT, UNDER_TRAINED, UNEXPLAINED, Evidence

RULES = {"in_seeds": 0.5, "chance": 0.05, "settled": 0.9}


def evidence(**columns):
    """One feature a value; what is not named speaks for nothing."""
    n = len(next(iter(columns.values())))
    plain = {"stratum_N": ["live"] * n, "split_N": [0.0] * n, "entry_N": [-1] * n, "split_by_chance_N": [0.0] * n, "drift_N": [np.nan] * n}
    return Evidence(**{name: np.array(values) for name, values in (plain | columns).items()})


def test_every_reason():
    e = evidence(
        stratum_N=["dead", "rare", "live", "live", "live", "live"],
        split_N=[0, 0, 0.5, 0, 0, 0],
        entry_N=[-1, -1, -1, 2, -1, -1],
        drift_N=[1, 1, 1, 0.2, 0.2, 0.99],
    )
    expected = [NEVER, UNDER_TRAINED, SPLIT, AMBIGUOUS, UNDER_TRAINED, UNEXPLAINED]
    assert diagnosis.reasons(e, **RULES).tolist() == expected


def test_the_first_that_applies():
    e = evidence(stratum_N=["dead", "rare", "live"], split_N=[1.0, 1.0, 1.0], entry_N=[0, 0, 0], drift_N=[0.1, 0.1, 0.1])
    assert diagnosis.reasons(e, **RULES).tolist() == [NEVER, UNDER_TRAINED, SPLIT]


def test_combinations_by_chance_say_nothing():
    """In a crowded plane of low rank three features reconstruct any other."""
    e = evidence(split_N=[1.0, 1.0, 0.4], entry_N=[0, 0, -1], split_by_chance_N=[0.3, 0.01, 0.0])
    assert diagnosis.reasons(e, **RULES).tolist() == [AMBIGUOUS, SPLIT, UNEXPLAINED]


def test_what_is_not_known_of_drift():
    assert diagnosis.reasons(evidence(drift_N=[np.nan, 0.5]), **RULES).tolist() == [UNEXPLAINED, UNDER_TRAINED]


def test_confusion():
    truth, found = np.array([NEVER, SPLIT, SPLIT]), np.array([NEVER, SPLIT, AMBIGUOUS])
    table = diagnosis.confusion(truth, found)
    assert table.sum() == 3 and table[0, 0] == 1 and table[REASONS.index(SPLIT), REASONS.index(AMBIGUOUS)] == 1
