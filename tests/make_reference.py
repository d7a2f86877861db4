"""Writes what torch transformers computes (needs torch): `python -m tests.make_reference`.

tests/data/stdlib_neox_reference.json    logits of the embedded model
tests/data/families.json, families.npz   configs and tensor shapes of small models of every family; their logits, sites, losses
"""

import json
import pathlib

import numpy as np

ROOT = pathlib.Path(__file__).parent.parent
DATA = ROOT / "tests" / "data"


def embedded_model() -> None:
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(ROOT / "models" / "stdlib-neox-4x128", dtype=torch.float32)
    tokens = torch.arange(0, 4096, 41)[:96].reshape(2, 48)
    with torch.no_grad():
        logits = model(tokens).logits
    reference = {"tokens": tokens.tolist(), "last_logits": logits[:, -1, :64].tolist(), "mean_logits": logits.mean(-1).tolist()}
    (DATA / "stdlib_neox_reference.json").write_text(json.dumps(reference))


def families() -> None:
    from tests.activations.language_model import small_models, torch_models

    described, computed = {}, {}
    for name in small_models.CONFIGS:
        model = torch_models.make(name)
        model.config.architectures = [type(model).__name__]
        config = json.loads(model.config.to_json_string())
        described[name] = {"config": config, "tensors": {n: list(t.shape) for n, t in sorted(torch_models.saved_tensors(model).items())}}
        computed |= {
            f"{name}/{key}": np.asarray(value[:1], np.float32) for key, value in torch_models.computed(model).items()
        }  # one context
    (DATA / "families.json").write_text(json.dumps(described, indent=1) + "\n")
    np.savez_compressed(DATA / "families.npz", **computed)


if __name__ == "__main__":
    embedded_model()
    families()
