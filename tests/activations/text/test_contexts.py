import json

import numpy as np
import pytest
import tokenizers

from activations.text import contexts
from activations.text.corpus import Document, InMemory
from activations.text.tokenizer import END_OF_TEXT, Tokenizer, load_tokenizer, train_tokenizer

TEXTS = ["def spam(eggs):\n    return eggs + 1\n" * 5, "naïve café ☕ — \x00 binary\n", "x"]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(train_tokenizer(TEXTS, 300), 0)


def test_every_text_survives_the_tokenizer(tokenizer):
    for text in [*TEXTS, "日本語 and 🐍", " \t\n  "]:
        (ids,) = tokenizer.encode([text])
        assert tokenizer.backend.decode(ids.tolist()) == text


def test_contexts_hold_every_token_once_in_its_place(tokenizer):
    docs = InMemory(Document(str(i), t) for i, t in enumerate(TEXTS))
    c = contexts.make_contexts(docs, tokenizer, 16)
    assert (c.tokens_NT[:, 0] == tokenizer.backend.token_to_id(END_OF_TEXT)).all()
    for index, text in enumerate(TEXTS):
        (ids,) = tokenizer.encode([text])
        mine = np.flatnonzero(c.document_N == index)
        got = [(c.offset_N[r] + p, c.tokens_NT[r, p + 1]) for r in mine for p in range(c.length_N[r] - 1)]
        assert got == list(enumerate(ids.tolist()))


def test_tokenizer_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="lm.path"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="tokenizer.json"):
        load_tokenizer(tmp_path)


def test_token_texts(tokenizer):
    texts = tokenizer.texts()
    assert texts[0] == END_OF_TEXT and len(texts) == tokenizer.backend.get_vocab_size()
    (ids,) = tokenizer.encode(["return eggs"])
    assert "".join(texts[i] for i in ids) == "return eggs"


def test_texts_of_tokens_keep_the_blanks_that_some_decoders_eat():
    """Llama 2 and Gemma mark blanks with ▁, BERT marks continuations with ##."""
    pieces = ["<unk>", "\u2581spam", "\u2581eggs", "s"]
    metaspace = tokenizers.Tokenizer(tokenizers.models.WordLevel({p: i for i, p in enumerate(pieces)}, "<unk>"))
    metaspace.decoder = tokenizers.decoders.Metaspace()
    assert Tokenizer(metaspace, 0).texts()[1:] == [" spam", " eggs", "s"]
    words = ["[UNK]", "spam", "##s"]
    wordpiece = tokenizers.Tokenizer(tokenizers.models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    wordpiece.decoder = tokenizers.decoders.WordPiece()
    assert Tokenizer(wordpiece, 0).texts()[1:] == [" spam", "s"]


def test_an_end_token_stands_behind_the_text():
    made = contexts.make_contexts(InMemory([Document("a", "abcdefgh")]), Tokenizer(train_tokenizer(["x"], 257), 0, end=1), 7)
    assert made.length_N.tolist() == [6, 4] and made.tokens_NT[0, 6] == 1 and made.tokens_NT[1, 4:].tolist() == [1, 0, 0]
    assert made.offset_N.tolist() == [0, 5]


@pytest.mark.parametrize(
    ("special", "start", "encoder", "found"),
    [
        ({"bos_token": "b", "eos_token": "e"}, "", False, ("b", None)),
        ({"bos_token": {"content": "b"}, "cls_token": "c"}, "", False, ("b", None)),
        ({"bos_token": None, "cls_token": "c", "sep_token": "s"}, "", True, ("c", "s")),
        ({"eos_token": "e"}, "", False, (END_OF_TEXT, None)),
        ({"bos_token": "b"}, "x", False, ("x", None)),
        ({}, "", False, (END_OF_TEXT, None)),
    ],
)
def test_the_token_that_begins_a_context(tmp_path, special, start, encoder, found):
    backend = train_tokenizer(TEXTS, 300)
    backend.enable_truncation(2)  # as some files say: texts would be cut in silence
    backend.enable_padding()
    (tmp_path / "tokenizer.json").write_text(backend.to_str())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(special))
    loaded = load_tokenizer(tmp_path, start, encoder)
    name = lambda i: None if i is None else backend.id_to_token(i)
    assert (name(loaded.start), name(loaded.end)) == found
    assert len(next(loaded.encode([TEXTS[0]]))) > 2


@pytest.mark.parametrize("start", ["", "[CLS]"])
def test_the_first_bert_says_nothing_of_its_special_tokens(tmp_path, start):
    words = ["[UNK]", "[CLS]", "[SEP]", "cat"]
    (tmp_path / "tokenizer.json").write_text(
        tokenizers.Tokenizer(tokenizers.models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]")).to_str()
    )
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    loaded = load_tokenizer(tmp_path, start, encoder=True)
    assert (loaded.start, loaded.end) == (1, 2)


def test_an_encoder_without_a_separator_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text(train_tokenizer(TEXTS, 300).to_str())
    with pytest.raises(ValueError, match="names no separator"):
        load_tokenizer(tmp_path, encoder=True)


def test_no_token_to_begin_with(tmp_path):
    (tmp_path / "tokenizer.json").write_text(tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, "a")).to_str())
    for start, says in (("", "no token to begin a context with"), ("b", "no token 'b'")):
        with pytest.raises(ValueError, match=f"{says}: set config.source.start_token"):
            load_tokenizer(tmp_path, start)


def test_tokenizers_of_older_folders(tmp_path):
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="no tokenizer at .*tokenizer.json: write it with transformers'"):
        load_tokenizer(tmp_path)


def test_bad_context_length(tokenizer):
    with pytest.raises(ValueError, match="context_length"):
        contexts.make_contexts(InMemory([Document("a", "text")]), tokenizer, 1)
    with pytest.raises(ValueError, match="no text"):
        contexts.make_contexts(InMemory(), tokenizer, 8)


def test_contexts_come_back_from_the_places_of_their_rows(tokenizer):
    docs = InMemory(Document(str(i), t) for i, t in enumerate([*TEXTS, TEXTS[0]]))
    made = contexts.make_contexts(docs, tokenizer, 16)
    chosen = contexts.Contexts(*(field[[0, 1, 3, 4, -1]] for field in made))  # with gaps, as a harvest leaves them
    real = (np.arange(16) > 0) & (np.arange(16) < chosen.length_N[:, None])
    row, place = np.nonzero(real)
    position = chosen.offset_N[row] + place - 1
    back = contexts.contexts_of_rows(chosen.document_N[row], position, chosen.tokens_NT[real], 16, tokenizer.start)
    for one, other in zip(chosen, back, strict=True):
        np.testing.assert_array_equal(one, other)
    of_row, first = contexts.row_contexts(chosen.document_N[row], position, 16)
    np.testing.assert_array_equal(of_row, row)
    np.testing.assert_array_equal(first, np.flatnonzero(place == 1))
