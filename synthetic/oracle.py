"""Starting at the truth: decoder rows at the atoms, the encoder fitted to them, which tells failed optimisation from a tie."""

import jax
import jax.numpy as jnp
import numpy as np

from synthetic.generator import Truth


def rows_at_truth(key: jax.Array, truth: Truth, n_features: int) -> np.ndarray:
    """Unit rows (F, D): the atoms in random places, random directions where there are more features than atoms; a random choice of
    atoms where there are fewer."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    d = truth.atoms_AD.shape[1]
    rows = rng.normal(size=(n_features, d))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    places = rng.permutation(n_features)[: min(n_features, len(truth.atoms_AD))]
    rows[places] = truth.atoms_AD[rng.permutation(len(truth.atoms_AD))[: len(places)]]
    return rows.astype(np.float32)


def fitted_encoder(x_ND: np.ndarray, codes_NF: np.ndarray, ridge: float = 1e-3) -> tuple[jax.Array, jax.Array]:
    """Least squares of the codes on the activations: (W (D, F), b (F,)) with codes ≈ x W + b."""
    x = np.concatenate([x_ND, np.ones((len(x_ND), 1))], axis=1).astype(np.float64)
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += ridge * len(x)
    solved = np.linalg.solve(gram, x.T @ codes_NF)
    return jnp.asarray(solved[:-1], jnp.float32), jnp.asarray(solved[-1], jnp.float32)
