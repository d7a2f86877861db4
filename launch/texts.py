"""Which text a config names. A further corpus is a class with the members of `activations.text.corpus.TextSource`, and a line here."""

from activations.text.corpus import TextSource
from activations.text.local_files import LocalFiles
from activations.text.standard_library import StandardLibrary
from launch.sections import Source


def text_source(source: Source) -> TextSource:
    """The user's files, or the standard library. Raises FileNotFoundError where there are none."""
    return LocalFiles(source.text, source.text_field) if source.text else StandardLibrary(source.root or None)
