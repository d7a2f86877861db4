"""Stage: the activations to train on and those held out, as two stores: `train` and `eval`.

They are what a site of a language model holds over text, or a user's own arrays (`config.source.activations`), taken in where they lie.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import tqdm
from etils import epath
from jax.experimental import multihost_utils

from activations import harvest
from activations.harvest import Harvest
from activations.language_model import checkpoint
from activations.language_model import cost as model_cost
from activations.language_model.config import DecoderConfig
from activations.language_model.placement import Placement
from activations.loss import mean_nll
from activations.store import StoreWriter
from activations.text import contexts
from activations.text.contexts import Contexts
from activations.text.corpus import Documents
from activations.text.tokenizer import Tokenizer, load_tokenizer
from experiments.data import corpora, costs, own_arrays
from experiments.data.corpora import Text, text_source
from experiments.data.costs import Cost, Hardware, Size
from experiments.data.harvesting import Harvesting
from experiments.data.language_model import LanguageModel
from experiments.data.own_arrays import OwnRows, OwnStudy
from experiments.fields import check
from experiments.settings import Settings
from experiments.stage import Outputs, Stage, Task
from runtime import device, interrupts
from runtime.mesh import make_language_mesh
from runtime.metrics import WallTimes
from saes import capacity
from storage import files

STAGE = Stage(
    config=Harvesting,
    reads=(Text, OwnRows, OwnStudy, LanguageModel),
    provides=("rows",),
    guarded=True,
)

BYTES_PER_TOKEN = 6  # of text tokenised for a row at first; twice as much as long as it does not suffice
CHECKED_CONTEXTS = 4  # at the beginning, on which it is looked whether the model knows this text


def inputs(task: Task) -> dict[str, str]:
    c, lm, own = task.section(Harvesting), task.section(LanguageModel), task.section(OwnRows)
    if own.activations:
        return own_arrays.digests(own, task.section(OwnStudy))
    folder = checkpoint.locate(lm.path, lm.revision)
    if lm.revision and str(folder) == lm.path:
        print(f"activations: config.lm.path={folder} is a folder, config.lm.revision={lm.revision!r} is of a hub and does nothing")
    model = checkpoint.load_config(folder)
    model.check_place(c.layer, c.site)
    if c.context_length > model.max_positions:
        raise ValueError(f"config.source.context_length={c.context_length}: the model has {model.max_positions} positions")
    return {"model": checkpoint.identity(folder).digest, "corpus": text_source(task.section(Text)).digest()}


def check_settings(task: Task) -> None:
    """What must hold between sections."""
    own, written = task.section(OwnRows), task.section(Text)
    check(not (written.text and own.activations), "source.text", written.text, "source.activations takes its place")
    own_arrays.check_together(own, task.section(OwnStudy))


def run(task: Task, out: Outputs) -> None:
    c, lm, own, written = task.section(Harvesting), task.section(LanguageModel), task.section(OwnRows), task.section(Text)
    if own.activations:
        out.add(*own_arrays.take_in(own, task.section(OwnStudy), task.folder))
        return
    home = checkpoint.locate(lm.path, lm.revision)
    model = checkpoint.load_config(home)
    placement = Placement(make_language_mesh(lm.model_parallel))
    contexts_at_once = batch_size(task, model, placement.data)  # what cannot be is refused before anything large is read
    tokenizer = load_tokenizer(home, c.start_token, encoder=not model.causal)
    source = text_source(written, tokenizer.separators)
    text = corpora.read(source)
    harvester = Harvest(
        checkpoint.load_params(home, model, lm.dtype, placement),
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
        "source": dataclasses.asdict(written) | dataclasses.asdict(own) | dataclasses.asdict(c),
        "text": source.description,
        "hook": {"model": identity.digest, "commit": identity.commit, "path": lm.path, "layer": c.layer, "site": c.site},
    }
    for split, documents, rows in (("train", text.train, c.tokens), ("eval", text.held_out, own.eval_tokens)):
        some, selection = _choose(documents, tokenizer, c.context_length, rows)
        if split == "train":
            _look_at_spelling(some, tokenizer)
            _look_at_loss(harvester, selection)
        writer = StoreWriter(task.folder / split, {**header, "documents": list(some.names)})
        manifest = _harvest(harvester, selection, writer, f"activations/{split}", task.root)
        out.add(manifest, *(task.folder / split / s["file"] for s in files.read_json(manifest)["shards"]))
    out.json("vocabulary.json", tokenizer.texts())
    out.json("corpus.json", {"digest": text.digest, "documents": text.listing, "duplicates": text.dropped, "notes": text.notes})
    _wait_for_all(harvester, "activations complete")


def batch_size(task: Task, model: DecoderConfig, data: int) -> int:
    """Contexts a forward pass: the config's number, or as many as fit beside the parameters."""
    c, lm = task.section(Harvesting), task.section(LanguageModel)
    width = jnp.dtype(lm.dtype).itemsize
    if c.batch_size:
        if c.batch_size % data:
            raise ValueError(f"config.source.batch_size={c.batch_size}: must be a multiple of the {data} parts that batches are cut into")
        return c.batch_size
    weights = model_cost.parameter_bytes(model, width) // lm.model_parallel
    memory = device.work_memory(jax.devices()[0].platform, capacity.device_memory(), weights)
    size = model_cost.batch_size(model, c.context_length, width, memory, c.shard_contexts, data)
    if c.shard_contexts % size:
        raise ValueError(
            f"config.source.shard_contexts={c.shard_contexts}: must be a multiple of the {data} parts that batches are cut into"
        )
    return size


