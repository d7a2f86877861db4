"""Starting at the truth: decoder rows at the atoms, the encoder fitted to them, which tells failed optimisation from a tie."""

import jax
import numpy as np

from synthetic.generator import Truth


def rows_at_truth(key: jax.Array, truth: Truth, n_features: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows (F, D) float32 and the atom that each is (F,), −1: none.

    The atoms in random places, random directions where there are more features than atoms; a random choice of atoms where there are
    fewer.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    rows = rng.normal(size=(n_features, truth.atoms_AD.shape[1]))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    atom_F = np.full(n_features, -1)
    places = rng.permutation(n_features)[: min(n_features, len(truth.atoms_AD))]
    atom_F[places] = rng.permutation(len(truth.atoms_AD))[: len(places)]
    rows[places] = truth.atoms_AD[atom_F[places]]
    return rows.astype(np.float32), atom_F


def fitted_encoder(x_ND: np.ndarray, codes_NF: np.ndarray, ridge: float = 1e-3) -> tuple[np.ndarray, np.ndarray]:
    """Least squares of the codes on the activations: (W (D, F), b (F,)) with codes ≈ x W + b."""
    x = np.concatenate([x_ND, np.ones((len(x_ND), 1))], axis=1).astype(np.float64)
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += ridge * len(x)
    solved = np.linalg.solve(gram, x.T @ codes_NF)
    return solved[:-1].astype(np.float32), solved[-1].astype(np.float32)
