"""Odd files of text through `LocalFiles` to rows' tokens: what a plain reading of the bytes gives, or one line that names the file."""

import functools
import json
import re
import shutil
import types

import numpy as np
import pytest
from etils import epath
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from activations.text import contexts, tokenizer
from activations.text.local_files import LocalFiles
from activations.text.tokenizer import END_OF_TEXT, load_tokenizer, train_tokenizer
from tests.activations.text.test_special_tokens import written

SPECIAL = ("<s>", "</s>", "<|im_start|>", "[PAD]")
NEVER_IN_MESSAGES = ("\n", "Traceback", "codec", "Expecting", "Errno", "NoneType", "object has no")
WINDOW = 7


@functools.cache
def _folder(root):
    backend = train_tokenizer(["some text, and more of it"], 300)
    backend.add_special_tokens([AddedToken(t, special=True, lstrip=t == "[PAD]") for t in SPECIAL])
    return written(root / "model", backend, {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "[PAD]"})


words = st.sampled_from(
    ["a", "text", " ", "\n", "\r\n", "\x00", "é", "🐍", "\u2028", "\ufeff", END_OF_TEXT, *SPECIAL, "<|endof", "text|>", "{"]
)
texts = st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), st.lists(words, max_size=8).map("".join))
values = st.one_of(texts, st.none(), st.integers(), st.floats(), st.lists(texts, max_size=2), st.just("\ud800 alone"), st.booleans())
records = st.one_of(
    texts.map(lambda t: {"text": t}),
    texts.map(lambda t: {"text": t}),
    texts.map(lambda t: {"text": t, "id": 3}),
    st.one_of(values.map(lambda v: {"text": v}), st.dictionaries(texts, values, max_size=2), values),
)
lines = st.one_of(
    records.map(lambda r: json.dumps(r).encode()),
    texts.map(lambda t: json.dumps({"text": t}, ensure_ascii=False).encode()),
    st.binary(max_size=6),
)
jsonl = st.builds(lambda parts, end, mark: mark + end.join(parts), st.lists(lines, max_size=5), st.sampled_from([b"\n", b"\r\n"]),
                  st.sampled_from([b"", b"", b"\xef\xbb\xbf"]))  # fmt: skip
fine_jsonl = st.lists(texts.map(lambda t: json.dumps({"text": t}).encode()), max_size=6).map(b"\n".join)
plain = st.one_of(
    texts.map(str.encode), st.builds(lambda t, b: t.encode() + b, texts, st.binary(max_size=3)), texts.map(lambda t: t.encode("utf-16"))
)
NAMES = ["a.jsonl", "b.JSONL", "c.txt", "D.Txt", "e.json", ".f.txt", "deep/g.jsonl", ".git/h.txt", "i.jsonl.gz"]
whole_texts = st.lists(words.filter(lambda w: w != "\x00"), min_size=1, max_size=8).map("".join)
fine_lines = st.lists(whole_texts.map(lambda t: json.dumps({"text": t}).encode()), min_size=2, max_size=6).map(b"\n".join)
good_files = st.fixed_dictionaries(
    {"a.jsonl": fine_lines},
    optional={name: whole_texts.map(str.encode) for name in NAMES if "jsonl" not in name},
)
odd_files = st.dictionaries(st.sampled_from(NAMES), st.one_of(fine_jsonl, fine_lines, plain, jsonl), min_size=1, max_size=4)
files = st.one_of(good_files, good_files, odd_files)


def slow_reading(contents):
    """Name → text of the documents, by the plainest means; None where something must be refused."""
    found = {}
    for name, data in sorted(contents.items()):
        suffix = name.rsplit(".", 1)[-1].lower()
        if any(part.startswith(".") for part in name.split("/")) or suffix not in ("txt", "jsonl"):
            continue
        pieces = (
            [(name, data)] if suffix == "txt" else [(f"{name}:{i}", line) for i, line in enumerate(data.split(b"\n"), 1) if line.strip()]
        )
        for place, piece in pieces:
            try:
                if b"\0" in piece:
                    return None
                text = piece.decode().removeprefix("\ufeff" if suffix == "jsonl" or piece is data else "")
                text = json.loads(text)["text"] if suffix == "jsonl" else text
                text.encode()
                parts = re.split("|".join(map(re.escape, (END_OF_TEXT, "</s>", "<s>"))), text)
            except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
                return None
            found |= {place + (f"#{i}" if len(parts) > 1 else ""): part for i, part in enumerate(parts)}
    seen, kept = set(), {}
    for name, text in found.items():
        if text.strip() and text not in seen:
            kept[name] = text
        seen.add(text)
    return kept


