"""Which text a config names: the user's files, or the standard library. A further corpus is a class with the members of `activations.text.corpus.TextSource`, and a line here."""

from collections.abc import Sequence

from activations.text.corpus import Corpus, TextSource
from activations.text.local_files import LocalFiles
from activations.text.standard_library import StandardLibrary
from activations.text.tokenizer import END_OF_TEXT
from experiments.fields import check, config, field


@config("source")
class Text:
    """The text that is read."""

    text: str = field(
        default="",
        doc="a .txt or .jsonl file, or a folder of them; '': the standard library. See activations/text/local_files.py",
        path=True,
    )
    text_field: str = field(default="text", doc="of a line of a .jsonl file")
    root: str = field(default="", doc="folder of a Python standard library; '': the running interpreter's", path=True)

    def check(self) -> None:
        check(not (self.text and self.root), "source.root", self.root, "source.text takes its place")


def text_source(source: Text, separators: Sequence[str] = (END_OF_TEXT,)) -> TextSource:
    """The user's files, split into documents at `separators`, or the standard library. Raises FileNotFoundError where there are none."""
    return LocalFiles(source.text, source.text_field, separators) if source.text else StandardLibrary(source.root or None)


def read(source: TextSource) -> Corpus:
    """The documents; what was left out or split is printed, a line each."""
    corpus = source.read()
    for note in corpus.notes:
        print(f"text: {note}", flush=True)
    return corpus
