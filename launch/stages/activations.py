"""Stage: the activations to train on and those held out, as two stores: `train` and `eval`.

They are what a site of a language model holds over text, or a user's own arrays (`config.source.activations`), taken in where they lie.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import tqdm
from etils import epath
from jax.experimental import multihost_utils

from activations import harvest
from activations.harvest import Harvest
from activations.language_model import checkpoint, cost
from activations.language_model.config import DecoderConfig
from activations.language_model.placement import Placement
from activations.loss import mean_nll
from activations.store import StoreWriter
from activations.text import contexts
from activations.text.contexts import Contexts
from activations.text.corpus import Documents
from activations.text.tokenizer import Tokenizer, load_tokenizer
from launch import device, own_arrays, signals, texts
from launch.mesh import make_language_mesh
from launch.metrics import WallTimes
from launch.texts import text_source
from saes import capacity
from storage import files

BYTES_PER_TOKEN = 6  # of text tokenised for a row at first; twice as much as long as it does not suffice
CHECKED_CONTEXTS = 4  # at the beginning, on which it is looked whether the model knows this text


def inputs(config: Any) -> dict[str, str]:
    c = config.source
    if c.activations:
        return own_arrays.digests(c)
    folder = checkpoint.locate(config.lm.path, config.lm.revision)
    if config.lm.revision and str(folder) == config.lm.path:
        print(f"activations: config.lm.path={folder} is a folder, config.lm.revision={config.lm.revision!r} is of a hub and does nothing")
    model = checkpoint.load_config(folder)
    model.check_place(c.layer, c.site)
    if c.context_length > model.max_positions:
        raise ValueError(f"config.source.context_length={c.context_length}: the model has {model.max_positions} positions")
    return {"model": checkpoint.identity(folder).digest, "corpus": text_source(c).digest()}


def run(config: Any, workdir: epath.Path) -> list[epath.Path]:
    c, folder = config.source, workdir / "activations"
    if c.activations:
        return own_arrays.take_in(c, folder)
    home = checkpoint.locate(config.lm.path, config.lm.revision)
    model = checkpoint.load_config(home)
    placement = Placement(make_language_mesh(config.lm.model_parallel))
    contexts_at_once = batch_size(config, model, placement.data)  # what cannot be is refused before anything large is read
    tokenizer = load_tokenizer(home, c.start_token, encoder=not model.causal)
    source = text_source(c, tokenizer.separators)
    text = texts.read(source)
    of = Harvest(
        checkpoint.load_params(home, model, config.lm.dtype, placement),
        model,
        c.layer,
        c.site,
        contexts_at_once,
        c.shard_contexts,
        c.dtype,
        placement,
        jax.process_index(),
        jax.process_count(),
    )
    identity = checkpoint.identity(home)
    header = {
        "width": model.sites()[c.site],
        "dtype": c.dtype,
        "source": dataclasses.asdict(c),
        "text": source.description,
        "hook": {"model": identity.digest, "commit": identity.commit, "path": config.lm.path, "layer": c.layer, "site": c.site},
    }
    outputs = []
    for split, documents, rows in (("train", text.train, c.tokens), ("eval", text.held_out, c.eval_tokens)):
        some, chosen = _choose(documents, tokenizer, c.context_length, rows)
        if split == "train":
            _look_at_spelling(some, tokenizer)
            _look_at_loss(of, chosen)
        writer = StoreWriter(folder / split, {**header, "documents": list(some.names)})
        manifest = _harvest(of, chosen, writer, f"activations/{split}", workdir)
        outputs += [manifest, *(folder / split / s["file"] for s in files.read_json(manifest)["shards"])]
    files.write_json(folder / "vocabulary.json", tokenizer.texts())
    files.write_json(
        folder / "corpus.json", {"digest": text.digest, "documents": text.listing, "duplicates": text.dropped, "notes": text.notes}
    )
    _wait_for_all(of, "activations complete")
    return [*outputs, folder / "vocabulary.json", folder / "corpus.json"]


def batch_size(config: Any, model: DecoderConfig, data: int) -> int:
    """Contexts a forward pass: the config's number, or as many as fit beside the parameters."""
    c, width = config.source, jnp.dtype(config.lm.dtype).itemsize
    if c.batch_size:
        if c.batch_size % data:
            raise ValueError(f"config.source.batch_size={c.batch_size}: must be a multiple of the {data} parts that batches are cut into")
        return c.batch_size
    weights = cost.parameter_bytes(model, width) // config.lm.model_parallel
    memory = device.work_memory(jax.devices()[0].platform, capacity.device_memory(), weights)
    found = cost.batch_size(model, c.context_length, width, memory, c.shard_contexts, data)
    if c.shard_contexts % found:
        raise ValueError(
            f"config.source.shard_contexts={c.shard_contexts}: must be a multiple of the {data} parts that batches are cut into"
        )
    return found


