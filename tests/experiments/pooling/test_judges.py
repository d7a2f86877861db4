"""What measures pools: atoms of a world that a feature is."""

import types

import numpy as np
import pytest

from experiments.pooling.methods import Judges
from stability.similarity import unit_rows
from tests.stability import planted


def test_atoms_are_found_at_a_cosine_of_one_though_rounding_hides_it():
    rng = np.random.default_rng(0)
    atoms = planted.anywhere(rng, 3, 300)
    judges = Judges.__new__(Judges)
    judges.atoms = types.SimpleNamespace(atoms_AD=atoms, group_A=np.zeros(3, int))
    judges._least_cosine = 1.0
    unit = np.asarray(unit_rows((7.3 * atoms).astype(np.float32)))
    score = types.SimpleNamespace(unit_MD=np.concatenate([unit[:2], planted.anywhere(rng, 4, 300)]), live_M=np.ones(6, bool))
    assert judges.atoms_found(score, in_block=False) == pytest.approx(2 / 3)
