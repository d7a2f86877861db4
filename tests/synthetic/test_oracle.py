"""The start at the truth."""

import dataclasses

import jax
import numpy as np
import pytest

from configs import common
from synthetic import oracle
from synthetic.config import WorldConfig
from synthetic.generator import SyntheticStream, make_truth, make_world

EASY = dataclasses.replace(
    WorldConfig(**dict(common.synthetic_study().synthetic)),
    width=20, free_atoms=15, free_active=2, blocks=1, block_rank=4, block_atoms=4, block_active=1,
)  # fmt: skip


def test_a_smaller_dictionary_is_given_the_atoms_with_most_energy():
    truth = make_truth(EASY)
    assert EASY.energies == (2 / 15, 0.7**2 / 4) and oracle.given_of_groups(truth, EASY.energies, 17).tolist() == [15, 2]
    assert oracle.given_of_groups(truth, (0.1, 0.2), 17).tolist() == [13, 4]
    rows, atom = oracle.rows_at_truth(jax.random.key(0), truth, 17, EASY.energies)
    assert set(range(15)) < set(atom.tolist()) and len(set(atom)) == 17 and (rows @ truth.atoms_AD.T).max(axis=1) == pytest.approx(1.0)


def test_every_atom_gets_one_row_and_rows_beyond_them_any_direction():
    truth = make_truth(EASY)
    rows, atom = oracle.rows_at_truth(jax.random.key(0), truth, 25, EASY.energies)
    assert sorted(atom[atom >= 0].tolist()) == list(range(19)) and (atom < 0).sum() == 6
    np.testing.assert_allclose(rows[atom >= 0], truth.atoms_AD[atom[atom >= 0]], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-6)
    assert (rows[atom < 0] @ truth.atoms_AD.T).max() < 0.95
    other, _ = oracle.rows_at_truth(jax.random.key(1), truth, 25, EASY.energies)
    assert not np.allclose(rows, other)


def test_a_smaller_dictionary_gets_some_of_the_atoms_once_each():
    rows, atom = oracle.rows_at_truth(jax.random.key(0), make_truth(EASY), 6, EASY.energies)
    assert rows.shape == (6, 20) and len(set(atom.tolist())) == 6 and atom.min() >= 0


def test_the_fitted_encoder_tells_active_atoms_from_others():
    truth = make_truth(EASY)
    stream = SyntheticStream(EASY.shape(), make_world(EASY, truth), 0)
    w, b = oracle.fitted_encoder(stream.rows(0, 8000), stream.codes(0, 8000))
    x, z = stream.rows(20_000, 2000), stream.codes(20_000, 2000)
    pre = x @ w + b
    kept = np.argsort(-pre, axis=1)[:, :3]
    right = np.take_along_axis(z > 0, kept, axis=1).mean()
    assert right > 0.9  # of the 3 atoms that the encoder finds largest; 3/19 by chance
