import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from activations.language_model import checkpoint, decoder, families
from activations.language_model.config import Rotary
from activations.language_model.parameters import init_params
from activations.text.tokenizer import train_tokenizer
from tests.activations.language_model import small_models
from tests.activations.language_model.test_decoder import SMALL, params_of


@pytest.fixture
def folder(tmp_path):
    checkpoint.save(tmp_path, SMALL, params_of(SMALL), train_tokenizer(["some text"], 300))
    return tmp_path


@pytest.mark.parametrize(
    "change", [{}, {"residual": "pre"}, {"tied_embeddings": True}, {"activation": "gelu_tanh"}, {"rotary": (Rotary(8, 100.0),)}]
)
def test_round_trip_is_exact(tmp_path, change):
    config = dataclasses.replace(SMALL, **change)
    params = params_of(config)
    checkpoint.save(tmp_path, config, params, train_tokenizer(["some text"], 300))
    assert checkpoint.load_config(tmp_path) == config
    loaded = checkpoint.load_params(tmp_path, config)
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(params), strict=True))


def test_the_tokenizer_loads_in_transformers(folder):
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    assert tokenizer.decode(tokenizer("some text")["input_ids"]) == "some text"


def change_tensors(folder, change):
    path = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    change(tensors)
    safetensors.numpy.save_file(tensors, path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("embed_out.weight"), "lacks 1 tensors .*embed_out.weight"),
        (lambda t: t.update(spare=np.zeros(3, np.float32)), "unknown .*spare"),
        (lambda t: t.update({"embed_out.weight": np.zeros((3, 16), np.float32)}), "has shape"),
        (lambda t: t.update({"embed_out.weight": np.full((50, 16), np.nan, np.float32)}), "NaN"),
    ],
)
def test_weights_that_do_not_fit_are_refused(folder, change, says):
    change_tensors(folder, change)
    with pytest.raises(ValueError, match=says):
        checkpoint.load_params(folder, SMALL)


def test_old_buffers_are_ignored(folder):
    change_tensors(folder, lambda t: t.update({"gpt_neox.layers.0.attention.rotary_emb.inv_freq": np.zeros(2, np.float32)}))
    loaded = checkpoint.load_params(folder, SMALL)
    assert jax.tree.structure(loaded) == jax.tree.structure(params_of(SMALL))


def test_truncated_weights_are_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="model.safetensors is damaged"):
        checkpoint.load_params(folder, SMALL)


NEOX = {
    "model_type": "gpt_neox", "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 64, "hidden_act": "gelu", "layer_norm_eps": 1e-5,
}  # fmt: skip


@pytest.mark.parametrize(
    ("of", "change", "says"),
    [
        ("gpt_neox", {"model_type": "mamba"}, "family 'mamba' is not supported, only gpt2, gpt_neox"),
        ("gpt_neox", {"hidden_act": "xielu"}, "activation 'xielu'"),
        ("gpt_neox", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rotary kind 'yarn'"),
        ("gpt_neox", {"hidden_size": 30}, "width 30 is no multiple of its 4 heads"),
        ("llama", {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}, "rotary kind 'longrope'"),
        ("llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "the config lacks 'low_freq_factor': fetch it again"),
        ("llama", {"quantization_config": {"quant_method": "fp8"}}, "quantised weights .fp8."),
        ("qwen3", {"layer_types": ["linear_attention"] * 3}, "attention kind 'linear_attention'"),
        ("qwen3", {"layer_types": ["full_attention"] * 2}, "names 2 kinds of attention for 3 layers"),
        ("gemma3", {"use_bidirectional_attention": True}, "attention kind 'bidirectional'"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True are not supported"),
        ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'"),
        ("bert", {"is_decoder": True}, "is_decoder=True"),
        ("bert", {"tie_word_embeddings": False}, "tie_word_embeddings=False"),
        ("qwen2", {"dual_chunk_attention_config": {"chunk_size": 8}}, "attention kind 'dual chunk'"),
        ("gemma2", {"layer_types": None}, "does not say in which layers"),
    ],
)
def test_configs_that_are_not_supported_are_refused(of, change, says):
    import transformers

    raw = dict(small_models.CONFIGS[of])
    whole = NEOX if of == "gpt_neox" else transformers.AutoConfig.for_model(raw.pop("model_type"), **raw).to_dict()
    families.config_from_dict(whole)
    with pytest.raises(ValueError, match=says):
        families.config_from_dict(whole | change)


def test_damaged_and_foreign_configs(folder):
    path = folder / "config.json"
    good = json.loads(path.read_text())
    for text, says in (
        ("{", "config.json is damaged: not JSON"),
        ("[]", "config.lm.path: .*model family None is not supported"),
        (json.dumps({"auto_map": {"AutoConfig": "code.Config"}, "model_type": "theirs"}), "model family 'theirs' is not supported"),
        (json.dumps(good | {"hidden_size": "wide"}), "cannot be read"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=says):
            checkpoint.load_config(folder)


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert all((x == y).all() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_sharded_checkpoints(tmp_path, name):
    one, several = (small_models.write(tmp_path / str(n), name, shards=n) for n in (1, 3))
    config = checkpoint.load_config(one)
    equal(checkpoint.load_params(several, config), checkpoint.load_params(one, config))
    assert checkpoint.identity(several).digest != checkpoint.identity(one).digest


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda f: (f / "model-00002-of-00003.safetensors").unlink(), FileNotFoundError, "lacks model-00002-of-00003.safetensors, which"),
        (lambda f: (f / checkpoint.INDEX).write_text("{}"), ValueError, "names no files"),
        (
            lambda f: (f / checkpoint.INDEX).write_text('{"weight_map": {"a": "../x.safetensors"}}'),
            FileNotFoundError,
            "lacks ../x.safetensors",
        ),
        (
            lambda f: (f / checkpoint.INDEX).write_text('{"weight_map": {"a": "model-00001-of-00003.safetensors"}}'),
            ValueError,
            "lacks 'a', which model.safetensors.index.json says is in it",
        ),
    ],
)
def test_indexes_that_do_not_fit(tmp_path, change, error, says):
    folder = small_models.write(tmp_path, "llama", shards=3)
    config = checkpoint.load_config(folder)
    change(folder)
    with pytest.raises(error, match=says):
        checkpoint.load_params(folder, config)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("gpt2", r"^transformer\.", ""),  # the first GPT-2
        ("bert", r"LayerNorm\.weight$", "LayerNorm.gamma"),  # the first BERT
        ("gpt_neox", r"^lm_head", "embed_out"),  # before transformers 5
        ("gemma3", r"^model\.", "model.language_model."),  # a multimodal one
        ("gemma3", r"^model\.", "language_model.model."),
    ],
)
def test_names_of_other_versions(tmp_path, name, old, new):
    folder = small_models.write(tmp_path, name)
    config = checkpoint.load_config(folder)
    before = checkpoint.load_params(folder, config)
    path = folder / "model.safetensors"
    tensors = {re.sub(old, new, n): t for n, t in safetensors.numpy.load_file(path).items()}
    if name == "gemma3":
        tensors["vision_tower.x.weight"] = np.zeros(3, np.float32)
    if name == "gpt2":
        tensors["h.0.attn.bias"] = np.zeros((1, 1, 4, 4), np.float32)
    assert tensors.keys() != safetensors.numpy.load_file(path).keys()
    safetensors.numpy.save_file(tensors, path)
    equal(checkpoint.load_params(folder, config), before)


