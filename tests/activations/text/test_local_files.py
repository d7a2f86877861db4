import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activations.text.local_files import PIECES, LocalFiles


def jsonl(path, texts, field="text"):
    path.write_text("".join(json.dumps({"id": i, field: t}) + "\n" for i, t in enumerate(texts)))
    return path


def documents(corpus):
    return {d.name: d.text for part in (corpus.train, corpus.held_out) for d in part}


def test_lines_of_jsonl_are_documents(tmp_path):
    texts = [f"text {i} with ünicode — and\nlines" for i in range(40)]
    corpus = LocalFiles(str(jsonl(tmp_path / "a.jsonl", texts))).read()
    assert documents(corpus) == {f"a.jsonl:{i + 1}": t for i, t in enumerate(texts)}
    assert 0 < len(corpus.held_out) < 12 and list(corpus.train.names) == [d.name for d in corpus.train]


def test_what_is_empty_or_there_already_stays_out(tmp_path):
    corpus = LocalFiles(str(jsonl(tmp_path / "a.jsonl", ["one", "two", " ", "one", "three", ""]))).read()
    assert sorted(documents(corpus).values()) == ["one", "three", "two"] and corpus.dropped == ("a.jsonl:4",)


def test_another_field(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", ["one", "two"], field="content")
    assert len(documents(LocalFiles(str(path), "content").read())) == 2
    with pytest.raises(
        ValueError, match=r"a.jsonl, line 1 has no text in a field 'text' \(it is id: number, content: text\): set config.source.text_field"
    ):
        LocalFiles(str(path)).read()


def test_a_folder_of_both_kinds(tmp_path):
    (tmp_path / "deep").mkdir()
    jsonl(tmp_path / "deep" / "b.jsonl", ["b one", "b two"])
    (tmp_path / "a.txt").write_text("first<|endoftext|>\nsecond\n<|endoftext|>")
    (tmp_path / "c.txt").write_text("third")
    (tmp_path / "notes.md").write_text("no text")
    found = documents(LocalFiles(str(tmp_path)).read())
    assert found == {"a.txt#0": "first", "a.txt#1": "\nsecond\n", "c.txt": "third", "deep/b.jsonl:1": "b one", "deep/b.jsonl:2": "b two"}


@given(st.integers(2, 200), st.integers(1, 60))
def test_a_single_text_is_cut_at_lines(tmp_path_factory, lines, width):
    path = tmp_path_factory.mktemp("text") / "book.txt"
    path.write_text("".join(f"{i} {'é' * (i * width % 61)}\n" for i in range(lines)))
    corpus = LocalFiles(str(path)).read()
    found = documents(corpus)
    assert "".join(found[name] for name in sorted(found, key=lambda n: int(n.split("#")[1]))) == path.read_text()
    assert 2 <= len(found) <= PIECES and len(corpus.held_out) >= 1 and len(corpus.train) >= 1


def test_a_few_documents_are_split_too(tmp_path):
    for count in range(2, 9):
        corpus = LocalFiles(str(jsonl(tmp_path / f"{count}.jsonl", [f"text {i}" for i in range(count)]))).read()
        assert len(corpus.held_out) >= 1 and len(corpus.train) >= 1


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.jsonl", b'{"text": "fine"}\n{"text": \n', "a.jsonl, line 2 is no line of JSON"),
        ("a.jsonl", b'{"text": "fine"}\n[1]\n', "line 2 has no text in a field 'text' .it is list"),
        ("a.jsonl", b'{"text": "fine"}\n{"text": 3}\n', "line 2 has no text in a field 'text'"),
        ("a.jsonl", b'{"text": "fine"}\n{"text": "\xff"}\n', "a.jsonl, line 2 is not UTF-8 at byte 27: convert it"),
        ("a.jsonl", b'{"text": "fine"}\n{"text": "bad \\ud83d"}\n', "line 2 holds half a character"),
        ("a.jsonl", b'{"text": "fine"}\n{"text": "fine", "n": ' + b"9" * 5000 + b"}\n", "line 2 is no line of JSON"),
        ("a.txt", b"fine \xe9 latin", "a.txt, line 1 is not UTF-8 at byte 5: convert it"),
        ("a.txt", b"fine\nutf-16\x00\n", "a.txt, line 2 holds a zero byte: it is UTF-16 or no text: convert it to UTF-8"),
        ("a.jsonl", b'{"text": "fine"}\n{"text": null}\n', r"line 2 has no text in a field 'text' .it is text: null.: set"),
        ("a.jsonl", b'{"text": "fine"}\n{"text": ["a"], "x": {}}\n', r"line 2 has no text .* .it is text: list, x: object."),
        ("a.jsonl", b'{"text": "fine"}\nnull\n', r"line 2 has no text .* .it is null."),
        ("a.jsonl", b'{"text": "fine"}\n' + b"[" * 100_000 + b"\n", "line 2 is no line of JSON: mend"),
        ("A.JSONL", b'{"text": "fine"} {"text": "two"}\n', "A.JSONL, line 1 is no line of JSON from character 18: mend"),
        ("a.txt", b"  \n", "holds no text"),
        ("a.txt", b"", "holds no text"),
        ("a.txt", b"a single line", "is a single line: at least two documents"),
        ("a.jsonl", b'{"text": "fine"}\n', "holds a single document: at least two"),
    ],
)
def test_text_that_cannot_be_read(tmp_path, name, data, says):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=f"config.source.text: .*{says}"):
        LocalFiles(str(tmp_path / name)).read()


