"""Studies that several configs share."""

import ml_collections

from configs import default
from experiments import registry
from experiments.data.corpora import Text
from experiments.data.dictionary_list import External
from synthetic.config import WorldConfig


def study() -> ml_collections.ConfigDict:
    """A study of SAEs trained on a language model's activations, with every field at its default."""
    return default.get_config()


def pretraining() -> ml_collections.ConfigDict:
    """What makes the embedded language model."""
    return registry.default_config(("tokenizer", "pretrain", "model_card"), Text)


def language_model_study(path: str, config_from: str, layer: int) -> ml_collections.ConfigDict:
    """A study of a published model on web text, at the paper's dictionary size and L0."""
    c = default.get_config()
    c.lm.path, c.lm.config_from = path, config_from
    c.lm.dtype = "bfloat16"
    c.source.text = "data/fineweb"  # .jsonl files below it, a document a line in a field "text"
    c.source.layer = layer
    c.source.context_length = 256
    c.source.dtype = "bfloat16"
    c.source.eval_tokens = 1_000_000
    c.source.shard_contexts = 1024
    c.seeds = (21,)
    c.sae.n_features, c.sae.k = 2**14, 64
    c.sae.dead_after_tokens = 10_000_000
    c.train.batch_size = 4096
    c.train.steps_per_dispatch, c.train.checkpoint_every = 8, 4000
    c.train.eval_rows = 131_072
    c.train.snapshots = 11
    c.stability.curve_rows = 65_536
    c.report.contexts = 8
    return c


def cell(c: ml_collections.ConfigDict, arg: str, name: str) -> None:
    """Changes a study by its argument: `layer=3`, `features=4096`, `variant=jumprelu`, or several with commas between; `tiny`: the embedded model and its text, in
    seconds, for tests."""
    if arg == "tiny":
        small = default.get_config("tiny")
        for name in small:
            c[name] = small[name]
        return
    for part in (p for p in arg.split(",") if p):
        field, _, value = part.partition("=")
        if field in ("layer", "features") and value.isdigit():
            if field == "layer":
                c.source.layer = int(value)
            else:
                c.sae.n_features = int(value)
        elif field == "variant" and value:
            c.sae.variant = value
        else:
            raise ValueError(
                f"--config=configs/{name}.py:{arg}: arguments are 'tiny', or layer=…, features=…, variant=…, with commas between"
            )


def factorial(c: ml_collections.ConfigDict) -> None:
    """Turns a study into the seed factorial on its activations: a run an arm; in each all SAEs are alike but for one thing."""
    c.stages = ("activations", "factorial", "arms", "report")
    del c.runs["gaussian"]
    arms = {
        "initialisation": {"init_seed": -1, "data_seed": 0},
        "order": {"init_seed": 0, "data_seed": -1},
        "initialisation and order": {"init_seed": -1, "data_seed": -1},
        "order and documents": {"init_seed": 0, "data_seed": -1, "train": {"halves": True}},
    }
    # The same training in two processes: two SAEs, equal by construction.
    nothing = {"init_seed": 0, "data_seed": 0, "seeds": (2,), "own_process": True}
    arms |= {"nothing/first": nothing, "nothing/second": nothing}
    for name, changes in arms.items():
        c.runs[f"factorial/{name}"] = ml_collections.ConfigDict(changes)


def synthetic_study() -> ml_collections.ConfigDict:
    """A study of the reference world instead of a language model: width 128, 256 free atoms, 384 in a block of rank 24."""
    stages = ("train", *default.MEASURING, "recovery", "plateau", "report")
    c = registry.default_config((*stages, "specifications"), External, WorldConfig)
    c.stages = stages
    c.plateau.stages = ("stability", "recovery")
    _train_on_a_world(c)
    return c


def _train_on_a_world(c: ml_collections.ConfigDict) -> None:
    c.sae.n_features, c.sae.k = 640, 10
    c.sae.aux_units, c.sae.aux_k = "error", 320  # the paper's formula; all dead features at once, which is cheaper than to choose
    c.sae.dead_after_tokens = 200 * 512
    c.train.tokens = 6000 * 512
    c.train.lr = 1e-3
    c.train.clip_norm = 1e9  # none
    c.train.warmup_fraction = c.train.decay_fraction = 0.0  # none


def pool(c: ml_collections.ConfigDict) -> None:
    """Turns a study, of a language model or of a world, into one of pools."""
    stages = ("train", "pool", "finetune", "pooled", "report")
    wanted = registry.default_config(stages)
    for name in ("pool", "atlas"):
        c[name] = wanted[name]
    c.stages = (*(("activations",) if "source" in c else ()), *stages, "longer", "wider")
    c.seeds = (29,)  # three groups of 8, and 5 that judge
    tokens, features, group = c.train.get_ref("tokens"), c.sae.get_ref("n_features"), c.pool.get_ref("group")
    c.pool.held_tokens, c.pool.free_tokens = tokens // 4, tokens  # held: with decoder rows that stay; free: with rows that move
    alone = {"snapshots": 2, "eval_at_tokens": (), "export_sparsify": False}
    tuning = c.pool.get_ref("held_tokens") + c.pool.get_ref("free_tokens")
    # What a pool is compared with: SAEs trained on as many tokens as all those together that a pool takes, and those that it is trained on itself, five of them, since they are compared with each other;
    c.runs.longer = ml_collections.ConfigDict({"new_seeds": 5, "train": {**alone, "tokens": tokens * group + tuning}})
    # and SAEs with as many features as all those together that a pool takes.
    c.runs.wider = ml_collections.ConfigDict({"new_seeds": 2, "sae": {"n_features": features * group}, "train": alone})


def synthetic_grid() -> ml_collections.ConfigDict:
    """A study of many small worlds: half the reference world's size in every respect, so a cell takes a fraction of its time."""
    c = registry.default_config(("grid", "verdicts", "report"), External, WorldConfig)
    _train_on_a_world(c)
    world = c.synthetic
    world.width, world.free_atoms, world.free_active = 64, 128, 3
    world.block_rank, world.block_atoms, world.block_active = 12, 192, 2
    c.sae.n_features, c.sae.k = 320, 5
    c.sae.aux_units, c.sae.aux_k = "variance", 192  # dead latents are revived; up to so many, all at once, which is cheaper than to choose
    c.sae.dead_after_tokens = 200 * 256
    c.train.batch_size, c.train.tokens, c.train.eval_rows, c.train.snapshots = 256, 4000 * 256, 8192, 2
    c.train.warmup_fraction, c.train.decay_fraction = 0.05, 0.2  # final losses are compared: without the noise of a full step
    del c["cells"]  # none yet
    c.cells = ml_collections.ConfigDict()
    return c


def tiny_grid(c: ml_collections.ConfigDict) -> None:
    """Makes a grid small enough for tests."""
    world = c.synthetic
    world.width, world.free_atoms, world.free_active, world.block_rank, world.block_atoms, world.block_active = 24, 16, 2, 3, 12, 2
    c.seeds = (3,)
    c.sae.n_features, c.sae.k, c.sae.aux_k, c.sae.dead_after_tokens = 28, 4, 8, 5000
    c.train.tokens, c.train.batch_size, c.train.steps_per_dispatch, c.train.checkpoint_every = 30_000, 64, 8, 80
    c.train.eval_rows = 1024
