"""The generic transformer against torch transformers, live: what `test_families.py` holds against stored results."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from activations.language_model import checkpoint, decoder
from activations.language_model.config import Rotary
from activations.text.tokenizer import train_tokenizer
from tests.activations.language_model import small_models
from tests.activations.language_model.small_models import LAYER, PATCHED, patch
from tests.activations.language_model.test_decoder import SMALL, params_of

pytestmark = pytest.mark.interop


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * max(1.0, np.abs(theirs).max()))


@pytest.mark.parametrize("name", small_models.CONFIGS)
def test_a_checkpoint_that_transformers_saved(tmp_path, name):
    """Logits, all sites and the loss with something spliced in, from the folder that `save_pretrained` writes."""
    from tests.activations.language_model import torch_models

    model = torch_models.make(name)
    model.save_pretrained(str(tmp_path), max_shard_size="20KB")  # several files with an index
    assert (tmp_path / checkpoint.INDEX).exists()
    theirs = torch_models.computed(model)
    config = checkpoint.load_config(tmp_path)
    params = checkpoint.load_params(tmp_path, config)
    tokens = jnp.asarray(small_models.tokens())
    close(decoder.run(params, config, tokens), theirs["logits"])
    for site in config.sites():
        close(decoder.capture(params, config, tokens, LAYER, site), theirs[f"site/{site}"])
    if config.causal:
        close(decoder.next_token_nll(params, config, tokens), theirs["nll"])
        for site in PATCHED:
            close(decoder.patched_nll(params, config, tokens, LAYER, site, patch), theirs[f"nll/{site}"])


@pytest.mark.parametrize(
    "change", [{}, {"residual": "pre"}, {"tied_embeddings": True}, {"activation": "gelu_tanh"}, {"rotary": (Rotary(8, 100.0),)}]
)
def test_what_we_save_transformers_loads(tmp_path, change):
    import torch
    import transformers

    config = dataclasses.replace(SMALL, **change)
    params = params_of(config)
    checkpoint.save(tmp_path, config, params, train_tokenizer(["some text"], 300))
    model = transformers.AutoModelForCausalLM.from_pretrained(str(tmp_path), dtype=torch.float32, attn_implementation="eager").eval()
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (3, 20))
    with torch.no_grad():
        reference = model(torch.asarray(tokens)).logits.numpy()
    np.testing.assert_allclose(decoder.run(params, config, jnp.asarray(tokens)), reference, atol=2e-5)
