"""The losses of all variants token by token in NumPy, float64, written from their description and from nothing in `saes`.

`frozen` holds the parameters that a gradient does not see (targets and decoders behind a stop-gradient), so that finite
differences of `loss(params, frozen, …)` in `params` are what automatic differentiation must give.
"""

import numpy as np


def relu(a):
    return np.maximum(a, 0.0)


def codes(variant, p, x, *, k, bandwidth=None):
    pre = (x - p["b_dec_D"]) @ p["w_enc_DF"] + p.get("b_enc_F", 0.0)
    if variant == "topk":
        z = np.zeros_like(pre)
        for row, out in zip(pre, z, strict=True):
            for j in np.argsort(-row, kind="stable")[:k]:
                out[j] = max(row[j], 0.0)
        return pre, z
    if variant in ("batchtopk", "matryoshka"):
        smallest = np.sort(relu(pre).ravel())[::-1][k * len(x) - 1]
        return pre, np.where(relu(pre) >= smallest, relu(pre), 0.0)
    if variant == "jumprelu":
        return pre, np.where(pre > np.exp(p["log_threshold_F"]), pre, 0.0)
    if variant == "l1":
        return pre, relu(pre)
    gate = pre + p["b_gate_F"]
    return gate, np.where(gate > 0, relu(np.exp(p["r_mag_F"]) * pre + p["b_mag_F"]), 0.0)


def error(rows):
    return np.mean(np.sum(rows**2, axis=1))


def aux(p, pre, residual, dead, aux_k):
    if not np.any(dead):
        return 0.0
    rebuilt = np.zeros_like(residual)
    for row, out in zip(pre, rebuilt, strict=True):
        for j in [j for j in np.argsort(-row, kind="stable") if dead[j]][:aux_k]:
            out += max(row[j], 0.0) * p["w_dec_FD"][j]
    return error(rebuilt - residual) / error(residual - residual.mean(0))


def loss(variant, p, frozen, x, dead, *, k, sparsity, aux_k, aux_weight, aux_units, prefixes, pre_act_weight):
    pre, z = codes(variant, p, x, k=k)
    rest = x - (z @ p["w_dec_FD"] + p["b_dec_D"])
    norm = np.linalg.norm(p["w_dec_FD"], axis=1)
    if variant in ("topk", "batchtopk", "matryoshka"):
        _, z_frozen = codes(variant, frozen, x, k=k)
        residual = x - (z_frozen @ frozen["w_dec_FD"] + frozen["b_dec_D"])
        main = error(rest)
        if variant == "matryoshka":
            main = sum(error(x - (z[:, :m] @ p["w_dec_FD"][:m] + p["b_dec_D"])) for m in prefixes)
        against = x if aux_units == "variance" else residual
        return main + aux_weight * error(against - against.mean(0)) * aux(p, pre, residual, dead, aux_k)
    if variant == "l1":
        return error(rest) + sparsity * np.mean(z @ norm)
    if variant == "gated":
        by_gate = error(x - (relu(pre) @ frozen["w_dec_FD"] + frozen["b_dec_D"]))
        return error(rest) + sparsity * np.mean(relu(pre) @ norm) + by_gate
    theta = np.exp(p["log_threshold_F"])
    revive = np.mean((relu(theta - pre) * dead) @ norm)
    return error(rest) + sparsity * np.mean(np.sum(pre > theta, axis=1)) + pre_act_weight * revive


def jumprelu_threshold_gradient(p, x, dead, *, sparsity, bandwidth, pre_act_weight):
    """∂/∂ log θ with the straight-through estimators, feature by feature (Rajamanoharan et al. 2024, eq. 11 and 12)."""
    pre, z = codes("jumprelu", p, x, k=0)
    rest = x - (z @ p["w_dec_FD"] + p["b_dec_D"])
    theta, norm = np.exp(p["log_threshold_F"]), np.linalg.norm(p["w_dec_FD"], axis=1)
    out = np.zeros_like(theta)
    for t in range(len(x)):
        for i in range(len(theta)):
            inside = abs(pre[t, i] - theta[i]) < bandwidth / 2
            to_code = -2.0 * rest[t] @ p["w_dec_FD"][i]
            out[i] += inside * (to_code * -theta[i] / bandwidth + sparsity * -1.0 / bandwidth)
            out[i] += pre_act_weight * dead[i] * norm[i] * (theta[i] > pre[t, i])
    return out / len(x) * theta
