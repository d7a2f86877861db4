"""Stage: measures the trained language model against n-gram baselines on the held-out files and writes its card."""

import math
from typing import Any

import numpy as np
from etils import epath

from activations import contexts, corpus, huggingface
from activations.ngram import NgramModel
from activations.tokenizer import END_OF_TEXT, load_tokenizer
from launch.stages.pretrain import mean_nll
from storage import files

BASELINES = ("unigram", "bigram", "trigram with backoff")


def run(config: Any, workdir: epath.Path) -> list[epath.Path]:
    folder = workdir / "model_card"
    model_folder = workdir / "pretrain" / "model"
    text = corpus.standard_library(config.source.root or None)
    tokenizer = load_tokenizer(model_folder)
    model = huggingface.load_config(model_folder)
    params = huggingface.load_params(model_folder, model)
    held_out = contexts.make_contexts(text.held_out, tokenizer, config.pretrain.context_length)
    tokens = int((held_out.length_N - 1).sum())
    n_bytes = sum(len(d.text.encode()) for d in text.held_out)

    nll = {"this model": mean_nll(params, model, held_out)}
    encode = lambda docs: [np.asarray(e.ids) for e in tokenizer.encode_batch([d.text for d in docs], add_special_tokens=False)]
    start = tokenizer.token_to_id(END_OF_TEXT)
    assert start is not None  # `load_tokenizer` has looked
    train, test = encode(text.train), encode(text.held_out)
    for order, name in enumerate(BASELINES, start=1):
        ngram = NgramModel(train, model.vocab_size, start, order, config.model_card.discount)
        nll[name] = float(sum(ngram.nll(s).sum() for s in test) / tokens)
    bits_per_byte = {name: value * tokens / n_bytes / math.log(2) for name, value in nll.items()}
    summary = {
        "nats_per_token": nll,
        "bits_per_byte": bits_per_byte,
        "held_out_tokens": tokens,
        "held_out_bytes": n_bytes,
        "train_tokens": int(sum(len(s) for s in train)),
        "corpus_digest": text.digest,
    }
    files.write_json(folder / "summary.json", summary)
    history = [m for m in files.read_json_lines(workdir / "pretrain" / "metrics.jsonl") if "held_out_nll" in m]
    card = _card(config, summary, history, text)
    files.write_bytes(folder / "README.md", card.encode())
    if config.model_card.export_to:
        target = epath.Path(config.model_card.export_to)
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            files.write_bytes(target / name, (model_folder / name).read_bytes())
        files.write_bytes(target / "corpus.json", (workdir / "tokenizer" / "corpus.json").read_bytes())
        files.write_bytes(target / "README.md", card.encode())
        print(f"model_card: model and card copied to {target}")
    return [folder / "summary.json", folder / "README.md"]


def _card(config: Any, summary: dict[str, Any], history: list[dict[str, Any]], text: corpus.Corpus) -> str:
    c = config.pretrain
    rows = "\n".join(
        f"| {name} | {summary['nats_per_token'][name]:.4f} | {summary['bits_per_byte'][name]:.4f} |" for name in ("this model", *BASELINES)
    )
    shown = history[:: max(1, len(history) // 10)]
    curve = "\n".join(f"| {m['step']} | {m['held_out_nll']:.4f} |" for m in (shown if shown[-1] is history[-1] else [*shown, history[-1]]))
    seen = c.steps * c.batch_size * (c.context_length - 1)
    return f"""# A small GPT-NeoX trained on the Python standard library

Made by this repository so that its main job runs offline on real text:
`python -m launch.main --config=configs/pretrain_stdlib.py --workdir=runs/pretrain`.

- **Architecture**: GPT-NeoX, {c.n_layers} layers, width {c.width}, {c.n_heads} heads, MLP {c.mlp_width}, parallel residual, rotary on
  {c.rotary_fraction:.0%} of each head, untied embeddings, byte-level BPE with {c.vocab_size} entries (`<|endoftext|>` starts every context).
- **Corpus**: source and manual topics of the standard library of the interpreter that trained it ({len(text.train)} documents
  to train on, {len(text.held_out)} held out, split by document, {len(text.dropped)} near-duplicates removed), digest `{summary["corpus_digest"]}`; `corpus.json` lists every file with its sha256.
- **Training**: {seen:,} tokens ({seen / summary["train_tokens"]:.1f} epochs of {summary["train_tokens"]:,}), AdamW, peak rate {c.lr}, batches of
  {c.batch_size} contexts of {c.context_length} tokens.
- **Held-out files**: {summary["held_out_tokens"]:,} tokens, {summary["held_out_bytes"]:,} bytes; every token counted once, in contexts of {c.context_length}.

| model | nats per token | bits per byte |
|---|---|---|
{rows}

The baselines are trained on the same files and tokens (interpolated absolute discounting, d = {config.model_card.discount}) and see the whole history.

Held-out loss along training:

| step | nats per token |
|---|---|
{curve}

The text is the standard library's own (PSF License); the weights are under this repository's licence. The model writes Python-like text
and knows nothing; it is here to have a residual stream worth reading.
"""
