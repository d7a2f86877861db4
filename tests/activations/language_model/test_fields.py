"""Which fields of a config count in which family, as in the model's code in transformers; and which activation a name is."""

import functools
import json
import math

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from activations.language_model import checkpoint, families
from activations.language_model.block import ACTIVATIONS
from tests.activations.language_model import small_models

MODELS = ["gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "bert"]
LLAMAS = ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3"]


@functools.cache
def whole(name):
    import transformers

    raw = dict(small_models.CONFIGS[name])
    return transformers.AutoConfig.for_model(raw.pop("model_type"), **raw).to_dict()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("field", "value", "read_by"),
    [
        ("attention_bias", True, {"llama", "qwen3", "gemma2", "gemma3"}),  # GPT-NeoX has it, and True is what it says already
        ("mlp_bias", True, {"llama"}),
        ("attn_logit_softcapping", 7.0, {"gemma2"}),  # Gemma 3's config has it, its attention does not
        ("final_logit_softcapping", 7.0, {"gemma2", "gemma3"}),
        ("query_pre_attn_scalar", 7, {"gemma2", "gemma3"}),
        ("num_key_value_heads", 1, set(LLAMAS)),
        ("head_dim", 10, set(LLAMAS)),
        ("partial_rotary_factor", 0.25, set()),
        ("sliding_window", 9, {"mistral", "gemma2", "gemma3"}),
        ("hidden_activation", "relu", {"gemma2", "gemma3"}),
        ("hidden_act", "relu", {"gpt_neox", "llama", "mistral", "qwen2", "qwen3", "bert"}),
        ("use_parallel_residual", False, {"gpt_neox"}),
        ("type_vocab_size", 5, {"bert"}),
        ("n_inner", 40, {"gpt2"}),
        ("max_window_layers", 1, set()),  # read by transformers where it makes layer_types
        ("reorder_and_upcast_attn", True, set()),  # the same in float32
        ("rope_local_base_freq", 77.0, set()),
    ],
)
def test_a_field_counts_where_the_model_reads_it(name, field, value, read_by):
    plain = families.config_from_dict(whole(name))
    raw = whole(name) | {field: value}
    if field == "sliding_window" and name in ("qwen2", "qwen3"):
        raw["layer_types"] = ["full_attention"] * 3
    assert (families.config_from_dict(raw) != plain) == (name in read_by)


@pytest.mark.parametrize("name", LLAMAS)
def test_whole_heads_are_rotated(name):
    """Only GPT-NeoX rotates a share of a head; with a scaled kind torch transformers fails, so that is refused."""
    plain, raw = families.config_from_dict(whole(name)), whole(name)
    rope = raw["rope_parameters"]
    kinds = ["full_attention", "sliding_attention"] if name == "gemma3" else [None]
    with_share = {k: rope[k] | {"partial_rotary_factor": 0.5} for k in kinds} if kinds[0] else rope | {"partial_rotary_factor": 0.5}
    assert families.config_from_dict(raw | {"rope_parameters": with_share}) == plain
    scaled = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    with pytest.raises(ValueError, match="partial_rotary_factor=0.5 with rotary kind 'linear' is not supported"):
        families.config_from_dict(
            raw | {"rope_parameters": {"full_attention": scaled, "sliding_attention": scaled} if kinds[0] else scaled}
        )


def test_a_share_of_a_head_is_rotated_in_neox_alone():
    raw = whole("gpt_neox")
    assert families.config_from_dict(raw).rotary[0].width == 4  # rotary_pct 0.5 of 8
    for share, says in (
        (0.4, "embeddings of 3 of a head's 8"),
        (0.1, "embeddings of 0"),
        (1.5, "embeddings of 12"),
        (-1, "positive number"),
    ):
        with pytest.raises(ValueError, match=says):
            families.config_from_dict(raw | {"rope_parameters": raw["rope_parameters"] | {"partial_rotary_factor": share}})


