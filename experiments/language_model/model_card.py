"""Stage: measures the trained language model against n-gram baselines on the held-out files and writes its card."""

import math
from typing import Any

from etils import epath

from activations.language_model import checkpoint
from activations.loss import mean_nll
from activations.text import contexts
from activations.text.corpus import Corpus
from activations.text.ngram import NgramModel
from activations.text.tokenizer import load_tokenizer
from experiments.data.corpora import Text, text_source
from experiments.fields import config, field
from experiments.language_model.size import Pretrain
from experiments.stage import Outputs, Stage, Task
from storage import files


@config("model_card")
class ModelCard:
    """Where the finished model goes."""

    export_to: str = field(default="", doc="folder for the finished model; '': below the workdir alone", how=True)
    discount: float = field(default=0.75, doc="absolute discount of the n-gram baselines", gt=0, lt=1)


STAGE = Stage(config=ModelCard, reads=(Text, Pretrain), needs=("tokenizer", "pretrain"))

BASELINES = ("unigram", "bigram", "trigram with backoff")
_MODEL = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def run(task: Task, out: Outputs) -> None:
    model_folder = task.path("pretrain/model")
    source = text_source(task.section(Text))
    text = source.read()
    tokenizer = load_tokenizer(model_folder)
    model = checkpoint.load_config(model_folder)
    params = checkpoint.load_params(model_folder, model)
    held_out = contexts.make_contexts(text.held_out, tokenizer, task.section(Pretrain).context_length)
    tokens = int((held_out.length_N - 1).sum())
    n_bytes = sum(len(d.text.encode()) for d in text.held_out)

    nll = {"this model": mean_nll(params, model, held_out)}
    train, test = (list(tokenizer.encode(d.text for d in part)) for part in (text.train, text.held_out))
    for order, name in enumerate(BASELINES, start=1):
        ngram = NgramModel(train, model.vocab_size, tokenizer.start, order, task.section(ModelCard).discount)
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
    out.summary(summary)
    history = [m for m in files.read_json_lines(task.path("pretrain/metrics.jsonl")) if "held_out_nll" in m]
    card = _card(task, summary, history, text, source.description)
    out.bytes("README.md", card.encode())
    if task.section(ModelCard).export_to:
        exported = {name: (model_folder / name).read_bytes() for name in _MODEL}
        exported |= {"corpus.json": (task.path("tokenizer/corpus.json")).read_bytes(), "README.md": card.encode()}
        _export(epath.Path(task.section(ModelCard).export_to), exported)


def _export(target: epath.Path, contents: dict[str, bytes]) -> None:
    """Writes the files. Raises ValueError where one is there already with another content, before any is written."""
    for name, data in contents.items():
        if (target / name).exists() and (target / name).read_bytes() != data:
            raise ValueError(f"config.model_card.export_to={str(target)!r} holds another {name}: name an empty folder, or move it away")
    for name, data in contents.items():
        files.write_bytes(target / name, data)
    print(f"model_card: model and card copied to {target}")


def _card(task: Task, summary: dict[str, Any], history: list[dict[str, Any]], text: Corpus, described: str) -> str:
    c = task.section(Pretrain)
    rows = "\n".join(
        f"| {name} | {summary['nats_per_token'][name]:.4f} | {summary['bits_per_byte'][name]:.4f} |" for name in ("this model", *BASELINES)
    )
    rows_of_curve = history[:: max(1, len(history) // 10)]
    curve = "\n".join(
        f"| {m['step']} | {m['held_out_nll']:.4f} |"
        for m in (rows_of_curve if rows_of_curve[-1] is history[-1] else [*rows_of_curve, history[-1]])
    )
    n_tokens = c.steps * c.batch_size * (c.context_length - 1)
    return f"""# A small GPT-NeoX trained on the {described}

Made by this repository so that its main job runs offline on real text:
`python -m launch.main --config=configs/pretrain_stdlib.py --workdir=runs/pretrain`.

- **Architecture**: GPT-NeoX, {c.n_layers} layers, width {c.width}, {c.n_heads} heads, MLP {c.mlp_width}, parallel residual, rotary on
  {c.rotary_fraction:.0%} of each head, untied embeddings, byte-level BPE with {c.vocab_size} entries (`<|endoftext|>` starts every context).
- **Corpus**: {described} ({len(text.train)} documents
  to train on, {len(text.held_out)} held out, split by document, {len(text.dropped)} duplicates removed), digest `{summary["corpus_digest"]}`; `corpus.json` lists every file with its sha256.
- **Training**: {n_tokens:,} tokens ({n_tokens / summary["train_tokens"]:.1f} epochs of {summary["train_tokens"]:,}), AdamW, peak rate {c.lr}, batches of
  {c.batch_size} contexts of {c.context_length} tokens.
- **Held-out files**: {summary["held_out_tokens"]:,} tokens, {summary["held_out_bytes"]:,} bytes; every token counted once, in contexts of {c.context_length}.

| model | nats per token | bits per byte |
|---|---|---|
{rows}

The baselines are trained on the same files and tokens (interpolated absolute discounting, d = {task.section(ModelCard).discount}) and see the whole history.

Held-out loss along training:

| step | nats per token |
|---|---|
{curve}

The weights are under this repository's licence, the text under its own (the standard library's is the PSF License). The model imitates
its text and knows nothing; it is here to have a residual stream worth reading.
"""
