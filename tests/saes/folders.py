"""Folders of SAEs in the formats of others, and what they say in float64, both written from the formats' own descriptions."""

import io
import json
import struct
import zipfile

import ml_dtypes
import numpy as np
import safetensors.numpy

from tests.saes.dictionaries import D, F, K

RNG = np.random.default_rng(11)
X = RNG.normal(size=(4, D)).astype(np.float32)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


SHARED = {"W_enc": normal(D, F), "W_dec": normal(F, D), "b_dec": normal(D)}
SAELENS = {
    "standard": SHARED | {"b_enc": normal(F)},
    "topk": SHARED | {"b_enc": normal(F)},
    "jumprelu": SHARED | {"b_enc": normal(F), "threshold": np.abs(normal(F))},
    "gated": SHARED | {"b_gate": normal(F), "b_mag": normal(F), "r_mag": 0.3 * normal(F)},
}
LINEAR = {"encoder.weight": normal(F, D), "decoder.weight": normal(D, F), "encoder.bias": normal(F), "b_dec": normal(D)}
K_AND_THRESHOLD = {"k": np.array(K, np.int32), "threshold": np.array(0.3, np.float32)}


def bases():
    """{name: (format, configuration's file, weights' file, configuration, tensors)}; no configuration: None."""
    out = {}
    for architecture, tensors in SAELENS.items():
        config = {
            "architecture": architecture, "d_in": D, "d_sae": F, "dtype": "float32", "apply_b_dec_to_input": True,
            "normalize_activations": "none", "reshape_activations": "none", "rescale_acts_by_decoder_norm": False,
            "metadata": {"sae_lens_version": "6.5.0", "model_name": "m", "hook_name": "blocks.3.hook_resid_post", "seed": 1},
        }  # fmt: skip
        config |= {"k": K} if architecture == "topk" else {}
        out[f"saelens {architecture}"] = ("saelens", "cfg.json", "sae_weights.safetensors", config, tensors)
    config = {
        "activation": "topk", "d_in": D, "expansion_factor": 32, "k": K, "num_latents": F, "multi_topk": False, "normalize_decoder": True,
        "skip_connection": False, "transcode": False,
    }  # fmt: skip
    tensors = {"encoder.weight": normal(F, D), "encoder.bias": normal(F), "W_dec": normal(F, D), "b_dec": normal(D)}
    out["sparsify"] = ("sparsify", "cfg.json", "sae.safetensors", config, tensors)
    tensors = {name.lower(): a for name, a in SAELENS["jumprelu"].items()}
    hook = "model.layers.3.output"
    config = {
        "architecture": "jump_relu", "width": F, "affine_connection": False, "type": "sae", "model_name": "google/gemma-3-4b-pt",
        "hf_hook_point_in": hook, "hf_hook_point_out": hook,
    }  # fmt: skip
    out["gemma_scope 1"] = ("gemma_scope", "", "params.npz", None, SAELENS["jumprelu"])
    out["gemma_scope 2"] = ("gemma_scope", "config.json", "params.safetensors", config, tensors)
    for kind in ("AutoEncoderTopK", "BatchTopKSAE"):
        trainer = {"dict_class": kind, "activation_dim": D, "dict_size": F, "k": K, "layer": 3, "lm_name": "m", "seed": 2}
        trainer |= {"submodule_name": "resid_post_layer_3"}
        out[f"dictionary_learning {kind}"] = (
            "dictionary_learning", "config.json", "ae.pt", {"trainer": trainer, "buffer": {}}, LINEAR | K_AND_THRESHOLD
        )  # fmt: skip
    return out


def written(weights, tensors):
    """The bytes of a weights file."""
    if weights.endswith(".safetensors"):
        return safetensors.numpy.save({name: np.ascontiguousarray(a) for name, a in tensors.items()})
    out = io.BytesIO()
    if weights.endswith(".npz"):
        np.savez(out, **tensors)
    else:
        _write_pt(out, tensors)
    return out.getvalue()


