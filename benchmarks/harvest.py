"""Harvesting with our decoder against torch transformers' eager forward, the same checkpoint and tokens, in turn, in one run.

python -m benchmarks.harvest [--shape=gpt2 --layer=7 --batch=8 --context=256]   (needs torch: .venv-interop/bin/python after `make test-interop`)

The model has random weights in the shape of one in `models/configs`, with `--layers` layers at most. Both run the layers up to `--layer` and no
further, and hand rows to the host; torch once more with all layers, as a plain call of the model does. Without torch ours runs alone.
"""

import json
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from absl import app, flags

from activations.language_model import checkpoint, cost, decoder, layout, parameters
from benchmarks.timing import in_turn
from runtime import device

ROOT = pathlib.Path(__file__).parent.parent
_SHAPE = flags.DEFINE_string("shape", "gpt2", "A folder of models/configs.")
_LAYERS = flags.DEFINE_integer("layers", 12, "Layers of the model at most.")
_LAYER = flags.DEFINE_integer("layer", 7, "Layer behind which is read.")
_BATCH = flags.DEFINE_integer("batch", 8, "Contexts a forward pass.")
_CONTEXT = flags.DEFINE_integer("context", 256, "Tokens a context.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of parameters and forward pass.")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Measurements of each, in turn.")


def main(argv: list[str]) -> None:
    del argv
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        config = _write(folder)
        params = checkpoint.load_params(folder, config, _DTYPE.value)
        tokens = np.random.default_rng(0).integers(0, config.vocab_size, (_BATCH.value, _CONTEXT.value)).astype(np.int32)
        layer = jax.device_put(np.int32(_LAYER.value))
        captured = jax.jit(lambda p, tokens, layer: decoder.capture(p, config, tokens, layer, "resid_post"))
        ways = {"ours, up to the layer": lambda: np.asarray(captured(params, jnp.asarray(tokens), layer).astype(jnp.float32))}
        ways |= _torch(folder, tokens)
        seconds = in_turn(ways, _ROUNDS.value)
        results = {name: run() for name, run in ways.items() if "up to" in name}
    print(
        f"\n{_SHAPE.value}, {config.n_layers} layers, read behind layer {_LAYER.value}, {tokens.shape} tokens, {_DTYPE.value}, {jax.devices()[0].device_kind}"
    )
    if len(results) > 1:
        ours, theirs = results.values()
        print(f"  largest difference {np.abs(ours - theirs).max() / np.abs(theirs).max():.1e} of the largest value")
    flops = tokens.size * cost.flops_per_token(config, _LAYER.value, "resid_post", _CONTEXT.value)
    peak = device.matmul_rate(_DTYPE.value)
    first = seconds["ours, up to the layer"]
    for name, s in seconds.items():
        of_peak = f"   {flops / s / peak:5.0%} of JAX's matmul rate" if "up to" in name else ""
        print(f"  {name:34} {s:8.3f} s   {tokens.size / s:10,.0f} tokens/s   {s / first:5.2f} × ours{of_peak}")


def _write(folder: pathlib.Path):
    """A checkpoint of random weights in Hugging Face layout."""
    raw = json.loads((ROOT / "models" / "configs" / _SHAPE.value / "config.json").read_text())
    for field in ("n_layer", "num_hidden_layers"):
        if field in raw:
            raw[field] = min(raw[field], _LAYERS.value)
    (folder / "config.json").write_text(json.dumps(raw))
    config = checkpoint.load_config(folder)
    params = parameters.init_params(jax.random.key(0), config)
    safetensors.numpy.save_file(layout.to_tensors(params, config), folder / "model.safetensors", metadata={"format": "pt"})
    return config


def _torch(folder: pathlib.Path, tokens: np.ndarray):
    """The same model in torch transformers: its first layers alone, and whole with its head."""
    try:
        import torch
        import transformers
    except ImportError:
        print("torch is not installed: ours alone")
        return {}
    accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    load = lambda kind: kind.from_pretrained(folder, dtype=getattr(torch, _DTYPE.value), attn_implementation="eager").eval().to(accelerator)
    cut, whole = load(transformers.AutoModel), load(transformers.AutoModelForCausalLM)
    layers = cut.h if hasattr(cut, "h") else cut.layers
    kept: list = []
    layers[_LAYER.value].register_forward_hook(lambda module, args, out: kept.append(out[0] if isinstance(out, tuple) else out))
    del layers[_LAYER.value + 1 :]
    on_device = torch.asarray(tokens).long().to(accelerator)

    def up_to() -> np.ndarray:
        kept.clear()
        with torch.inference_mode():
            cut(on_device, use_cache=False)
            return kept[0].float().cpu().numpy()

    def everything() -> np.ndarray:
        with torch.inference_mode():
            return whole(on_device, use_cache=False, output_hidden_states=True).hidden_states[_LAYER.value + 1].float().cpu().numpy()

    return {"torch eager, up to the layer": up_to, "torch eager, the whole model": everything}


if __name__ == "__main__":
    app.run(main)
