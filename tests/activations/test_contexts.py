import numpy as np
import pytest

from activations import contexts
from activations.corpus import Document
from activations.tokenizer import END_OF_TEXT, load_tokenizer, token_texts, train_tokenizer

TEXTS = ["def spam(eggs):\n    return eggs + 1\n" * 5, "naïve café ☕ — \x00 binary\n", "x"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 300)


def test_every_text_survives_the_tokenizer(tokenizer):
    for text in [*TEXTS, "日本語 and 🐍", " \t\n  "]:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_contexts_hold_every_token_once_in_its_place(tokenizer):
    docs = [Document(str(i), t) for i, t in enumerate(TEXTS)]
    c = contexts.make_contexts(docs, tokenizer, 16)
    start = tokenizer.token_to_id(END_OF_TEXT)
    assert (c.tokens_NT[:, 0] == start).all()
    for index, text in enumerate(TEXTS):
        ids = tokenizer.encode(text).ids
        mine = np.flatnonzero(c.document_N == index)
        got = [(c.offset_N[r] + p, c.tokens_NT[r, p + 1]) for r in mine for p in range(c.length_N[r] - 1)]
        assert got == list(enumerate(ids))


def test_tokenizer_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="lm.path"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="tokenizer.json"):
        load_tokenizer(tmp_path)


def test_token_texts(tokenizer):
    texts = token_texts(tokenizer)
    assert texts[0] == END_OF_TEXT and len(texts) == tokenizer.get_vocab_size()
    ids = tokenizer.encode("return eggs").ids
    assert "".join(texts[i] for i in ids) == "return eggs"


def test_bad_context_length(tokenizer):
    with pytest.raises(ValueError, match="context_length"):
        contexts.make_contexts([Document("a", "text")], tokenizer, 1)
    with pytest.raises(ValueError, match="no text"):
        contexts.make_contexts([], tokenizer, 8)
