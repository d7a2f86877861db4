import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from activations import harvest
from activations.harvest import Harvest
from activations.language_model import checkpoint, decoder
from activations.loss import mean_nll
from activations.store import ActivationStore, StoreWriter
from activations.text import contexts
from activations.text.contexts import Contexts
from activations.text.corpus import Document, InMemory
from activations.text.tokenizer import Tokenizer, train_tokenizer
from tests.activations.language_model import small_models
from tests.activations.language_model.test_decoder import SMALL, params_of

DOCS = [Document("a", "hello world, hello there " * 9), Document("b", "tiny"), Document("c", "spam eggs spam spam " * 7)]


@pytest.fixture(scope="module")
def every():
    backend = train_tokenizer([d.text for d in DOCS], 300)
    made = contexts.make_contexts(InMemory(DOCS), Tokenizer(backend, 0), 8)
    return made._replace(tokens_NT=made.tokens_NT % SMALL.vocab_size)


def run(folder, chosen, stop=lambda: None, **changes):
    params = params_of(SMALL)
    settings = {"layer": 1, "site": "resid_post", "batch_size": 2, "shard_contexts": 4} | changes
    of = Harvest(params, SMALL, **settings)
    writer = StoreWriter(folder, {"width": SMALL.sites().get(of.site), "dtype": of.dtype})
    done = []
    made = of.run(chosen, writer, done.append, stop)
    last = of.process == of.processes - 1
    if last:
        writer.finish(of.shards(chosen))
    return params, ActivationStore(folder).load() if last else None, (done, made.rows)


def test_rows_are_the_stream_behind_the_layer_with_their_places(tmp_path, every):
    params, rows, done = run(tmp_path, every)
    assert sum(done[0]) == done[1] == len(rows.token_N) == (every.length_N - 1).sum()
    row = 0
    upto = jax.jit(lambda tokens: decoder.run(params, SMALL, tokens, upto=2))
    for i in range(len(every.length_N)):
        alone = upto(jnp.asarray(every.tokens_NT[i : i + 1]))[0]
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
    _, resumed, (done, made) = run(tmp_path / "cut", every)
    assert all((a == b).all() for a, b in zip(whole, resumed, strict=True))
    assert sum(done) == len(whole.token_N) and 0 < made < sum(done)  # the first shard was not made again
    _, _, (done, made) = run(tmp_path / "cut", every)
    assert made == 0 and sum(done) == len(whole.token_N)  # nor is anything once all is finished


def test_choice_of_contexts(every):
    chosen = harvest.choose_contexts(every, 30, seed=0)
    assert 30 <= (chosen.length_N - 1).sum() < 30 + 7
    keys = list(zip(chosen.document_N, chosen.offset_N, strict=True))
    assert keys == sorted(keys)
    assert len(harvest.choose_contexts(every, 10**9, seed=0).length_N) == len(every.length_N)


def test_a_layer_that_does_not_exist(tmp_path, every):
    with pytest.raises(ValueError, match="source.layer=3: the model has layers 0 to 2"):
        run(tmp_path, every, layer=3)


@pytest.mark.parametrize("site", ["mlp_act", "attn_out"])
def test_other_sites_and_batches(tmp_path, every, site):
    params, rows, _ = run(tmp_path / "a", every, site=site, batch_size=4)
    alone = decoder.capture(params, SMALL, jnp.asarray(every.tokens_NT[:1]), 1, site)[0]
    np.testing.assert_allclose(rows.acts_ND[: every.length_N[0] - 1], alone[1 : every.length_N[0]], atol=1e-5)
    _, again, _ = run(tmp_path / "b", every, site=site, batch_size=1)
    np.testing.assert_allclose(again.acts_ND, rows.acts_ND, atol=1e-5)


def test_bfloat16_rows_are_the_float32_ones_rounded(tmp_path, every):
    _, exact, _ = run(tmp_path / "a", every)
    _, rounded, _ = run(tmp_path / "b", every, dtype="bfloat16")
    assert (rounded.acts_ND == exact.acts_ND.astype(ml_dtypes.bfloat16).astype(np.float32)).all()


def test_two_hosts_make_one_store(tmp_path, every):
    _, whole, _ = run(tmp_path / "one", every)
    _, _, first = run(tmp_path / "two", every, process=0, processes=2)
    _, both, second = run(tmp_path / "two", every, process=1, processes=2)
    assert first[1] + second[1] == len(whole.token_N) and min(first[1], second[1]) > 0
    assert all((a == b).all() for a, b in zip(whole, both, strict=True))


def test_tokens_the_model_does_not_know(tmp_path, every):
    with pytest.raises(ValueError, match="gives token 50, the model knows 50: lm.path holds a tokenizer of another vocabulary"):
        run(tmp_path, every._replace(tokens_NT=np.where(every.tokens_NT == every.tokens_NT[0, 1], 50, every.tokens_NT)))


def test_loss_is_of_every_token_once(every):
    params = params_of(SMALL)
    nll = jax.jit(lambda tokens: decoder.next_token_nll(params, SMALL, tokens))
    expected = [
        value
        for tokens, length in zip(every.tokens_NT, every.length_N, strict=True)
        for value in np.asarray(nll(jnp.asarray(tokens[None]))[0, : length - 1])
    ]
    assert mean_nll(params, SMALL, every, batch_size=4) == pytest.approx(np.mean(expected), rel=1e-5)


def test_an_encoder_reads_its_end_token_and_keeps_no_row_of_it(tmp_path):
    folder = small_models.write(tmp_path / "model", "bert")
    config = checkpoint.load_config(folder)
    params = checkpoint.load_params(folder, config)
    tokens_NT = np.array([[1, 5, 6, 7, 2, 1, 1], [1, 9, 8, 7, 6, 5, 2]], np.int32)
    given = Contexts(tokens_NT, np.array([4, 6], np.int32), np.array([0, 1], np.int32), np.zeros(2, np.int32))
    writer = StoreWriter(tmp_path / "store", {"width": 32, "dtype": "float32"})
    Harvest(params, config, 2, "resid_post", 2, 2).run(given, writer, lambda n: None, lambda: None)
    writer.finish(1)
    rows = ActivationStore(tmp_path / "store").load()
    assert rows.token_N.tolist() == [5, 6, 7, 9, 8, 7, 6, 5]
    alone = decoder.run(params, config, jnp.asarray(tokens_NT[:1, :5]), upto=3)[0, 1:4]  # [CLS] text [SEP], no padding
    np.testing.assert_allclose(rows.acts_ND[:3], alone, atol=1e-5)
