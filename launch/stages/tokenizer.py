"""Stage: a byte-level BPE trained on the corpus' training files."""

from typing import Any

from etils import epath

from activations import corpus
from activations.tokenizer import train_tokenizer
from storage import files


def inputs(config: Any) -> dict[str, str]:
    return {"corpus": corpus.standard_library(config.source.root or None).digest}


def run(config: Any, workdir: epath.Path) -> list[epath.Path]:
    text = corpus.standard_library(config.source.root or None)
    tokenizer = train_tokenizer((d.text for d in text.train), config.pretrain.vocab_size)
    folder = workdir / "tokenizer"
    files.write_bytes(folder / "tokenizer.json", tokenizer.to_str(pretty=True).encode())
    files.write_json(folder / "corpus.json", {"digest": text.digest, "documents": text.listing(), "near_duplicates": text.dropped})
    return [folder / "tokenizer.json", folder / "corpus.json"]
