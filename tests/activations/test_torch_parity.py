"""The decoder against torch transformers on random small models, written by us and read by them, and the reverse."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from activations import decoder, huggingface
from activations.tokenizer import train_tokenizer
from tests.activations.test_decoder import SMALL, params_of

pytestmark = pytest.mark.interop


@pytest.mark.parametrize(
    "change", [{}, {"parallel_residual": False}, {"tied_embeddings": True}, {"activation": "gelu_tanh"}, {"rotary_width": 8}]
)
def test_logits_and_stream_agree_with_torch(tmp_path, change):
    import torch
    import transformers

    config = dataclasses.replace(SMALL, **change)
    params = params_of(config)
    huggingface.save(tmp_path, config, params, train_tokenizer(["some text"], 300))
    model = transformers.AutoModelForCausalLM.from_pretrained(str(tmp_path), dtype=torch.float32, attn_implementation="eager").eval()
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (3, 20))
    with torch.no_grad():
        reference = model(torch.asarray(tokens), output_hidden_states=True)
    np.testing.assert_allclose(decoder.run(params, config, jnp.asarray(tokens)), reference.logits, atol=2e-5)
    for layer in range(config.n_layers):
        ours = decoder.run(params, config, jnp.asarray(tokens), upto=layer)
        np.testing.assert_allclose(ours, reference.hidden_states[layer], atol=2e-5)
    model.save_pretrained(str(tmp_path / "theirs"))
    loaded = huggingface.load_params(tmp_path / "theirs", huggingface.load_config(tmp_path / "theirs"))
    np.testing.assert_array_equal(loaded["layers"]["q"]["w"], params["layers"]["q"]["w"])