def test_paths_that_are_none(tmp_path):
    (tmp_path / "a.pdf").write_text("x")
    for path, says in (
        (tmp_path / "b.txt", "nothing at"),
        (tmp_path, r"nor a folder that holds any .it holds 1 .pdf."),
        (tmp_path / "a.pdf", "is no .txt or .jsonl"),
    ):
        with pytest.raises(FileNotFoundError, match=says):
            LocalFiles(str(path))


def test_the_digest_follows_content_names_and_field(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", ["one", "two"])
    seen = {LocalFiles(str(path)).digest(), LocalFiles(str(path), "id").digest()}
    assert LocalFiles(str(tmp_path)).digest() in seen  # of the same file by its folder
    jsonl(path, ["one", "three"])
    seen.add(LocalFiles(str(path)).digest())
    path.rename(tmp_path / "b.jsonl")
    seen.add(LocalFiles(str(tmp_path)).digest())
    assert len(seen) == 4


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "one"}\n{"text": "two"}\n')
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfthree")
    assert sorted(documents(LocalFiles(str(tmp_path)).read()).values()) == ["one", "three", "two"]


def test_a_file_that_grew_is_read_anew(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", ["one", "two"])
    assert len(documents(LocalFiles(str(path)).read())) == 2
    jsonl(path, ["one", "two", "three", "four"])
    assert len(documents(LocalFiles(str(path)).read())) == 4


def test_a_sample_of_a_large_corpus(tmp_path):
    corpus = LocalFiles(str(jsonl(tmp_path / "a.jsonl", [f"text number {i:04d}" for i in range(400)]))).read()
    part = corpus.train.sample(1000, seed=0)
    assert sum(len(d.text) for d in part) + 30 * len(part) >= 1000 and len(part) < 60  # bytes of lines, their frame included
    order = [corpus.train.names.index(n) for n in part.names]
    assert order == sorted(order) and order != list(range(len(order)))
    assert list(part.names) == [d.name for d in part] and part.names == corpus.train.sample(1000, seed=0).names
    assert corpus.train.sample(10**9, seed=0).names == corpus.train.names


def test_what_a_folder_holds_beside_text_is_named(tmp_path):
    for name in ("a.jsonl", "B.JSONL", "deep/e.Jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        jsonl(tmp_path / name, [f"{name} one", f"{name} two"])
    (tmp_path / "F.TXT").write_text("four")
    for name in ("c.jsonl.gz", "d.json", "deep/x.json", "README", ".hidden.txt", ".git/a.txt", ".ipynb_checkpoints/a.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("not this")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nothing")
    corpus = LocalFiles(str(tmp_path)).read()
    assert {n.split(":")[0] for n in documents(corpus)} == {"a.jsonl", "B.JSONL", "deep/e.Jsonl", "F.TXT"}
    assert corpus.notes == (
        f"{tmp_path.name}: left out 3 hidden, 2 .json, 1 .gz, 1 broken link, 1 without suffix: only .txt and .jsonl are read",
    )


def test_a_hidden_place_that_is_named_is_read(tmp_path):
    (tmp_path / ".cache").mkdir()
    assert len(documents(LocalFiles(str(jsonl(tmp_path / ".cache" / ".a.jsonl", ["one", "two"]))).read())) == 2
    (tmp_path / ".cache" / "b.txt").write_text("one<|endoftext|>two")
    assert len(documents(LocalFiles(str(tmp_path / ".cache")).read())) == 2


def test_separators_split_lines_of_jsonl_as_they_split_text(tmp_path):
    texts = ["one<|endoftext|>two</s>", "three", "</s>"]
    expected = {"a.jsonl:1#0": "one", "a.jsonl:1#1": "two", "a.jsonl:2": "three"}
    corpus = LocalFiles(str(jsonl(tmp_path / "a.jsonl", texts)), separators=("<|endoftext|>", "</s>")).read()
    assert documents(corpus) == expected
    assert corpus.notes == ("a.jsonl: left out 3 empty documents", "a.jsonl: 2 texts hold <|endoftext|> or </s> and are split there")
    (tmp_path / "b.txt").write_text(texts[0] + "three")
    assert documents(LocalFiles(str(tmp_path / "b.txt"), separators=("<|endoftext|>", "</s>")).read()) == {
        "b.txt#0": "one", "b.txt#1": "two", "b.txt#2": "three"
    }  # fmt: skip
    assert documents(LocalFiles(str(tmp_path / "a.jsonl")).read())["a.jsonl:1#1"] == "two</s>"


def test_a_sample_counts_the_parts_of_a_line_as_they_are(tmp_path):
    line = "<|endoftext|>".join(f"text number {i:04d}" for i in range(400))
    corpus = LocalFiles(str(jsonl(tmp_path / "a.jsonl", [line]))).read()
    part = corpus.train.sample(1000, seed=0)
    assert 1000 / 40 < len(part) < 1000 / 20


def test_lines_of_windows_and_marks_at_their_beginning(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "one"}\r\n\xef\xbb\xbf{"text": "two\\r\\n"}\r\n\r\n')
    (tmp_path / "b.txt").write_bytes(b"three\r\nfour")
    assert sorted(documents(LocalFiles(str(tmp_path)).read()).values()) == ["one", "three\r\nfour", "two\r\n"]


def test_a_name_that_is_no_unicode(tmp_path):
    (tmp_path / "a\udcff.txt").write_text("one")
    with pytest.raises(ValueError, match=r"the name of the file .*a.udcff.txt' is not UTF-8: rename it"):
        LocalFiles(str(tmp_path))


def test_a_line_of_ten_megabytes(tmp_path):
    texts = ["word " * 2_000_000, "short"]
    assert documents(LocalFiles(str(jsonl(tmp_path / "a.jsonl", texts))).read()) == {"a.jsonl:1": texts[0], "a.jsonl:2": "short"}
