"""The held-out rows with their text: where each stands, and what its token is called."""

from typing import NamedTuple

import numpy as np

from activations.store import Rows
from activations.text.contexts import row_contexts
from experiments.data import language_model, sources
from experiments.data.language_model import LanguageModel
from experiments.stage import Task
from storage import files

UNCUT = 256  # rows of users' documents, which nobody cut, that count as one context


class Texts(NamedTuple):
    """Of N held-out rows.

    Attributes:
      rows: activations and places.
      context_N: number of the context in which each stands.
      position_N: place in its context, from 0.
      vocabulary: text of every token id.
      documents: names, by the rows' document numbers.
    """

    rows: Rows
    context_N: np.ndarray
    position_N: np.ndarray
    vocabulary: list[str]
    documents: list[str]


def read(task: Task) -> Texts | None:
    """None where there are no activations, or nobody knows the text of their tokens."""
    folder = sources.evaluation_store(task)
    if folder is None or not (folder.parent / "vocabulary.json").exists():
        return None
    store = sources.opened(task, folder)
    rows = store.load()
    harvested = store.manifest.get("source")
    length = harvested["context_length"] - _ends(task) if isinstance(harvested, dict) else UNCUT + 1
    context_N, first_C = row_contexts(rows.document_N, rows.position_N, length)
    position_N = np.arange(len(context_N)) - first_C[context_N]
    return Texts(rows, context_N, position_N, files.read_json(folder.parent / "vocabulary.json"), store.manifest["documents"])


def _ends(task: Task) -> int:
    """Tokens that end a context and are no row: of an encoder one."""
    if task.maybe(LanguageModel) is None:
        return 0
    return 0 if language_model.loaded_config(task).causal else 1