@pytest.mark.parametrize(
    ("name", "field", "value", "says"),
    [
        ("llama", "is_causal", False, "is_causal=False are not supported, only with True"),
        ("gpt2", "is_causal", False, "is_causal=False"),
        ("gpt2", "scale_attn_weights", False, "scale_attn_weights=False"),
        ("llama", "per_layer_config", {"0": {}}, "per_layer_config"),
        ("llama", "num_key_value_heads", 3, "4 heads .num_attention_heads. are no multiple of its num_key_value_heads=3"),
        ("gemma2", "attn_logit_softcapping", 0.0, "attn_logit_softcapping=0.0, a positive number"),
        ("gemma2", "query_pre_attn_scalar", -4, "query_pre_attn_scalar=-4, a positive number"),
        ("gemma2", "hidden_activation", None, "activation None .hidden_activation. is not supported"),
        ("mistral", "sliding_window", 0, "sliding_window=0, a whole number from 1"),
        ("llama", "num_hidden_layers", 10**9, "num_hidden_layers=1000000000, a whole number from 1 to 10,000"),
        ("llama", "rms_norm_eps", math.nan, "rms_norm_eps=nan"),
        ("qwen3", "layer_types", "full_attention", "layer_types='full_attention', a list"),
        ("qwen3", "layer_types", [["full_attention"]] * 3, "attention kind ..full_attention.. is not supported"),
        ("gemma3", "rope_parameters", {"full_attention": {"rope_theta": 1e4}}, "lacks 'sliding_attention'"),
        ("bert", "architectures", 3, "architectures=3, a list of names"),
        ("llama", "rope_parameters", [1], "rope parameters .1., an object"),
        ("llama", "tie_word_embeddings", "no", "tie_word_embeddings='no', true or false"),
    ],
)
def test_values_that_cannot_be(name, field, value, says):
    with pytest.raises(ValueError, match=says):
        families.config_from_dict(whole(name) | {field: value})


def test_layer_types_of_llama_and_mistral_do_nothing():
    kinds = ["sliding_attention", "full_attention", "full_attention"]
    for name in ("llama", "mistral"):
        assert families.config_from_dict(whole(name) | {"layer_types": kinds}) == families.config_from_dict(whole(name))
    assert families.config_from_dict(whole("mistral") | {"sliding_window": None}).layer_window == ()


def test_a_multimodal_model_is_tied_as_its_own_config_says():
    text = whole("gemma3")
    for outer, tied in (({}, True), ({"tie_word_embeddings": False}, False)):
        assert families.config_from_dict({"model_type": "gemma3", "text_config": text, **outer}).tied_embeddings == tied


GELU = lambda x: 0.5 * x * (1 + scipy.special.erf(x / np.sqrt(2)))
TANH = lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
SIGMOID = scipy.special.expit
FORMULAS = {
    "gelu": GELU, "gelu_python": GELU, "gelu_new": TANH, "gelu_pytorch_tanh": TANH, "gelu_python_tanh": TANH, "gelu_accurate": TANH,
    "gelu_fast": lambda x: 0.5 * x * (1 + np.tanh(x * 0.7978845608 * (1 + 0.044715 * x * x))), "quick_gelu": lambda x: x * SIGMOID(1.702 * x),
    "relu": lambda x: np.maximum(x, 0), "relu2": lambda x: np.maximum(x, 0) ** 2, "silu": lambda x: x * SIGMOID(x),
    "swish": lambda x: x * SIGMOID(x),
}  # fmt: skip
OTHERS = ["gelu_10", "hardswish", "laplace", "leaky_relu", "linear", "mish", "relu6", "sigmoid", "sqrtsoftplus", "tanh", "prelu", "xielu"]


@pytest.mark.parametrize("name", FORMULAS)
def test_an_activation_is_what_its_name_says(name):
    x = np.linspace(-12, 12, 4001)
    found = ACTIVATIONS[families.config_from_dict(whole("llama") | {"hidden_act": name}).activation](jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, FORMULAS[name](x), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", OTHERS)
def test_other_activations_of_transformers_are_refused(name):
    with pytest.raises(ValueError, match=f"activation '{name}' .hidden_act. is not supported"):
        families.config_from_dict(whole("llama") | {"hidden_act": name})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hidden_size": "wide"}, 'config.json cannot be read: hidden_size is "wide": fetch it again'),
        ({"hidden_act": None}, "config.json cannot be read: hidden_act is null: fetch it again"),
        ({"model_type": ["llama"]}, "model family ['llama'] is not supported"),
        ({"model_type": "bert", "type_vocab_size": 2, "architectures": 3}, "architectures=3, a list of names"),
        ({"vocab_size": -5}, "vocab_size=-5, a whole number from 1"),
    ],
)
def test_a_damaged_field_is_named_in_one_line(tmp_path, change, says):
    (tmp_path / "config.json").write_text(json.dumps(small_models.CONFIGS["llama"] | change))
    with pytest.raises(ValueError) as caught:
        checkpoint.load_config(tmp_path)
    assert says in str(caught.value) and "\n" not in str(caught.value)
