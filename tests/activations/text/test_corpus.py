import sysconfig

import pytest

from activations.text import corpus
from activations.text.corpus import Document, InMemory
from activations.text.standard_library import StandardLibrary, standard_library


def doc(name, lines):
    return Document(name, "\n".join(lines) + "\n")


def test_standard_library_is_split_by_document_and_free_of_test_suites():
    text = standard_library()
    names = [d.name for d in (*text.train, *text.held_out)]
    assert len(text.train) > 300 and len(text.held_out) > 30
    assert len(names) == len(set(names)) and names == [*text.train.names, *text.held_out.names]
    assert StandardLibrary().digest() == text.digest
    assert not [n for n in names if "/test/" in n or n.startswith(("test/", "idlelib", "tkinter"))]
    assert any("#" in n for n in names)  # manual topics
    assert sum(len(d.text) for d in text.train) > 6e6


def test_digest_depends_on_content_alone():
    docs = [
        doc("a.py", [f"first line number {i} of the file" for i in range(9)]),
        doc("b.py", [f"other text {i} entirely new" for i in range(9)]),
    ]
    same = corpus.split_corpus(reversed(docs))
    assert corpus.split_corpus(docs) == same
    assert corpus.split_corpus([docs[0], doc("b.py", ["changed text that is long enough"])]).digest != same.digest


def test_near_duplicates_are_dropped_and_the_first_kept():
    lines = [f"a line of some length, number {i}" for i in range(10)]
    copy = doc("b.py", [*lines[:6], "and some other line altogether", "with another one that differs", "third line that is different"])
    kept, dropped = corpus.drop_near_duplicates(
        [doc("a.py", lines), copy, doc("c.py", ["short", *lines[:2], *["x" * 30 + str(i) for i in range(9)]])]
    )
    assert [d.name for d in kept] == ["a.py", "c.py"] and dropped == ["b.py"]


def test_split_depends_on_the_name_alone():
    held = [corpus.is_held_out(f"package/module_{i}.py") for i in range(2000)]
    assert 0.07 < sum(held) / len(held) < 0.13
    text = standard_library(sysconfig.get_paths()["stdlib"])
    assert all(corpus.is_held_out(d.name) for d in text.held_out) and not any(corpus.is_held_out(d.name) for d in text.train)


def test_a_folder_without_source_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="source.root"):
        standard_library(str(tmp_path))


def test_of_many_documents_some_are_taken_and_of_few_all():
    documents = InMemory(Document(str(i), "é" * 50) for i in range(200))  # 100 bytes each
    few = documents.sample(950, seed=3)
    assert len(few) == 10 and sorted(few, key=lambda d: int(d.name)) == list(few) and few == documents.sample(950, seed=3)
    assert few != documents.sample(950, seed=4)
    assert documents.sample(2_501, seed=3) is documents  # less than eight times as much is there


@pytest.mark.parametrize("topics", [b"topics = {'a': 'b\xff'}", b"topics = {'a': ", b"topics = {'a': 3}", b"topics = {'a': f(1)}"])
def test_damaged_topics_are_named(tmp_path, topics):
    (tmp_path / "pydoc_data").mkdir()
    (tmp_path / "pydoc_data" / "topics.py").write_bytes(topics)
    (tmp_path / "a.py").write_text("x = 1\n" * 100)
    with pytest.raises(ValueError, match="config.source.root: .*topics.py (is damaged|holds something else than texts)"):
        standard_library(str(tmp_path))
