"""Starting at the truth: decoder rows at the atoms, the encoder fitted to them, which tells failed optimisation from a tie."""

import jax
import numpy as np

from synthetic.generator import Truth


def given_of_groups(truth: Truth, energy_G: tuple[float, ...], n_features: int) -> np.ndarray:
    """How many atoms of each group a dictionary can hold: groups in the order of their atoms' energy, the largest first."""
    given_G = np.zeros(len(energy_G), int)
    for g in np.argsort(energy_G, kind="stable")[::-1]:
        given_G[g] = min((truth.group_A == g).sum(), n_features - given_G.sum())
    return given_G


def rows_at_truth(key: jax.Array, truth: Truth, n_features: int, energy_G: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows (F, D) float32 and the atom that each is (F,), −1: none.

    The atoms in random places, random directions where there are more features than atoms; where there are fewer, the atoms with
    the most energy, a random choice among equals.

    Args:
      energy_G: of an atom of each group, up to a factor (`WorldConfig.energies`).
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    rows = rng.normal(size=(n_features, truth.atoms_AD.shape[1]))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    given_G = given_of_groups(truth, energy_G, n_features)
    chosen = np.concatenate([rng.permutation(np.flatnonzero(truth.group_A == g))[:n] for g, n in enumerate(given_G)])
    atom_F = np.full(n_features, -1)
    atom_F[rng.permutation(n_features)[: len(chosen)]] = chosen
    rows[atom_F >= 0] = truth.atoms_AD[atom_F[atom_F >= 0]]
    return rows.astype(np.float32), atom_F


def fitted_encoder(x_ND: np.ndarray, codes_NF: np.ndarray, ridge: float = 1e-3) -> tuple[np.ndarray, np.ndarray]:
    """Least squares of the codes on the activations: (W (D, F), b (F,)) with codes ≈ x W + b."""
    x = np.concatenate([x_ND, np.ones((len(x_ND), 1))], axis=1).astype(np.float64)
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += ridge * len(x)
    solved = np.linalg.solve(gram, x.T @ codes_NF)
    return solved[:-1].astype(np.float32), solved[-1].astype(np.float32)