def _choose(documents: Documents, tokenizer: Tokenizer, context_length: int, rows: int) -> tuple[Documents, Contexts]:
    """Contexts that hold at least so many rows, or all there are, and the documents they are of: of a large corpus no more is tokenised than needed."""
    size = BYTES_PER_TOKEN * rows
    while True:
        some = documents.sample(size, seed=0)
        made = contexts.make_contexts(some, tokenizer, context_length)
        found = int((made.length_N - 1).sum())
        if found >= rows or len(some) == len(documents):
            break
        size *= 2
    if found < rows:
        print(f"activations: the text holds {found:,} tokens, {rows:,} were asked for")
    return some, harvest.choose_contexts(made, rows, seed=0)


def _harvest(of: Harvest, chosen: Contexts, writer: StoreWriter, name: str, workdir: epath.Path) -> epath.Path:
    """Every host its share; the rate, and how near it comes to the device's matrix products, go to wall_times.jsonl. Returns the manifest."""
    total = int((chosen.length_N - 1).sum())
    with tqdm.tqdm(total=total, desc=name, unit="tok", unit_scale=True, mininterval=1.0) as bar:
        made = of.run(chosen, writer, bar.update, lambda: signals.raise_if_stop_requested("activations: finished shards are kept"))
    _wait_for_all(of, f"{name} written")
    manifest = epath.Path(writer.finish(of.shards(chosen)))
    _wait_for_all(of, f"{name} listed")
    if made.rows:
        padded = made.rows * chosen.tokens_NT.size / total  # every position is computed, padding too
        flops = padded * cost.flops_per_token(of.config, of.layer, of.site, chosen.tokens_NT.shape[1]) / made.seconds
        share = flops / (device.matmul_rate(of.params["embed"]["w"].dtype) * len(jax.local_devices()))
        rate = {"tokens_per_second": made.rows / made.seconds, "flops_per_second": flops, "share_of_matmul_rate": share}
        WallTimes(workdir / "wall_times.jsonl").write(what=name, seconds=made.seconds, **rate)
        print(f"{name}: {made.rows / made.seconds:,.0f} tokens/s, {share:.0%} of this device's matrix products", flush=True)
    return manifest


def _wait_for_all(of: Harvest, what: str) -> None:
    """The first host lists what all have written, and the others read its list."""
    if of.processes > 1:
        multihost_utils.sync_global_devices(what)


def _look_at_spelling(documents: Documents, tokenizer: Tokenizer) -> None:
    """Says so where text spells special tokens, as text in a chat's format does: they are not what a chat model would read."""
    spelt = [(d.name, token) for d in documents if (token := tokenizer.spelt(d.text))]
    if spelt:
        print(
            f"activations: {len(spelt):,} of {len(documents):,} documents spell special tokens, first {spelt[0][1]!r} in {spelt[0][0]}: "
            "they are read as plain letters, and never as rows of the special token"
        )


def _look_at_loss(of: Harvest, chosen: Contexts) -> None:
    """Says so where the model predicts the text worse than chance: the tokenizer of another model, or damaged weights."""
    if not of.config.causal:
        return
    if of.config.head == "none":
        print("activations: the checkpoint in lm.path holds no head: activations are read, cross-entropy and the stage splice are left out")
        return
    harvest.check_tokens(chosen, of.config)
    count = -(-CHECKED_CONTEXTS // of.placement.data) * of.placement.data
    first = Contexts(*(field[:count] for field in chosen))
    nll, chance = mean_nll(of.params, of.config, first, count, of.placement), math.log(of.config.vocab_size)
    print(f"activations: the model predicts the first {len(first.length_N)} contexts with {nll:.2f} nats a token (chance {chance:.2f})")
    if not nll <= chance + 0.05:
        print("warning: that is worse than chance: is lm.path's tokenizer another model's, or is the model untrained?")
