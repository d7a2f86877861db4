"""Special tokens that text spells: they separate documents or are letters, and never rows."""

import json

import numpy as np
import pytest
import tokenizers
from tokenizers import AddedToken, models, pre_tokenizers

from activations.text import contexts
from activations.text.corpus import Document, InMemory
from activations.text.tokenizer import END_OF_TEXT, Tokenizer, load_tokenizer, train_tokenizer

TEXT = f"import os\n{END_OF_TEXT}def f(x): [CLS] <s>return</s> x <|im_start|>user [PAD] é"


def written(folder, backend, special):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(backend.to_str())
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
    return folder


def byte_level(*special):
    backend = train_tokenizer([TEXT, "some text to learn from"], 300)
    backend.add_special_tokens([AddedToken(t, special=True) for t in special])
    return backend


@pytest.mark.parametrize("start", ["", END_OF_TEXT, "<s>", "<|im_start|>"])
def test_text_that_spells_special_tokens_is_letters(tmp_path, start):
    folder = written(tmp_path, byte_level("<s>", "</s>", "<|im_start|>"), {"bos_token": "<s>", "eos_token": "</s>"})
    tokenizer = load_tokenizer(folder, start)
    (ids,) = tokenizer.encode([TEXT])
    never = {tokenizer.backend.token_to_id(t) for t in ("<s>", "</s>", "<|im_start|>", END_OF_TEXT)}
    assert None not in never and never.isdisjoint(ids.tolist()) and tokenizer.start in never
    assert tokenizer.backend.decode(ids.tolist(), skip_special_tokens=False) == TEXT
    assert tokenizer.spelt(TEXT) == END_OF_TEXT and tokenizer.spelt("plain") == ""
    made = contexts.make_contexts(InMemory([Document("a", TEXT)]), tokenizer, 8)
    place = np.arange(8)
    assert (made.tokens_NT[:, 0] == tokenizer.start).all()
    assert not np.isin(made.tokens_NT[:, 1:], list(never))[place[1:] < made.length_N[:, None]].any()


@pytest.mark.parametrize(
    ("special", "start", "separators"),
    [
        ({"bos_token": "<s>", "eos_token": "</s>"}, "", ("<s>", "</s>", END_OF_TEXT)),
        ({"bos_token": "<s>", "eos_token": {"content": "</s>"}}, "<|im_start|>", ("<s>", "</s>", "<|im_start|>", END_OF_TEXT)),
        ({"eos_token": END_OF_TEXT}, "", (END_OF_TEXT,)),
        ({"bos_token": "not there"}, "s", (END_OF_TEXT,)),  # an ordinary token separates nothing
    ],
)
def test_separators_are_what_begins_and_ends_documents(tmp_path, special, start, separators):
    assert load_tokenizer(written(tmp_path, byte_level("<s>", "</s>", "<|im_start|>"), special), start).separators == separators


def test_an_ordinary_start_token_is_no_row_either(tmp_path):
    tokenizer = load_tokenizer(written(tmp_path, byte_level(), {}), "s")
    (ids,) = tokenizer.encode(["s is a letter"])
    assert tokenizer.start not in ids and tokenizer.backend.decode(ids.tolist()) == " i a letter"
    assert tokenizer.spelt("also") == "s"


@pytest.mark.parametrize("kind", ["words", "pieces", "unigram"])
def test_special_tokens_that_the_vocabulary_holds_as_words_are_left_out(tmp_path, kind):
    words = ["[UNK]", "[BOS]", "[SEP]", "cat", "sat"]
    of_kind = {
        "words": models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"),
        "pieces": models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"),
        "unigram": models.Unigram([(w, -1.0) for w in words], unk_id=0, byte_fallback=False),
    }
    backend = tokenizers.Tokenizer(of_kind[kind])
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["[UNK]", "[SEP]"])
    special = {"bos_token": "[BOS]", "unk_token": "[UNK]"} if kind != "unigram" else {"bos_token": "[BOS]"}
    tokenizer = load_tokenizer(written(tmp_path, backend, special))
    (ids,) = tokenizer.encode(["cat [BOS] sat [SEP] dog cat"])
    assert [words[i] for i in ids] == ["cat", "sat", "[UNK]", "cat"]  # unknown words are of the text


@pytest.mark.parametrize(
    ("vocabulary", "texts"),
    [
        (["[BOS]", "[1]", "[2]"], [" [BOS]", " [1]", " [2]"]),  # no token of letters or digits
        (["[BOS]", "a", "[2]"], [" [BOS]", " a", " [2]"]),
        ([" ", "\t"], [" ", "\t"]),  # none to stand before another
        ([], []),
    ],
)
def test_texts_of_odd_vocabularies(vocabulary, texts):
    backend = tokenizers.Tokenizer(models.WordLevel({t: i for i, t in enumerate(vocabulary)}, unk_token="[1]"))
    assert Tokenizer(backend, 0).texts() == texts


def test_the_embedded_model_reads_its_text_as_before():
    """The quickstart's text spells no special token: its rows are the same under any policy."""
    from activations.text.standard_library import standard_library

    tokenizer = load_tokenizer("models/stdlib-neox-4x128")
    plain = load_tokenizer("models/stdlib-neox-4x128")
    corpus = standard_library()
    assert tokenizer.separators == (END_OF_TEXT,) and not any(
        tokenizer.spelt(d.text) for part in (corpus.train, corpus.held_out) for d in part
    )
    some = [d.text for d in corpus.held_out[:5]]
    plain.backend.encode_special_tokens = False
    for ours, theirs in zip(tokenizer.encode(some), plain.backend.encode_batch(some, add_special_tokens=False), strict=True):
        assert ours.tolist() == theirs.ids
