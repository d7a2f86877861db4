"""Writes `tests/data/stdlib_neox_reference.json` with torch transformers (needs torch): `python -m tests.make_reference`."""

import json
import pathlib

ROOT = pathlib.Path(__file__).parent.parent


def main() -> None:
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(ROOT / "models" / "stdlib-neox-4x128", dtype=torch.float32)
    tokens = torch.arange(0, 4096, 41)[:96].reshape(2, 48)
    with torch.no_grad():
        logits = model(tokens).logits
    reference = {"tokens": tokens.tolist(), "last_logits": logits[:, -1, :64].tolist(), "mean_logits": logits.mean(-1).tolist()}
    (ROOT / "tests" / "data" / "stdlib_neox_reference.json").write_text(json.dumps(reference))


if __name__ == "__main__":
    main()
