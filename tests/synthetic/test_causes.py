import numpy as np
import pytest

from stability.diagnosis import AMBIGUOUS, NEVER, SPLIT, UNDER_TRAINED, UNEXPLAINED
from synthetic.causes import Causes, true_causes
from synthetic.generator import Truth
from tests.stability import planted

RULES = Causes(inside=0.5, clear_inside=0.9, combined=0.9, clear_combined=0.95, single=0.9, clear_single=0.8, clear_nothing=0.7)
D = 32


@pytest.fixture(scope="module")
def truth():
    """Eight free atoms orthogonal to each other, two blocks of rank 6 with twenty atoms each, all orthogonal."""
    rng = np.random.default_rng(0)
    frame = np.linalg.qr(rng.normal(size=(D, D)))[0]
    bases = (frame[:, :6], frame[:, 6:12])
    atoms = np.concatenate([frame[:, 12:20].T, *(planted.unit(rng.normal(size=(20, 6))) @ b.T for b in bases)])
    return Truth(atoms, np.repeat([0, 1, 2], [8, 20, 20]), bases), frame


def test_causes_are_told(truth):
    world, frame = truth
    free, block, outside = frame[:, 12:20].T, frame[:, 6:12], frame[:, 25]
    rng = np.random.default_rng(1)
    in_block = planted.unit(rng.normal(size=6)) @ block.T
    latents = [
        (outside, "dead", NEVER, True, 0),
        (outside, "rare", UNDER_TRAINED, True, 0),
        (in_block, "live", AMBIGUOUS, True, 2),
        (planted.unit(in_block + 0.8 * outside), "live", AMBIGUOUS, False, 2),
        (planted.unit(free[0] + free[1] + free[2]), "live", SPLIT, True, 0),
        (planted.unit(free[0] + 0.45 * free[1]), "live", SPLIT, False, 0),  # one atom holds five sixths of it
        (free[3], "live", UNEXPLAINED, False, 0),  # an atom: no cause to be unstable, but something holds it
        (outside, "live", UNEXPLAINED, True, 0),
    ]
    rows, stratum, reason, clear, in_which = zip(*latents, strict=True)
    still = np.zeros(len(rows), bool)
    found = true_causes(world, np.stack(rows), np.array(stratum), still, RULES)
    moving = true_causes(world, np.stack(rows), np.array(stratum), ~still, RULES)
    assert moving.reason_N.tolist() == [UNDER_TRAINED if r == UNEXPLAINED else r for r in reason]
    assert found.reason_N.tolist() == list(reason) and found.block_N.tolist() == list(in_which)
    assert found.clear_N.tolist() == list(clear)


def test_a_block_of_full_rank_crowds_nothing(truth):
    world, frame = truth
    whole = Truth(world.atoms_AD, np.where(world.group_A == 0, 0, 1), (np.eye(D),))
    found = true_causes(whole, frame[:, 25][None], np.array(["live"]), np.array([False]), RULES)
    assert found.block_N.tolist() == [0] and found.reason_N.tolist() == [UNEXPLAINED]


def test_rules_are_checked():
    with pytest.raises(ValueError, match=r"config\.causes\.inside=0"):
        Causes(**(vars(RULES) | {"inside": 0.0}))
