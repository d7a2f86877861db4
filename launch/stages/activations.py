"""Stage: the residual stream of a language model over text, as two stores: `train` and `eval` (held-out files)."""

import dataclasses
from typing import Any

import tqdm
from etils import epath

from activations import contexts, corpus, harvest, huggingface
from activations.store import StoreWriter
from activations.tokenizer import load_tokenizer, token_texts
from launch import signals
from storage import files


def inputs(config: Any) -> dict[str, str]:
    c = config.source
    model = huggingface.load_config(config.lm.path)
    if c.layer >= model.n_layers:
        raise ValueError(f"config.source.layer={c.layer}: the model has layers 0 to {model.n_layers - 1}")
    if c.context_length > model.max_positions:
        raise ValueError(f"config.source.context_length={c.context_length}: the model has {model.max_positions} positions")
    return {
        "model": huggingface.model_digest(config.lm.path),
        "corpus": corpus.standard_library(config.source.root or None).digest,
    }


def run(config: Any, workdir: epath.Path) -> list[epath.Path]:
    c = config.source
    folder = workdir / "activations"
    text = corpus.standard_library(c.root or None)
    model = huggingface.load_config(config.lm.path)
    params = huggingface.load_params(config.lm.path, model)
    tokenizer = load_tokenizer(config.lm.path)
    header = {
        "width": model.width,
        "dtype": c.dtype,
        "source": dataclasses.asdict(c),
        "hook": {"model": huggingface.model_digest(config.lm.path), "path": config.lm.path, "layer": c.layer, "site": c.site},
    }
    outputs = []
    for split, documents, rows in (("train", text.train, c.tokens), ("eval", text.held_out, c.eval_tokens)):
        every = contexts.make_contexts(documents, tokenizer, c.context_length)
        chosen = harvest.choose_contexts(every, rows, seed=0)
        writer = StoreWriter(folder / split, {**header, "documents": [d.name for d in documents]})
        total = int((chosen.length_N - 1).sum())
        with tqdm.tqdm(total=total, desc=f"activations/{split}", unit="tok", unit_scale=True, mininterval=1.0) as bar:
            harvest.harvest(
                params,
                model,
                chosen,
                layer=c.layer,
                batch_size=c.batch_size,
                shard_contexts=c.shard_contexts,
                writer=writer,
                progress=bar.update,
                before_shard=lambda: signals.raise_if_stop_requested("activations: finished shards are kept"),
            )
        manifest = epath.Path(writer.finish())
        outputs += [manifest, *(folder / split / s["file"] for s in files.read_json(manifest)["shards"])]
    files.write_json(folder / "vocabulary.json", token_texts(tokenizer))
    files.write_json(folder / "corpus.json", {"digest": text.digest, "documents": text.listing(), "near_duplicates": text.dropped})
    return [*outputs, folder / "vocabulary.json", folder / "corpus.json"]
