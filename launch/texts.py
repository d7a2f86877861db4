"""Which text a config names. A further corpus is a class with the members of `activations.text.corpus.TextSource`, and a line here."""

from collections.abc import Sequence

from activations.text.corpus import Corpus, TextSource
from activations.text.local_files import LocalFiles
from activations.text.standard_library import StandardLibrary
from activations.text.tokenizer import END_OF_TEXT
from launch.sections import Source


def text_source(source: Source, separators: Sequence[str] = (END_OF_TEXT,)) -> TextSource:
    """The user's files, split into documents at `separators`, or the standard library. Raises FileNotFoundError where there are none."""
    return LocalFiles(source.text, source.text_field, separators) if source.text else StandardLibrary(source.root or None)


def read(source: TextSource) -> Corpus:
    """The documents; what was left out or split is printed, a line each."""
    corpus = source.read()
    for note in corpus.notes:
        print(f"text: {note}", flush=True)
    return corpus
