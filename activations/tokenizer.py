"""Byte-level BPE: trained here for the embedded model, or read from a model's folder."""

from collections.abc import Iterable

import tokenizers
from etils import epath
from tokenizers import decoders, models, pre_tokenizers, trainers

END_OF_TEXT = "<|endoftext|>"


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


def load_tokenizer(folder: epath.PathLike) -> tokenizers.Tokenizer:
    """Reads `tokenizer.json` from a model's folder.

    Raises:
      FileNotFoundError: there is none.
      ValueError: the file is not a tokenizer, or lacks `END_OF_TEXT`.
    """
    path = epath.Path(folder) / "tokenizer.json"
    if not path.exists():
        raise FileNotFoundError(f"no tokenizer at {path}: lm.path must name a folder in Hugging Face layout")
    try:
        tokenizer = tokenizers.Tokenizer.from_str(path.read_text())
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"{path} is not a readable tokenizer ({error})") from error
    if tokenizer.token_to_id(END_OF_TEXT) is None:
        raise ValueError(f"{path} has no {END_OF_TEXT} token, which starts every context here")
    return tokenizer


def token_texts(tokenizer: tokenizers.Tokenizer) -> list[str]:
    """The text of every token id alone, in order; bytes that are no whole character show as U+FFFD."""
    return [tokenizer.decode([i], skip_special_tokens=False) for i in range(tokenizer.get_vocab_size())]
