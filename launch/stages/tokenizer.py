"""Stage: a byte-level BPE trained on the corpus' training files."""

from typing import Any

from etils import epath

from activations.text.tokenizer import train_tokenizer
from launch import texts
from launch.texts import text_source
from storage import files


def inputs(config: Any) -> dict[str, str]:
    return {"corpus": text_source(config.source).digest()}


def run(config: Any, workdir: epath.Path) -> list[epath.Path]:
    text = texts.read(text_source(config.source))
    tokenizer = train_tokenizer((d.text for d in text.train), config.pretrain.vocab_size)
    folder = workdir / "tokenizer"
    files.write_bytes(folder / "tokenizer.json", tokenizer.to_str(pretty=True).encode())
    files.write_json(folder / "corpus.json", {"digest": text.digest, "documents": text.listing, "near_duplicates": text.dropped})
    return [folder / "tokenizer.json", folder / "corpus.json"]