def _write_pt(file, tensors):
    """As PyTorch writes a state dict, protocol 2."""
    kinds = {"f4": b"Float", "f8": b"Double", "f2": b"Half", "i4": b"Int", "i8": b"Long", "b1": b"Bool", "V2": b"BFloat16"}
    word = lambda text: b"X" + struct.pack("<I", len(text.encode())) + text.encode()
    number = lambda n: b"J" + struct.pack("<i", n)
    numbers = lambda ns: b"(" + b"".join(map(number, ns)) + b"t"
    empty = b"ccollections\nOrderedDict\n)R"
    pickled = b"\x80\x02" + empty + b"("
    for i, (name, a) in enumerate(tensors.items()):
        storage = (
            b"("
            + word("storage")
            + b"ctorch\n"
            + kinds[a.dtype.str[1:]]
            + b"Storage\n"
            + word(str(i))
            + word("cpu")
            + number(a.size)
            + b"tQ"
        )
        strides = [int(np.prod(a.shape[axis + 1 :])) for axis in range(a.ndim)]
        call = storage + number(0) + numbers(a.shape) + numbers(strides) + b"\x89" + empty
        pickled += word(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + call + b"tR"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("ae/data.pkl", pickled + b"u.")
        for i, a in enumerate(tensors.values()):
            archive.writestr(f"ae/data/{i}", a.tobytes())


def tensors_of(weights, data):
    """Tensors of a weights file that is whole, read again here. Raises whatever it does of one that is not."""
    if weights.endswith(".npz"):
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return dict(archive)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    types = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": ml_dtypes.bfloat16}
    out = {}
    for name, entry in header.items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            out[name] = np.frombuffer(data[8 + length + first : 8 + length + last], types[entry["dtype"]]).reshape(entry["shape"])
    return out


def said(form, config, tensors, x):
    """(codes, reconstruction, whether each row's choice of features is beyond rounding): what a folder says, in float64."""
    x = x.astype(np.float64)
    t = {name if form == "dictionary_learning" else name.replace("w_", "W_"): np.asarray(a, np.float64) for name, a in tensors.items()}
    if form == "saelens":
        kind, b_dec, w_dec = config["architecture"], t["b_dec"], t["W_dec"]
        inner = (x - b_dec if config.get("apply_b_dec_to_input", True) else x) @ t["W_enc"]
        if kind == "gated":
            gate = inner + t["b_gate"]
            z = (gate > 0) * np.maximum(np.exp(t["r_mag"]) * inner + t["b_mag"], 0)
            return z, z @ w_dec + b_dec, np.abs(gate).min(axis=1) > 1e-4
        pre = inner + t["b_enc"]
        if kind == "jumprelu":
            return _jumped(pre, t["threshold"], w_dec, b_dec)
        if kind == "topk":
            if config.get("rescale_acts_by_decoder_norm"):
                norm = np.linalg.norm(w_dec, axis=1)
                z, _, sure = _top(pre * norm, config["k"], w_dec, b_dec)
                return z, (z / np.where(norm > 0, norm, 1)) @ w_dec + b_dec, sure
            return _top(pre, config["k"], w_dec, b_dec)
        z = np.maximum(pre, 0)
        return z, z @ w_dec + b_dec, np.ones(len(x), bool)
    if form == "sparsify":
        return _top((x - t["b_dec"]) @ t["encoder.weight"].T + t["encoder.bias"], config.get("k", 32), t["W_dec"], t["b_dec"])
    if form == "gemma_scope":
        return _jumped(x @ t["W_enc"] + t["b_enc"], t["threshold"], t["W_dec"], t["b_dec"])
    trainer = config["trainer"]
    pre = (x - t["b_dec"]) @ t["encoder.weight"].T + t["encoder.bias"]
    if trainer["dict_class"] == "AutoEncoderTopK":
        return _top(pre, int(t["k"].item()) if "k" in t else trainer["k"], t["decoder.weight"].T, t["b_dec"])
    return _jumped(pre, max(t["threshold"].item() if "threshold" in t else 0.0, 0.0), t["decoder.weight"].T, t["b_dec"])


def _top(pre, k, w_dec, b_dec):
    order = np.sort(pre, axis=1)[:, ::-1]
    z = np.where(pre >= order[:, [k - 1]], np.maximum(pre, 0), 0)
    sure = np.ones(len(pre), bool) if k == pre.shape[1] else (order[:, k - 1] - order[:, k] > 1e-4) | (order[:, k - 1] <= 0)
    return z, z @ w_dec + b_dec, sure


def _jumped(pre, threshold, w_dec, b_dec):
    z = np.where(pre > threshold, np.maximum(pre, 0), 0)
    return z, z @ w_dec + b_dec, np.abs(pre - threshold).min(axis=1) > 1e-4