def check(root, contents):
    place = root / "texts"
    shutil.rmtree(place, ignore_errors=True)
    for name, data in contents.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    tokenizer = load_tokenizer(_folder(root))
    expected = slow_reading(contents)
    try:
        corpus = LocalFiles(str(place), separators=tokenizer.separators).read()
    except (ValueError, OSError) as error:
        message = str(error)
        assert message.startswith(f"config.source.text: {place}") and not any(word in message for word in NEVER_IN_MESSAGES), message
        assert not expected or len(expected) == 1, (message, expected)
        return "refused"
    documents = [*corpus.train, *corpus.held_out]
    assert expected is not None and len(expected) > 0
    if len(expected) == 1:  # cut at lines
        assert "".join(d.text for d in sorted(documents, key=lambda d: int(d.name.split("#")[-1]))) == next(iter(expected.values()))
    else:
        assert {d.name: d.text for d in documents} == expected
    never = [i for t in (*SPECIAL, END_OF_TEXT) if (i := tokenizer.backend.token_to_id(t)) is not None]
    for part in (corpus.train, corpus.held_out):
        made = contexts.make_contexts(part, tokenizer, WINDOW)
        for index, document in enumerate(part):
            mine = np.flatnonzero(made.document_N == index)
            ids = [int(t) for r in mine for t in made.tokens_NT[r, 1 : made.length_N[r]]]
            assert not set(ids) & set(never)
            assert tokenizer.backend.decode(ids, skip_special_tokens=False) == document.text
    return "read"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("odd")


FUZZ = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=60, **FUZZ)
@given(files)
def test_a_few_odd_folders_of_text(root, contents):
    check(root, contents)


@pytest.mark.slow
@settings(max_examples=1500, **FUZZ)
@given(files)
def test_many_odd_folders_of_text(root, contents):
    check(root, contents)


odd = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), lambda x: st.lists(x, max_size=2) | st.dictionaries(st.text(max_size=4), x, max_size=2), max_leaves=3)  # fmt: skip


def damage(draw, value):
    """JSON with one value in it replaced or taken out."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 3)) == 0:
        return draw(odd)
    key = draw(st.sampled_from(list(value) if isinstance(value, dict) else range(min(len(value), 5))))
    changed = value.copy()
    if isinstance(changed, dict) and draw(st.integers(0, 4)) == 0:
        del changed[key]
    else:
        changed[key] = damage(draw, value[key])
    return changed


def check_tokenizer(root, data):
    good = _folder(root)
    place = root / "damaged"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(good, place)
    name = data.draw(st.sampled_from(["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]))
    whole = json.loads((good / name).read_text()) if (good / name).exists() else {"bos_token": "<s>"}
    if data.draw(st.booleans()):
        changed = json.dumps(damage(data.draw, whole)).encode()
    else:
        text = json.dumps(whole).encode()
        at = data.draw(st.integers(0, len(text) - 1))
        changed = text[:at] if data.draw(st.booleans()) else text[:at] + data.draw(st.binary(min_size=1, max_size=2)) + text[at + 1 :]
    (place / name).write_bytes(changed)
    try:
        tokenizer = load_tokenizer(place)
        (ids,) = tokenizer.encode(["some <s>text</s>"])
        texts = tokenizer.texts()
    except (ValueError, OSError) as error:
        message = str(error)
        assert str(place) in message and not any(word in message for word in NEVER_IN_MESSAGES if "not JSON" not in message), message
        assert "\n" not in message
        return
    assert tokenizer.start not in ids and len(texts) > int(ids.max(initial=0))


@settings(max_examples=60, **FUZZ)
@given(st.data())
def test_a_few_damaged_tokenizers(root, data):
    check_tokenizer(root, data)


@pytest.mark.slow
@settings(max_examples=1000, **FUZZ)
@given(st.data())
def test_many_damaged_tokenizers(root, data):
    check_tokenizer(root, data)


def test_the_reference_sees_what_it_should():
    """The plain reading itself: separators, duplicates, what is refused."""
    assert slow_reading({"a.txt": b"x<s>y</s>x", ".b.txt": b"\xff"}) == {"a.txt#0": "x", "a.txt#1": "y"}
    assert slow_reading({"a.txt": b"\xff"}) is None and slow_reading({"a.jsonl": b'{"text": 1}'}) is None


def test_a_panic_of_the_library_is_said_of_the_file(tmp_path, monkeypatch):
    """What its Rust code raises is no Exception."""

    class Panic(BaseException):
        pass

    def from_str(text):
        raise Panic("range end index out of range")

    (tmp_path / "tokenizer.json").write_text("{}")
    monkeypatch.setattr(tokenizer.tokenizers, "Tokenizer", types.SimpleNamespace(from_str=from_str))
    with pytest.raises(ValueError, match="tokenizer.json is not a tokenizer that can be read: fetch it again"):
        tokenizer._backend(epath.Path(tmp_path))
