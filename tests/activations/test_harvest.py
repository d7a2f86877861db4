import jax.numpy as jnp
import numpy as np
import pytest

from activations import contexts, decoder, harvest
from activations.corpus import Document
from activations.store import ActivationStore, StoreWriter
from activations.tokenizer import train_tokenizer
from tests.activations.test_decoder import SMALL, params_of

DOCS = [Document("a", "hello world, hello there " * 9), Document("b", "tiny"), Document("c", "spam eggs spam spam " * 7)]


@pytest.fixture(scope="module")
def every():
    tokenizer = train_tokenizer([d.text for d in DOCS], 300)
    made = contexts.make_contexts(DOCS, tokenizer, 8)
    return made._replace(tokens_NT=made.tokens_NT % SMALL.vocab_size)


def run(folder, chosen, batch_size=2, shard_contexts=4, layer=1, stop=lambda: None):
    params = params_of(SMALL)
    writer = StoreWriter(folder, {"width": 16, "dtype": "float32"})
    done = []
    harvest.harvest(
        params, SMALL, chosen, layer=layer, batch_size=batch_size, shard_contexts=shard_contexts, writer=writer,
        progress=done.append, before_shard=stop,
    )  # fmt: skip
    writer.finish()
    return params, ActivationStore(folder).load(), done


def test_rows_are_the_stream_behind_the_layer_with_their_places(tmp_path, every):
    params, rows, done = run(tmp_path, every)
    assert sum(done) == len(rows.token_N) == (every.length_N - 1).sum()
    row = 0
    for i in range(len(every.length_N)):
        alone = decoder.run(params, SMALL, jnp.asarray(every.tokens_NT[i : i + 1]), upto=2)[0]
        for p in range(1, every.length_N[i]):
            np.testing.assert_allclose(rows.acts_ND[row], alone[p], atol=1e-5)
            place = (rows.document_N[row], rows.position_N[row], rows.token_N[row])
            assert place == (every.document_N[i], every.offset_N[i] + p - 1, every.tokens_NT[i, p])
            row += 1


def test_a_stopped_harvest_goes_on_and_gives_the_same(tmp_path, every):
    _, whole, _ = run(tmp_path / "whole", every)
    calls = []

    def stop_at_second():
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", every, stop=stop_at_second)
    _, resumed, _ = run(tmp_path / "cut", every)
    assert all((a == b).all() for a, b in zip(whole, resumed, strict=True))


def test_choice_of_contexts(every):
    chosen = harvest.choose_contexts(every, 30, seed=0)
    assert 30 <= (chosen.length_N - 1).sum() < 30 + 7
    keys = list(zip(chosen.document_N, chosen.offset_N, strict=True))
    assert keys == sorted(keys)
    assert len(harvest.choose_contexts(every, 10**9, seed=0).length_N) == len(every.length_N)


def test_a_layer_that_does_not_exist(tmp_path, every):
    with pytest.raises(ValueError, match="source.layer=3: the model has layers 0 to 2"):
        run(tmp_path, every, layer=3)
