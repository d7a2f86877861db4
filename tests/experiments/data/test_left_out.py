"""What a study says of its input in a printed line, and what it refuses where the input is taken in."""

import json
import types

import numpy as np
import pytest
import safetensors.numpy
from etils import epath

from activations.text.corpus import Document, InMemory
from activations.text.tokenizer import load_tokenizer
from configs import quickstart
from experiments.ablation import patching
from experiments.data import activations, corpora, own_arrays
from experiments.data.corpora import Text
from experiments.data.own_arrays import OwnRows, OwnStudy
from storage import ownership
from tests.activations.language_model import small_models
from tests.experiments.tasks import task

X = np.random.default_rng(0).standard_normal((60, 6)).astype(np.float32)


def test_text_that_is_left_out_is_printed(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in ("one", "two", "", "one", "x<s>y")))
    (tmp_path / "b.json").write_text("[]")
    corpus = corpora.read(corpora.text_source(Text(text=str(tmp_path)), ("<s>",)))
    assert capsys.readouterr().out.splitlines() == [
        f"text: {tmp_path.name}: left out 1 .json: only .txt and .jsonl are read",
        f"text: {tmp_path.name}: left out 1 empty documents and 1 documents that were there before",
        f"text: {tmp_path.name}: 1 texts hold <s> and are split there",
    ]
    assert len(corpus.train) + len(corpus.held_out) == 4


def test_text_that_spells_special_tokens_is_said(tmp_path, capsys):
    small_models.tokenizer(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    activations._look_at_spelling(InMemory([Document("a", "plain")]), tokenizer)
    assert capsys.readouterr().out == ""
    activations._look_at_spelling(InMemory([Document("a", "plain"), Document("b:2", "x<|endoftext|>")]), tokenizer)
    assert "activations: 1 of 2 documents spell special tokens, first '<|endoftext|>' in b:2: they are read as" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (X[:1], "a single row is taken of it"),
        (X[:1].repeat(60, 0), "rows are all alike"),
        (X * np.where(np.arange(60) == 7, np.nan, 1)[:, None], "row 7 holds NaN"),
    ],
)
def test_rows_that_cannot_be_measured_are_refused_where_they_are_taken_in(tmp_path, rows, says):
    np.save(tmp_path / "x.npy", rows.astype(np.float32))
    with ownership.recording(tmp_path / "out"), pytest.raises(ValueError, match=f"config.source.activations: .*x.npy: .*{says}"):
        own_arrays.take_in_for_evaluation(str(tmp_path / "x.npy"), 60, epath.Path(tmp_path) / "out", 6)
    assert not (tmp_path / "out" / "eval" / "manifest.json").exists()  # once mended it is looked at anew


def test_held_out_rows_without_spread_name_their_own_field(tmp_path, capsys):
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays" / "x.npy", X)
    (tmp_path / "arrays" / "y.pt").write_text("")
    np.save(tmp_path / "e.npy", X[:1].repeat(9, 0))
    own, study = OwnRows(activations=str(tmp_path / "arrays"), eval_tokens=9), OwnStudy(eval_activations=str(tmp_path / "e.npy"))
    with pytest.raises(ValueError, match="config.source.eval_activations: .*e.npy: the 9 rows are all alike"):
        own_arrays.take_in(own, study, epath.Path(tmp_path) / "out")
    assert "activations: 1 files or folders beside the arrays are not read, first y.pt" in capsys.readouterr().out


def test_without_a_head_nothing_is_spliced_and_the_line_says_why(tmp_path, capsys):
    folder = small_models.write(tmp_path, "llama")
    c = quickstart.get_config("tiny")
    c.lm.path = str(folder)
    assert patching.cannot(task("splice", c)) is None
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    del tensors["lm_head.weight"]
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    assert patching.cannot(task("splice", c)) == f"{folder} holds no head, which predictions need: take the checkpoint with its head"
    of = types.SimpleNamespace(config=types.SimpleNamespace(causal=True, head="none"))
    activations._look_at_loss(of, None)
    assert "holds no head: activations are read, cross-entropy and the stage splice are left out" in capsys.readouterr().out