def test_a_multimodal_config_is_that_of_its_text(tmp_path):
    text = json.loads((small_models.write(tmp_path / "text", "gemma3") / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": text}))
    assert checkpoint.load_config(tmp_path) == checkpoint.load_config(tmp_path / "text")


def test_an_encoder_without_a_head(tmp_path):
    folder = small_models.write(tmp_path, "bert")
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | {"architectures": ["BertModel"]}))
    change_tensors(folder, lambda t: [t.pop(n) for n in list(t) if n.startswith("cls.")])
    config = checkpoint.load_config(folder)
    params = checkpoint.load_params(folder, config)
    assert decoder.capture(params, config, jnp.zeros((1, 4), jnp.int32), 1, "mlp_out").shape == (1, 4, 32)
    with pytest.raises(ValueError, match="this bert checkpoint holds no head"):
        decoder.run(params, config, jnp.zeros((1, 4), jnp.int32))


def test_pickled_weights_are_not_loaded(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="pickled weights there are never loaded: convert them"):
        checkpoint.load_params(folder, SMALL)


def test_weights_too_large_for_their_type(tmp_path):
    checkpoint.save(tmp_path, SMALL, params_of(SMALL), train_tokenizer(["some text"], 300))
    change_tensors(tmp_path, lambda t: t.update({"gpt_neox.final_layer_norm.bias": np.full(16, 1e300)}))
    with pytest.raises(ValueError, match="final_norm.b is beyond what lm.dtype holds"), np.errstate(over="ignore"):
        checkpoint.load_params(tmp_path, SMALL)


def test_types_that_are_not_read_are_named(tmp_path):
    header = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(ValueError, match="tensor 'w' is of type F8_E4M3, known are"):
        checkpoint.open_tensors(tmp_path)


def test_hub_ids_are_fetched_at_their_revision(tmp_path, monkeypatch):
    commit = "a" * 40
    home = small_models.write(tmp_path / "snapshots" / commit, "llama")
    asked = []

    def fetch(repo, revision, allow_patterns):
        asked.append((repo, revision))
        return str(home)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    found = checkpoint.locate("owner/name", "v1")
    assert found == home and asked == [("owner/name", "v1")] and checkpoint.identity(found).commit == commit
    assert checkpoint.identity(small_models.write(tmp_path / "plain", "llama")).commit == ""

    def unreachable(*args, **kwargs):
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(
        ValueError, match=r"config.lm.path: no file or folder gpt2 on this machine; .* at revision 'v1' it could not be fetched"
    ):
        checkpoint.locate("gpt2", "v1")
    with pytest.raises(FileNotFoundError, match="nothing at ./gpt2"):
        checkpoint.locate("./gpt2")


def test_missing_files(tmp_path):
    for load in (checkpoint.load_config, lambda p: checkpoint.load_params(p, SMALL), checkpoint.identity):
        with pytest.raises(FileNotFoundError, match="lm.path"):
            load(tmp_path)


def test_digest_changes_with_every_file(folder):
    seen = {checkpoint.identity(folder).digest}
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_bytes((folder / name).read_bytes() + b" ")
        seen.add(checkpoint.identity(folder).digest)
    assert len(seen) == 4


def test_init_has_the_published_scale():
    params = init_params(jax.random.key(0), dataclasses.replace(SMALL, width=64, mlp_width=256))
    np.testing.assert_allclose(np.std(params["layers"]["up"]["w"]), 0.02, rtol=0.05)
    np.testing.assert_allclose(np.std(params["layers"]["down"]["w"]), 0.02 / np.sqrt(6), rtol=0.05)
    json.dumps(families.gpt_neox_to_dict(SMALL))
