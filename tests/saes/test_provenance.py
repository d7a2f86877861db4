"""Where an SAE is from, read from every format, and when two are of the same activations."""

import json

import ml_dtypes
import numpy as np
import pytest

from saes.dictionary import Dictionary
from saes.formats import dictionary_learning, gemma_scope, saelens, sparsify
from saes.formats.identity import identity, same_decoder, same_weights
from saes.formats.provenance import Provenance, differences, place, remarks, same_model
from tests.saes.dictionaries import one


@pytest.mark.parametrize(
    ("hook", "layer", "site"),
    [
        ("blocks.3.hook_resid_post", 3, "resid_post"),
        ("blocks.3.hook_mlp_out", 3, "mlp_out"),
        ("blocks.3.attn.hook_z", 3, "attn_z"),
        ("blocks.3.mlp.hook_post", 3, "mlp_act"),
        ("blocks.3.hook_other", 3, "hook_other"),
        ("encoder.layer.3", 3, "resid_post"),
        ("layers_3", 3, "resid_post"),
        ("h.5", 5, "resid_post"),
        ("transformer.h.3", 3, "resid_post"),
        ("gpt_neox.layers.12.attention", 12, "attn_out"),
        ("layers.10.mlp", 10, "mlp_out"),
        ("model.layers.17.output", 17, "resid_post"),
        ("model.layers.17.self_attn.o_proj.input", 17, "attn_z"),
        ("model.layers.17.pre_feedforward_layernorm.output", 17, "mlp_in"),
        ("model.layers.17.post_feedforward_layernorm.output", 17, "mlp_out"),
        ("resid_post_layer_8", 8, "resid_post"),
        ("odd_layer_8", 8, "odd"),
        ("embed_tokens", None, "embed"),
        ("model.embed_tokens", None, "embed"),
        ("tokens", None, "tokens"),
        ("depth.3", None, "depth.3"),
        ("", None, ""),
    ],
)
def test_layer_and_site_of_a_hooks_name(hook, layer, site):
    assert place(hook) == (layer, site)


@pytest.mark.parametrize(
    ("one_name", "other", "same"),
    [
        ("EleutherAI/pythia-70m", "pythia-70m", True),
        ("google/gemma-2-2b", "Gemma-2-2B", True),
        ("EleutherAI/pythia-70m", "other/pythia-70m", False),
        ("pythia-70m", "pythia-70m-deduped", False),
        ("gemma-v3-1b-pt", "google/gemma-3-1b-pt", True),
        ("gemma-3-1b-pt", "gemma-3-1b-it", False),
        ("gpt2-small", "openai-community/gpt2", True),
        ("/home/u/models/pythia-70m", "EleutherAI/pythia-70m", True),
        ("/c/models--EleutherAI--pythia-70m/snapshots/abc", "EleutherAI/pythia-70m", True),
        ("/c/models--EleutherAI--pythia-70m/snapshots/abc", "other/pythia-70m", False),
    ],
)
def test_names_of_one_model(one_name, other, same):
    assert same_model(one_name, other) is same_model(other, one_name) is same


def test_every_field_is_compared_and_unknown_is_not_equal():
    full = Provenance("m", "r", 3, "resid_post", "2", "x", "mlp_out", "SAE", 0)
    other = {"model": "n", "revision": "s", "layer": 4, "site": "mlp_in", "head": "3", "output": "attn_out", "kind": "transcoder"}
    for field, value in other.items():
        assert [d[1:] for d in differences(full, full._replace(**{field: value}), True)] == [(getattr(full, field), value)]
    for field in ("model", "revision", "layer", "site", "head"):
        unknown = full._replace(**{field: None if field == "layer" else ""})
        assert differences(full, unknown, True) == []
        assert any(text.endswith("unknown for 1 of 2 SAEs") and field in text for text in remarks([full, unknown], ["a", "a"]))
    assert remarks([full, full], ["a", "b"]) == []
    assert remarks([Provenance()] * 2, ["a", "a"]) == [f"{what} unknown for 2 of 2 SAEs" for what in ("model", "layer", "site")]


def config(folder, name, **values):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(values))
    return folder


def test_saelens_in_metadata_and_where_it_was_before(tmp_path):
    new = {"model_name": "m", "hook_name": "blocks.3.attn.hook_z", "hook_head_index": 2, "seed": 5}
    loading = {"model_from_pretrained_kwargs": {"revision": "step1000"}}
    expected = Provenance("m", "step1000", 3, "attn_z", "2", "blocks.3.attn.hook_z", seed=5)
    assert saelens.provenance(config(tmp_path / "a", "cfg.json", metadata=new | loading)) == expected
    old = {"model_name": "m", "hook_point": "blocks.3.attn.hook_z", "hook_point_layer": 3, "hook_point_head_index": 2, "seed": 5}
    assert saelens.provenance(config(tmp_path / "b", "cfg.json", **old, **loading)) == expected
    checkpoint = {"model_from_pretrained_kwargs": {"checkpoint_value": 512}}
    assert saelens.provenance(config(tmp_path / "c", "cfg.json", metadata=new | checkpoint)).revision == "checkpoint_value 512"
    for clash in ({"hook_layer": 4}, {"hook_point": "blocks.2.hook_z"}):
        with pytest.raises(ValueError, match=r"cfg.json: (layer|hook_name) is .* in one field and .* in another"):
            saelens.provenance(config(tmp_path / "d", "cfg.json", metadata=new | clash))


