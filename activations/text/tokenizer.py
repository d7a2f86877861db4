"""Tokenizers: a byte-level BPE trained here for the embedded model, or the one in a model's folder.

Special tokens never come out of text. Where text spells one, its letters are encoded like any others; where the tokenizer's own
model makes the special token of them all the same (a vocabulary that holds it as a word), that token is left out.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tokenizers
from etils import epath
from tokenizers import decoders, models, pre_tokenizers, trainers

from storage import files

END_OF_TEXT = "<|endoftext|>"
BATCH = 256  # documents encoded at a time: an encoding holds many times the memory of its ids


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """Text → token ids.

    Attributes:
      backend: the library's.
      start: id of the token that begins every context (position 0, never a row); it also pads.
      end: id of the token that ends every context of an encoder; None: none.
      special: ids of other tokens that are never of text; the one for unknown words is none of them.
      separators: special tokens that begin or end a document, as text spells them.
    """

    backend: tokenizers.Tokenizer
    start: int
    end: int | None = None
    special: frozenset[int] = frozenset()
    separators: tuple[str, ...] = (END_OF_TEXT,)

    def __post_init__(self) -> None:
        self.backend.encode_special_tokens = True  # as text

    def encode(self, texts: Iterable[str]) -> Iterator[np.ndarray]:
        """Token ids of each text, int32, without start and end."""
        batch: list[str] = []
        for text in texts:
            batch.append(text)
            if len(batch) == BATCH:
                yield from self._encode(batch)
                batch = []
        yield from self._encode(batch)

    def texts(self) -> list[str]:
        """The text of every token id inside running text, in order of ids; bytes that are no whole character show as U+FFFD."""
        ids = range(1 + max(self.backend.get_vocab(with_added_tokens=True).values(), default=-1))
        whole = lambda text: bool(text.strip()) and "\ufffd" not in text
        alone = self._decode([[i] for i in ids])
        # Some decoders eat the blank that begins a text: a token stands before, of letters or digits alone if there is one.
        before = next((i for i in ids if alone[i].strip().isalnum()), next((i for i in ids if whole(alone[i])), None))
        if before is None:
            return alone
        known = len(alone[before])
        return [text[known:] for text in self._decode([[before, i] for i in ids])]

    def spelt(self, text: str) -> str:
        """The first special token that a text spells; "" where it spells none."""
        found = self._spelling.search(text)
        return found[0] if found else ""

    @functools.cached_property
    def _never(self) -> np.ndarray:
        return np.array(sorted({self.start, *self.special} | ({self.end} if self.end is not None else set())), np.int32)

    @functools.cached_property
    def _spelling(self) -> re.Pattern[str]:
        texts = [t for i in self._never.tolist() if (t := self.backend.id_to_token(i))]
        return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or r"(?!)")

    def _encode(self, texts: Sequence[str]) -> Iterator[np.ndarray]:
        for encoding in self.backend.encode_batch(list(texts), add_special_tokens=False):
            ids = np.asarray(encoding.ids, np.int32)
            yield ids[~np.isin(ids, self._never)]

    def _decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        return self.backend.decode_batch([list(i) for i in ids], skip_special_tokens=False)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> tokenizers.Tokenizer:
    """Trains a byte-level BPE with `vocab_size` entries; `END_OF_TEXT` is token 0. Every text is representable."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def load_tokenizer(folder: epath.PathLike, start: str = "", encoder: bool = False) -> Tokenizer:
    """Reads the tokenizer in a model's folder.

    Args:
      start: text of the token that begins every context; "": what the tokenizer names as beginning of a sequence, else as
        classifier, else `<|endoftext|>`, `[CLS]`, or as end of a sequence.
      encoder: contexts end with the separator (BERT), what the tokenizer names so or `[SEP]`.

    Raises:
      FileNotFoundError: there is none.
      ValueError: the file is not a tokenizer, or has no such token.
    """
    folder = epath.Path(folder)
    backend = _backend(folder)
    backend.no_truncation()  # some files cut texts to what the model was trained for
    backend.no_padding()
    special = _special_tokens(folder)
    candidates = [start] if start else [special.get("bos_token"), special.get("cls_token"), END_OF_TEXT, "[CLS]", special.get("eos_token")]
    ids = [i for token in candidates if token and (i := backend.token_to_id(token)) is not None]
    if not ids:
        wanted = f"no token {start!r}" if start else "no token to begin a context with"
        raise ValueError(f"the tokenizer in {folder} has {wanted}: set config.source.start_token to one of its tokens")
    never = _never_of_text(backend, special)
    named = [special.get("bos_token"), special.get("eos_token"), backend.id_to_token(ids[0]), END_OF_TEXT]
    separators = tuple(dict.fromkeys(t for t in named if t and (t == END_OF_TEXT or backend.token_to_id(t) in never)))
    if not encoder:
        return Tokenizer(backend, ids[0], None, never, separators)
    end = backend.token_to_id(special.get("sep_token") or "[SEP]")
    if end is None:
        raise ValueError(f"the tokenizer in {folder} names no separator (sep_token), with which an encoder's contexts end")
    return Tokenizer(backend, ids[0], end, never, separators)


def _never_of_text(backend: tokenizers.Tokenizer, special: dict[str, str]) -> frozenset[int]:
    """Ids of the tokens that the tokenizer or its folder calls special, that for unknown words left out."""
    named = {backend.token_to_id(token) for role, token in special.items() if role != "unk_token"}
    added = {i for i, token in backend.get_added_tokens_decoder().items() if token.special}
    unigram = isinstance(backend.model, models.Unigram)  # tells what it makes of unknown text in its file alone
    unknown = {json.loads(backend.to_str())["model"].get("unk_id") if unigram else None}
    unknown |= {backend.token_to_id(t) for t in (special.get("unk_token"), getattr(backend.model, "unk_token", None)) if isinstance(t, str)}
    return frozenset(i for i in named | (added - unknown) if i is not None)


def _backend(folder: epath.Path) -> tokenizers.Tokenizer:
    path = folder / "tokenizer.json"
    if not path.exists():
        older = any((folder / name).exists() for name in ("vocab.json", "vocab.txt", "tokenizer.model"))
        advice = (
            "write it with transformers' AutoTokenizer.from_pretrained(…).save_pretrained(…)"
            if older
            else "lm.path must name a folder in Hugging Face layout"
        )
        raise FileNotFoundError(f"no tokenizer at {path}: {advice}")
    try:
        return tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except (OSError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises bare Exception, and where its own code panics not even that
        raise ValueError(f"{path} is not a tokenizer that can be read: fetch it again") from error


def _special_tokens(folder: epath.Path) -> dict[str, str]:
    """bos_token, cls_token, … as the folder names them."""
    found: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).exists():
            said = files.read_json(folder / name)
            found |= said if isinstance(said, dict) else {}
    as_text = {k: v.get("content") if isinstance(v, dict) else v for k, v in found.items() if k.endswith("_token")}
    return {k: v for k, v in as_text.items() if isinstance(v, str)}
