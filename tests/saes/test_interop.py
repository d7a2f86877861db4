"""Our exports in the libraries they are made for, and theirs in ours. Needs torch, sae-lens and eai-sparsify: `make test-interop`."""

import jax.numpy as jnp
import numpy as np
import pytest

from saes.dictionary import ARCHITECTURES, decode, encode
from saes.formats import saelens, sparsify
from storage.state_dict import read_state_dict
from tests.saes.dictionaries import D, F, one
from tests.saes.settings import VARIANTS

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]
X = np.random.default_rng(3).normal(size=(64, D)).astype(np.float32)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_saelens_reads_ours_and_we_read_theirs(tmp_path, architecture):
    import torch
    from sae_lens import SAE

    dictionary = one(architecture)
    saelens.save(tmp_path / "ours", dictionary, {"model_name": "m", "hook_name": "blocks.1.hook_resid_post"})
    theirs = SAE.load_from_disk(str(tmp_path / "ours"), device="cpu")
    with torch.no_grad():
        z = theirs.encode(torch.asarray(X))
        z = z.to_dense() if z.is_sparse else z
        rebuilt = theirs.decode(z)
    ours = encode(dictionary, jnp.asarray(X))
    assert (np.asarray(ours) > 0).any()
    np.testing.assert_allclose(ours, z, atol=1e-5)
    np.testing.assert_allclose(decode(dictionary, ours), rebuilt, atol=1e-5)
    theirs.save_model(str(tmp_path / "theirs"))
    again, metadata = saelens.load(tmp_path / "theirs")
    assert again.architecture == architecture and metadata["model_name"] == "m"
    assert all((getattr(again, f) == getattr(dictionary, f)).all() for f in ("w_enc_DF", "b_enc_F", "w_dec_FD", "b_dec_D"))
    np.testing.assert_array_equal(encode(again, jnp.asarray(X)), ours)


@pytest.mark.parametrize("name", VARIANTS)
def test_saelens_reads_what_every_variant_exports(tmp_path, name):
    import jax
    import torch
    from sae_lens import SAE

    from saes.variants import variant
    from tests.saes.test_variants import setup

    params, x = setup(name)
    dictionary = jax.tree.map(np.asarray, variant(name).to_dictionary(params, 3.0, 4, jnp.float32(0.4)))
    saelens.save(tmp_path, dictionary, {})
    with torch.no_grad():
        theirs = SAE.load_from_disk(str(tmp_path), device="cpu")
        z = theirs.encode(torch.asarray(np.asarray(x)))
        z = z.to_dense() if z.is_sparse else z
        rebuilt = theirs.decode(z)
    np.testing.assert_allclose(encode(dictionary, x), z, atol=1e-5)
    np.testing.assert_allclose(decode(dictionary, encode(dictionary, x)), rebuilt, atol=1e-5)


def test_sparsify_reads_ours_and_we_read_theirs(tmp_path):
    import torch
    from sparsify import SparseCoder

    dictionary = one("topk")
    sparsify.save(tmp_path / "ours", dictionary)
    theirs = SparseCoder.load_from_disk(str(tmp_path / "ours"), device="cpu")
    with torch.no_grad():
        out = theirs.encode(torch.asarray(X))
        rebuilt = theirs.decode(out.top_acts, out.top_indices)
    z = np.zeros((len(X), F), np.float32)
    np.put_along_axis(z, out.top_indices.numpy(), out.top_acts.numpy(), axis=1)
    ours = encode(dictionary, jnp.asarray(X))
    np.testing.assert_allclose(ours, z, atol=1e-5)
    np.testing.assert_allclose(decode(dictionary, ours), rebuilt, atol=1e-5)
    theirs.save_to_disk(str(tmp_path / "theirs"))
    again, _ = sparsify.load(tmp_path / "theirs")
    assert (again.w_enc_DF == dictionary.w_enc_DF).all() and again.k == dictionary.k


def test_state_dicts_of_torch_are_read_without_it(tmp_path):
    import torch

    module = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.BatchNorm1d(3))
    state = module.state_dict()
    state["half"], state["bf16"] = torch.randn(4, 2).half(), torch.randn(3).bfloat16()
    state["view"] = torch.arange(12.0).reshape(3, 4).T[1:]
    torch.save(state, tmp_path / "x.pt")
    got = read_state_dict(tmp_path / "x.pt")
    assert set(got) == set(state)
    for name, tensor in state.items():
        np.testing.assert_array_equal(got[name].astype(np.float32), tensor.float().numpy())