def test_sparsify_by_its_folder_and_the_run_above(tmp_path):
    config(
        tmp_path, "config.json", model="EleutherAI/pythia-160m", revision="step9", hookpoints=["layers.10.mlp", "own.point"], init_seeds=[7]
    )
    cases = {"layers.10.mlp": (10, "mlp_out", 7), "layers.10.mlp/seed3": (10, "mlp_out", 3), "best/own.point": (None, "own.point", 7)}
    for below, (layer, site, seed) in cases.items():
        hook = below.removeprefix("best/").split("/")[0]
        told = sparsify.provenance(config(tmp_path / below, "cfg.json"))
        assert told == Provenance("EleutherAI/pythia-160m", "step9", layer, site, input=hook, seed=seed)
    told = sparsify.provenance(config(tmp_path / "layers.5.mlp", "cfg.json", transcode=True))
    assert (told.kind, told.input, told.output) == ("transcoder", "the input of layers.5.mlp", "mlp_out")


def test_gemma_scope_by_its_path_or_its_configuration(tmp_path):
    for release, model, site in (
        ("gemma-scope-9b-it-res", "google/gemma-2-9b-it", "resid_post"),
        ("models--google--gemma-scope-2b-pt-att/snapshots/0", "google/gemma-2-2b", "attn_z"),
    ):
        folder = tmp_path / release / "layer_20" / "width_16k" / "average_l0_71"
        assert gemma_scope.provenance(folder) == Provenance(model, layer=20, site=site, input=site)
    told = gemma_scope.provenance(tmp_path / "gemma-scope-2b-pt-transcoders" / "layer_3" / "width_16k")
    assert (told.kind, told.site, told.output, told.layer) == ("transcoder", "mlp_in", "mlp_out", 3)
    embedding = gemma_scope.provenance(tmp_path / "gemma-scope-2b-pt-res" / "embedding" / "width_4k")
    assert (embedding.layer, embedding.site) == (None, "embed")
    hook = "model.layers.9.output"
    folder = config(tmp_path / "2", "config.json", model_name="gemma-v3-1b-pt", hf_hook_point_in=hook, hf_hook_point_out=hook)
    (folder / "params.safetensors").write_bytes(b"")
    assert gemma_scope.provenance(folder) == Provenance("gemma-v3-1b-pt", layer=9, site="resid_post", input=hook)


def test_dictionary_learning_of_its_trainer(tmp_path):
    trainer = {"lm_name": "google/gemma-2-2b", "layer": 8, "submodule_name": "resid_post_layer_8", "seed": 4, "dict_class": "AutoEncoder"}
    folder = config(tmp_path, "config.json", trainer=trainer)
    assert dictionary_learning.provenance(folder) == Provenance(
        "google/gemma-2-2b", layer=8, site="resid_post", input="resid_post_layer_8", seed=4
    )


@pytest.mark.parametrize("read", [saelens, sparsify, gemma_scope, dictionary_learning])
def test_values_of_odd_types_tell_nothing(tmp_path, read):
    for name in ("cfg.json", "config.json"):
        config(
            tmp_path,
            name,
            metadata=[1],
            trainer=[1],
            model=[1],
            model_name=3,
            hook_name={},
            hf_hook_point_in=[],
            hookpoints="x",
            init_seeds=3,
        )
    (tmp_path / "params.safetensors").write_bytes(b"")
    assert read.provenance(tmp_path)._replace(kind="SAE") == Provenance()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_weights_are_known_again_after_rounding_and_others_are_not(dtype):
    d = one()
    rounded = lambda a: np.asarray(np.asarray(a).astype(getattr(ml_dtypes, dtype, dtype)), np.float32)
    copy = d.replace(w_enc_DF=rounded(d.w_enc_DF), w_dec_FD=rounded(d.w_dec_FD))
    assert same_weights(identity(d), identity(copy))
    other = d.replace(w_enc_DF=d.w_enc_DF + 0.1)
    assert same_decoder(identity(d), identity(other)) and not same_weights(identity(d), identity(other))


def test_tiny_weights_that_float16_rounds_to_zero_are_told_apart():
    rows = [np.random.default_rng(i).normal(size=(4, 3)).astype(np.float32) * 1e-9 for i in range(2)]
    a, b = (identity(Dictionary(r.T, np.zeros(4), r, np.zeros(3))) for r in rows)
    assert not same_decoder(a, b)
