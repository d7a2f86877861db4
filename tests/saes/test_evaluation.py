import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saes.dictionary import Dictionary
from saes.evaluation import evaluate

S, F, D, K, N = 3, 20, 7, 4, 150
RNG = np.random.default_rng(0)
DICTIONARIES = Dictionary(
    w_enc_DF=RNG.normal(size=(S, D, F)).astype(np.float32),
    b_enc_F=RNG.normal(size=(S, F)).astype(np.float32) - 1,
    w_dec_FD=RNG.normal(size=(S, F, D)).astype(np.float32),
    b_dec_D=RNG.normal(size=(S, D)).astype(np.float32),
    architecture="topk",
    k=K,
)
X = RNG.normal(size=(N, D)).astype(np.float32)


def run(batch_size, top_n=5):
    return evaluate(jax.tree.map(jnp.asarray, DICTIONARIES), (X[i : i + batch_size] for i in range(0, N, batch_size)), top_n)


def test_agrees_with_numpy():
    got = run(64)
    x = X.astype(np.float64)
    for s in range(S):
        pre = (x - DICTIONARIES.b_dec_D[s]) @ DICTIONARIES.w_enc_DF[s] + DICTIONARIES.b_enc_F[s]
        z = np.zeros_like(pre)
        for i in range(N):
            top = np.argsort(-pre[i])[:K]
            z[i, top] = np.maximum(pre[i, top], 0)
        error = np.sum((x - z @ DICTIONARIES.w_dec_FD[s] - DICTIONARIES.b_dec_D[s]) ** 2)
        variance = np.sum((x - x.mean(0)) ** 2)
        np.testing.assert_allclose(got.explained_variance_S[s], 1 - error / variance, rtol=1e-5)
        np.testing.assert_allclose(got.l0_S[s], (z > 0).sum(1).mean())
        assert (got.firings_SF[s] == (z > 0).sum(0)).all()
        np.testing.assert_allclose(got.max_activation_SF[s], z.max(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(got.mean_activation_SF[s] * got.firings_SF[s], z.sum(0), rtol=1e-5, atol=1e-5)
        row_norm = np.linalg.norm(DICTIONARIES.w_dec_FD[s].astype(np.float64), axis=1)
        np.testing.assert_allclose(got.energy_SF[s], (z**2).sum(0) * row_norm**2 / variance, rtol=1e-4, atol=1e-7)
        for f in range(F):
            best = np.sort(z[:, f])[::-1][:5]
            np.testing.assert_allclose(got.top_values_SFN[s, f], best, rtol=1e-5, atol=1e-6)
            for value, row in zip(got.top_values_SFN[s, f], got.top_rows_SFN[s, f], strict=True):
                if value > 0:
                    np.testing.assert_allclose(z[row, f], value, rtol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 7, 50, 150])
def test_figures_do_not_depend_on_the_batch_size(batch_size):
    a, b = run(64), run(batch_size)
    for x, y in zip(a[:-3], b[:-3], strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-7)
    assert a.rows == b.rows == N


def test_rows_that_do_not_fit():
    with pytest.raises(ValueError, match="width 3"):
        evaluate(DICTIONARIES, [np.zeros((5, 3), np.float32)], 2)
    with pytest.raises(ValueError, match="no activations"):
        evaluate(DICTIONARIES, [], 2)
