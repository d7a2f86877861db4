"""What torch transformers computes for the small models: logits, what sites hold, the loss with something spliced in (needs torch)."""

import numpy as np
import torch
import transformers

from tests.activations.language_model import small_models
from tests.activations.language_model.small_models import LAYER, PATCHED, patch

# Site → (module of a layer, whether it is what goes in or comes out).
_PRE = {"resid_pre": ("", "in"), "resid_post": ("", "out")}
_LLAMA = _PRE | {
    "attn_out": ("self_attn", "out"), "resid_mid": ("post_attention_layernorm", "in"), "mlp_in": ("mlp", "in"),
    "mlp_act": ("mlp.down_proj", "in"), "mlp_out": ("mlp", "out"),
}  # fmt: skip
_SITES = {
    "gpt2": _PRE | {
        "attn_out": ("attn", "out"), "resid_mid": ("ln_2", "in"), "mlp_in": ("mlp", "in"), "mlp_act": ("mlp.c_proj", "in"), "mlp_out": ("mlp", "out"),
    },
    "gpt_neox": _PRE | {
        "attn_out": ("attention", "out"), "resid_mid": ("post_attention_layernorm", "in"), "mlp_in": ("mlp", "in"),
        "mlp_act": ("mlp.dense_4h_to_h", "in"), "mlp_out": ("mlp", "out"),
    },
    "bert": _PRE | {
        "attn_out": ("attention.output.dense", "out"), "resid_mid": ("attention", "out"), "mlp_in": ("intermediate.dense", "in"),
        "mlp_act": ("output.dense", "in"), "mlp_out": ("output.dense", "out"),
    },
    "gemma": _LLAMA | {
        "attn_out": ("post_attention_layernorm", "out"), "resid_mid": ("pre_feedforward_layernorm", "in"),
        "mlp_out": ("post_feedforward_layernorm", "out"),
    },
}  # fmt: skip


def make(name):
    """The model with the small models' weights, float32, eager attention."""
    raw = dict(small_models.CONFIGS[name])
    config = transformers.AutoConfig.for_model(raw.pop("model_type"), **raw)
    config._attn_implementation = "eager"
    kind = transformers.AutoModelForMaskedLM if config.model_type == "bert" else transformers.AutoModelForCausalLM
    model = kind.from_config(config).float().eval()
    with torch.no_grad():
        for tensor_name, tensor in saved_tensors(model).items():
            tensor.copy_(torch.asarray(small_models.weights(tensor_name, tuple(tensor.shape))))
    return model


def saved_tensors(model):
    """The tensors that `save_pretrained` would write: those tied to another once."""
    seen, out = set(), {}
    tied = getattr(model, "_tied_weights_keys", None) or {}
    state = model.state_dict(keep_vars=True)
    for name in sorted(state, key=lambda n: (n in tied, n)):
        if state[name].data_ptr() not in seen and isinstance(state[name], torch.nn.Parameter):
            out[name] = state[name].data
        seen.add(state[name].data_ptr())
    return out


def computed(model):
    """{"logits", "site/<site>", "nll", "nll/<site>"} at `LAYER`."""
    tokens = torch.asarray(small_models.tokens()).long()
    out = {}
    sites = _sites(model)
    hooks = [_hook(module, end, lambda x, site=site: out.__setitem__(f"site/{site}", x.numpy())) for site, (module, end) in sites.items()]
    with torch.no_grad():
        logits = model(tokens).logits
    for hook in hooks:
        hook.remove()
    out["logits"] = logits.numpy()
    if model.config.model_type == "bert":
        return out
    out["nll"] = _nll(logits, tokens)
    for site in PATCHED:
        hook = _hook(*sites[site], patch)
        with torch.no_grad():
            out[f"nll/{site}"] = _nll(model(tokens).logits, tokens)
        hook.remove()
    return out


def _sites(model):
    family = model.config.model_type
    layer = model.base_model.layers if hasattr(model.base_model, "layers") else None
    if layer is None:
        layer = model.base_model.h if family == "gpt2" else model.base_model.encoder.layer
    names = dict(_SITES.get("gemma" if family.startswith("gemma") else family, _LLAMA))
    if getattr(model.config, "use_parallel_residual", False):
        del names["resid_mid"]
    return {site: (layer[LAYER].get_submodule(module), end) for site, (module, end) in names.items()}


def _hook(module, end, fn):
    """`fn` sees what goes into or comes out of a module; where it returns something, that takes its place."""

    def before(_, args, kwargs):
        if args:
            new = fn(args[0])
            return None if new is None else ((new, *args[1:]), kwargs)
        new = fn(kwargs["hidden_states"])
        return None if new is None else (args, kwargs | {"hidden_states": new})

    def behind(_, args, output):
        first = output[0] if isinstance(output, tuple) else output
        new = fn(first)
        if new is None:
            return None
        return (new, *output[1:]) if isinstance(output, tuple) else new

    return module.register_forward_pre_hook(before, with_kwargs=True) if end == "in" else module.register_forward_hook(behind)


def _nll(logits, tokens):
    return torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none").numpy().astype(np.float32)
