"""Our own files: what is written comes back exactly, and what is damaged or foreign is refused by name."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from saes.dictionary import ARCHITECTURES, decode, encode
from saes.formats import saelens, sparsify, stacked
from tests.saes.dictionaries import D, F, change_config, make, one


def equal(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        (x == y).all() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_saelens_round_trip(tmp_path, architecture, subtract):
    dictionary = dataclasses.replace(one(architecture), subtract_b_dec=subtract)
    saelens.save(tmp_path, dictionary, {"model_name": "m", "seed": 3})
    loaded, metadata = saelens.load(tmp_path)
    assert equal(loaded, dictionary) and metadata["model_name"] == "m" and metadata["seed"] == 3
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert config["architecture"] == architecture and config["metadata"]["sae_lens_version"] >= "6.0.0"
    assert ("k" in config) == (architecture == "topk")


def test_the_keys_are_saelens_own(tmp_path):
    extra = {"standard": {"b_enc"}, "topk": {"b_enc"}, "jumprelu": {"b_enc", "threshold"}, "gated": {"b_gate", "b_mag", "r_mag"}}
    for architecture in ARCHITECTURES:
        saelens.save(tmp_path / architecture, one(architecture), {})
        shapes = {k: v.shape for k, v in safetensors.numpy.load_file(tmp_path / architecture / saelens.WEIGHTS).items()}
        assert shapes == {"W_enc": (D, F), "W_dec": (F, D), "b_dec": (D,)} | dict.fromkeys(extra[architecture], (F,))


def rewrite(folder, change):
    path = folder / saelens.WEIGHTS
    tensors = safetensors.numpy.load_file(path)
    change(tensors)
    safetensors.numpy.save_file(tensors, path)
    (folder / saelens.CHECKSUM).unlink()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("b_enc"), "b_enc.* missing or unknown"),
        (lambda t: t.update(threshold=np.zeros(20, np.float32)), "threshold.* missing or unknown"),
        (lambda t: t.update(W_dec=np.zeros((7, 20), np.float32)), r"W_dec has shape \(7, 20\)"),
        (lambda t: t.update(b_dec=np.full(7, np.inf, np.float32)), "b_dec holds NaN"),
        (lambda t: t.update(b_dec=np.zeros(7, np.int32)), "b_dec is of type int32"),
    ],
)
def test_saelens_files_that_do_not_fit_are_refused(tmp_path, change, says):
    saelens.save(tmp_path, one("topk"), {})
    rewrite(tmp_path, change)
    with pytest.raises(ValueError, match=says):
        saelens.load(tmp_path)


@pytest.mark.parametrize(
    "field", ["architecture", "normalize_activations", "reshape_activations", "apply_b_dec_to_input", "k", "d_sae", "metadata"]
)
def test_saelens_settings_that_are_not_supported_are_refused(tmp_path, field):
    saelens.save(tmp_path, one("topk"), {})
    path = tmp_path / "cfg.json"
    change_config(path, **{field: {} if field == "metadata" else 0})
    with pytest.raises(ValueError, match="sae_lens_version is none" if field == "metadata" else field if field != "d_sae" else "shape|k="):
        saelens.load(tmp_path)


def test_saelens_rescaling_by_decoder_norms_is_the_same_function_with_unit_rows(tmp_path):
    """Its activations are pre·‖d‖ among which the k largest are taken, and decoding divides by ‖d‖ again."""
    saelens.save(tmp_path, one("topk"), {})
    path = tmp_path / "cfg.json"
    change_config(path, rescale_acts_by_decoder_norm=True)
    loaded, _ = saelens.load(tmp_path)
    d, x = one("topk"), np.random.default_rng(0).normal(size=(30, D)).astype(np.float32)
    norm = np.linalg.norm(d.w_dec_FD, axis=1)
    pre = ((x - d.b_dec_D) @ d.w_enc_DF + d.b_enc_F) * norm
    z = np.where(pre >= np.sort(pre, axis=1)[:, [-d.k]], np.maximum(pre, 0), 0)
    np.testing.assert_allclose(encode(loaded, jnp.asarray(x)), z, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(decode(loaded, jnp.asarray(z)), (z / norm) @ d.w_dec_FD + d.b_dec_D, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "gated"])
def test_saelens_rescaling_is_topks_alone(tmp_path, architecture):
    saelens.save(tmp_path, one(architecture), {})
    for value in (True, None):  # SAELens drops the field there, whatever it holds
        change_config(tmp_path / "cfg.json", rescale_acts_by_decoder_norm=value)
        assert equal(saelens.load(tmp_path)[0], one(architecture))


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_saelens_rescaling_of_a_row_of_zeros_or_of_an_extreme_length_is_finite(tmp_path, scale):
    dictionary = one("topk")
    row = np.zeros(F, bool)
    row[5] = True
    d = dataclasses.replace(dictionary, w_dec_FD=np.where(row[:, None], dictionary.w_dec_FD * np.float32(scale), dictionary.w_dec_FD))
    saelens.save(tmp_path, d, {})
    path = tmp_path / "cfg.json"
    change_config(path, rescale_acts_by_decoder_norm=True)
    loaded, _ = saelens.load(tmp_path)
    norm = np.linalg.norm(d.w_dec_FD.astype(np.float64), axis=1)
    np.testing.assert_allclose(np.linalg.norm(loaded.w_dec_FD, axis=1), norm > 0, rtol=1e-6)
    np.testing.assert_allclose(loaded.w_enc_DF, d.w_enc_DF * norm, rtol=1e-6)


@pytest.mark.parametrize("field", ["w_dec_FD", "threshold_F"])
def test_float64_weights_too_large_for_float32_are_refused_by_name(tmp_path, field):
    saelens.save(tmp_path, one("jumprelu"), {})
    name = {"w_dec_FD": "W_dec", "threshold_F": "threshold"}[field]
    rewrite(tmp_path, lambda t: t.update({name: t[name].astype(np.float64) * 1e300}))
    with pytest.raises(ValueError, match=f"sae_weights.safetensors: {name} holds NaN or infinity"):
        saelens.load(tmp_path)


def test_gates_without_an_exponential_are_refused(tmp_path):
    saelens.save(tmp_path, dataclasses.replace(one("gated"), r_mag_F=np.full(F, 90.0, np.float32)), {})
    with pytest.raises(ValueError, match="r_mag reaches 90"):
        saelens.load(tmp_path)


@pytest.mark.parametrize(
    ("architecture", "of", "says"),
    [
        ("transcoder", "standard", "is a transcoder: reads blocks.1.hook_mlp_in, reconstructs mlp_out"),
        ("jumprelu_transcoder", "jumprelu", "is a transcoder: reads"),
        ("jumprelu_skip_transcoder", "jumprelu", "is a transcoder with a skip connection: reads"),
        ("crosscoder", "standard", "is a crosscoder"),
    ],
)
def test_saelens_transcoders_are_refused_by_name_and_their_decoders_read(tmp_path, architecture, of, says):
    dictionary = dataclasses.replace(one(of), subtract_b_dec=False)
    saelens.save(tmp_path, dictionary, {"hook_name": "blocks.1.hook_mlp_in", "hook_name_out": "blocks.1.hook_mlp_out"})
    wider = np.random.default_rng(0).normal(size=(F, D + 2)).astype(np.float32)
    skip = {"W_skip": np.zeros((D + 2, D), np.float32)} if "skip" in architecture else {}
    rewrite(tmp_path, lambda t: t.update(W_dec=wider, b_dec=np.zeros(D + 2, np.float32), **skip))
    path = tmp_path / "cfg.json"
    change_config(path, architecture=architecture, d_out=D + 2)
    with pytest.raises(ValueError, match=says):
        saelens.load(tmp_path)
    if architecture == "crosscoder":
        with pytest.raises(ValueError, match=says):
            saelens.load(tmp_path, decoder_alone=True)
        return
    loaded, _ = saelens.load(tmp_path, decoder_alone=True)
    assert (loaded.w_dec_FD == wider).all() and loaded.w_enc_DF.shape == (D, F) and not loaded.subtract_b_dec


def test_an_sae_whose_output_is_another_hook_is_a_transcoder(tmp_path):
    saelens.save(tmp_path, one("topk"), {"hook_name": "blocks.1.hook_mlp_in", "hook_name_out": "blocks.1.hook_mlp_out"})
    with pytest.raises(ValueError, match="is a transcoder"):
        saelens.load(tmp_path)


@pytest.mark.parametrize("subtract", [True, False])
def test_sparsify_round_trip(tmp_path, subtract):
    """The format subtracts b_dec wherever it is no transcoder's, so a bias that is not subtracted goes into the encoder's."""
    dictionary = dataclasses.replace(one("topk"), subtract_b_dec=subtract)
    sparsify.save(tmp_path, dictionary)
    loaded, config = sparsify.load(tmp_path)
    assert config["num_latents"] == F and config["transcode"] is False and loaded.subtract_b_dec
    if subtract:
        assert equal(loaded, dictionary)
    x = jnp.asarray(np.random.default_rng(2).normal(size=(30, D)), jnp.float32)
    np.testing.assert_allclose(encode(loaded, x), encode(dictionary, x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(decode(loaded, encode(loaded, x)), decode(dictionary, encode(dictionary, x)), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="topk SAEs only, this one is gated"):
        sparsify.save(tmp_path, one("gated"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"activation": "groupmax"}, "activation='groupmax' is not supported"),
        ({"skip_connection": True}, "is a transcoder with a skip connection: reads one site"),
        ({"transcode": True}, "is a transcoder: reads one site, reconstructs another one; only decoders"),
        ({"embed_skip": True}, "embed_skip='True' is not supported"),
        ({"gram_lookup": True}, "gram_lookup='True' is not supported"),
        ({"k": 0}, "k=0 must be a whole number between 1 and 20"),
        ({"num_latents": 0, "expansion_factor": 3}, r"has shape .*20.*its configuration says"),
    ],
)
def test_sparsify_settings_that_are_not_supported_are_refused(tmp_path, change, says):
    sparsify.save(tmp_path, one("topk"))
    path = tmp_path / "cfg.json"
    change_config(path, **change)
    with pytest.raises(ValueError, match=says):
        sparsify.load(tmp_path)


WRONG = [None, [1], {"a": 1}, "7", True, 1.5, -3]
FIELDS = {
    saelens: ("d_in", "d_sae", "k", "architecture", "metadata", "apply_b_dec_to_input", "normalize_activations"),
    sparsify: ("d_in", "num_latents", "k", "activation", "transcode", "skip_connection"),
}


@pytest.mark.parametrize(("module", "field"), [(m, f) for m, fields in FIELDS.items() for f in fields])
def test_every_setting_of_a_wrong_type_ends_in_a_line_that_names_the_file(tmp_path, module, field):
    module.save(tmp_path, one("topk"), *([{}] if module is saelens else []))
    path = tmp_path / "cfg.json"
    good = json.loads(path.read_text())
    for value in WRONG:
        if type(value) is bool and type(good[field]) is bool:
            continue
        change_config(path, **good | {field: value})
        with pytest.raises(ValueError, match=r"cfg.json|safetensors"):
            module.load(tmp_path)


def test_sparsify_takes_its_number_of_latents_from_the_expansion_if_there_is_none(tmp_path):
    dictionary = one("topk")
    smaller = jax.tree.map(lambda a: a[..., :14] if a.shape[-1] == F else a[:14] if a.shape[0] == F else a, dictionary)
    sparsify.save(tmp_path, smaller)
    path = tmp_path / "cfg.json"
    change_config(path, ("num_latents",), expansion_factor=2)
    assert equal(sparsify.load(tmp_path)[0], smaller)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_stacked_round_trip(tmp_path, architecture):
    stacked.save(tmp_path / "x.safetensors", make(architecture))
    assert equal(stacked.load(tmp_path / "x.safetensors"), make(architecture))


def test_a_flipped_bit_and_a_cut_are_found(tmp_path):
    saelens.save(tmp_path / "a", one("topk"), {})
    stacked.save(tmp_path / "b.safetensors", make("topk"))
    sparsify.save(tmp_path / "c", one("topk"))
    for path, load in (
        (tmp_path / "a" / saelens.WEIGHTS, lambda: saelens.load(tmp_path / "a")),
        (tmp_path / "b.safetensors", lambda: stacked.load(tmp_path / "b.safetensors")),
        (tmp_path / "c" / sparsify.WEIGHTS, lambda: sparsify.load(tmp_path / "c")),
    ):
        data = path.read_bytes()
        path.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
        with pytest.raises(ValueError, match="sha256"):
            load()
        path.write_bytes(data[:-8])
        with pytest.raises(ValueError, match="sha256"):
            load()
    (tmp_path / "a" / saelens.CHECKSUM).unlink()
    with pytest.raises(ValueError, match="damaged"):
        saelens.load(tmp_path / "a")


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="cfg.json"):
        saelens.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="cfg.json"):
        sparsify.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing"):
        stacked.load(tmp_path / "nothing")