def _choose(documents: Documents, tokenizer: Tokenizer, context_length: int, rows: int) -> tuple[Documents, Contexts]:
    """Contexts that hold at least so many rows, or all there are, and the documents they are of: of a large corpus no more is tokenised than needed."""
    size = BYTES_PER_TOKEN * rows
    while True:
        some = documents.sample(size, seed=0)
        every = contexts.make_contexts(some, tokenizer, context_length)
        n_rows = int((every.length_N - 1).sum())
        if n_rows >= rows or len(some) == len(documents):
            break
        size *= 2
    if n_rows < rows:
        print(f"activations: the text holds {n_rows:,} tokens, {rows:,} were asked for")
    return some, harvest.choose_contexts(every, rows, seed=0)


def _harvest(harvester: Harvest, selection: Contexts, writer: StoreWriter, name: str, root: epath.Path) -> epath.Path:
    """Every host its share; the rate, and how near it comes to the device's matrix products, go to wall_times.jsonl. Returns the manifest."""
    total = int((selection.length_N - 1).sum())
    with tqdm.tqdm(total=total, desc=name, unit="tok", unit_scale=True, mininterval=1.0) as bar:
        report = harvester.run(
            selection, writer, bar.update, lambda: interrupts.raise_if_stop_requested("activations: finished shards are kept")
        )
    _wait_for_all(harvester, f"{name} written")
    manifest = epath.Path(writer.finish(harvester.shards(selection)))
    _wait_for_all(harvester, f"{name} listed")
    if report.rows:
        padded = report.rows * selection.tokens_NT.size / total  # every position is computed, padding too
        flops = (
            padded
            * model_cost.flops_per_token(harvester.config, harvester.layer, harvester.site, selection.tokens_NT.shape[1])
            / report.seconds
        )
        share = flops / (device.matmul_rate(harvester.params["embed"]["w"].dtype) * len(jax.local_devices()))
        rate = {"tokens_per_second": report.rows / report.seconds, "flops_per_second": flops, "share_of_matmul_rate": share}
        WallTimes(root / "wall_times.jsonl").write(what=name, seconds=report.seconds, **rate)
        print(f"{name}: {report.rows / report.seconds:,.0f} tokens/s, {share:.0%} of this device's matrix products", flush=True)
    return manifest


def _wait_for_all(harvester: Harvest, what: str) -> None:
    """The first host lists what all have written, and the others read its list."""
    if harvester.processes > 1:
        multihost_utils.sync_global_devices(what)


def _look_at_spelling(documents: Documents, tokenizer: Tokenizer) -> None:
    """Says so where text spells special tokens, as text in a chat's format does: they are not what a chat model would read."""
    spelt = [(d.name, token) for d in documents if (token := tokenizer.spelt(d.text))]
    if spelt:
        print(
            f"activations: {len(spelt):,} of {len(documents):,} documents spell special tokens, first {spelt[0][1]!r} in {spelt[0][0]}: "
            "they are read as plain letters, and never as rows of the special token"
        )


def _look_at_loss(harvester: Harvest, selection: Contexts) -> None:
    """Says so where the model predicts the text worse than chance: the tokenizer of another model, or damaged weights."""
    if not harvester.config.causal:
        return
    if harvester.config.head == "none":
        print("activations: the checkpoint in lm.path holds no head: activations are read, cross-entropy and the stage splice are left out")
        return
    harvest.check_tokens(selection, harvester.config)
    count = -(-CHECKED_CONTEXTS // harvester.placement.data) * harvester.placement.data
    first = Contexts(*(field[:count] for field in selection))
    nll, chance = mean_nll(harvester.params, harvester.config, first, count, harvester.placement), math.log(harvester.config.vocab_size)
    print(f"activations: the model predicts the first {len(first.length_N)} contexts with {nll:.2f} nats a token (chance {chance:.2f})")
    if not nll <= chance + 0.05:
        print("warning: that is worse than chance: is lm.path's tokenizer another model's, or is the model untrained?")


def cost(settings: Settings, size: Size, hardware: Hardware) -> Cost:
    """What the forward passes up to the site take."""
    if size.model is None:
        return Cost(
            "activations",
            size.rows,
            0.0,
            2.0 * 4 * size.rows * size.width,
            size.rows * 12 + size.rows / 32,
            0.0,
            "activations",
            "read once, not copied",
        )
    c, lm, model = settings[Harvesting], settings[LanguageModel], size.model
    item = jnp.dtype(lm.dtype).itemsize
    positions = size.rows * c.context_length / (c.context_length - 1)
    weights = model_cost.parameter_bytes(model, item) // lm.model_parallel
    memory = device.work_memory(hardware.platform, hardware.memory, weights)
    data = max(1, hardware.devices // lm.model_parallel)
    batch = c.batch_size or model_cost.batch_size(model, c.context_length, item, memory, c.shard_contexts, data)
    per_context = model_cost.context_bytes(model, c.context_length, item)
    passes = costs.LAYER_PASSES * (c.layer + 1.0) * per_context * positions / c.context_length
    layers = model_cost.parameter_bytes(model, item) * (c.layer + 1) / model.n_layers * positions / (batch * c.context_length)
    disk = size.rows * (size.width * jnp.dtype(c.dtype).itemsize + 12 + 8 / 256)
    flops = positions * model_cost.flops_per_token(model, c.layer, c.site, c.context_length)
    at_once = weights + batch / data * per_context
    return Cost("activations", size.rows, flops, passes + layers, disk, at_once, "activations", f"{batch} contexts a batch")
