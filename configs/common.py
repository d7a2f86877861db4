"""What configs start from."""

import ml_collections

from configs import default


def study() -> ml_collections.ConfigDict:
    """A study with every field at its default (`configs/default.py`)."""
    return default.get_config()


def source() -> ml_collections.ConfigDict:
    """The section on text and activations alone."""
    return default.get_config().source


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
    """Changes a study by its argument: `layer=3`, `features=4096`, `variant=jumprelu`, or several with commas between."""
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
            raise ValueError(f"--config=configs/{name}.py:{arg}: arguments are layer=…, features=…, variant=…, with commas between")


def comparison() -> ml_collections.ConfigDict:
    """Measures SAEs that are there already, with the measuring fields of a study."""
    study = default.get_config()
    c = ml_collections.ConfigDict()
    c.stages = ("collect", *default.MEASURING, "report")
    c.saes = ""  # folders or hub ids (owner/name/folder@revision), with commas between them
    c.ignore_names = False  # True: compare also what metadata call different models or hooks
    c.source = ml_collections.ConfigDict()
    c.source.activations = ""  # a store of activations (`runs/quickstart/activations/eval`), or arrays as in a study; "": none
    c.source.eval_tokens = 150_000  # rows of arrays that are taken, the first; a store is taken whole
    for section in (*default.MEASURING, "report", "claims"):
        c[section] = study[section]
    return c


def factorial(c: ml_collections.ConfigDict) -> None:
    """Turns a study into the seed factorial on its activations."""
    c.stages = ("activations", "factorial", "arms", "report")
    c.arms = ("initialisation", "order", "initialisation and order", "order and documents", "nothing")  # what differs in each


def synthetic_study() -> ml_collections.ConfigDict:
    """A study of the reference world instead of a language model: width 128, 256 free atoms, 384 in a block of rank 24."""
    c = default.get_config()
    del c.source
    del c.lm
    del c.gaussian_seeds
    del c.splice
    c.stages = ("train", *default.MEASURING, "recovery", "report")
    c.synthetic = world = ml_collections.ConfigDict()
    world.width = 128  # of the activations
    world.free_atoms = 256  # unit atoms in general position
    world.free_active = 6  # of them in every token
    world.blocks = 1  # planted subspaces, orthogonal to each other
    world.block_rank = 24  # dimensions of each; 0: the whole space
    world.block_atoms = 384  # unit atoms in each
    world.block_active = 4  # of them in every token
    world.block_presence = 1.0  # share of tokens that hold them; in the others free atoms take their place
    world.block_magnitude = 0.7  # factor on their codes
    world.orthogonal = True  # free atoms are orthogonal to the blocks; False: anywhere
    world.zipf = 0.0  # exponent of the firing law inside a group; 0: uniform
    world.code_law = "uniform"  # of codes; or "half-normal"
    world.code_low, world.code_high = 0.5, 1.5  # uniform codes lie between them
    world.code_correlation = 0.0  # share of a code that all atoms of a token have in common
    world.coactivation = 0.0  # probability that an active atom's neighbour is active with it
    world.noise = 0.01  # standard deviation in every dimension
    world.tokens = 0  # to train on, again and again; 0: always new ones
    world.seed = 0  # of the atoms
    c.recovery = recovery = ml_collections.ConfigDict()
    recovery.found = 0.9  # cosine from which an atom counts as found
    recovery.theta = 0.7  # cosine from which latents of two seeds count as the same
    recovery.tie = 0.005  # explained variances closer than this are equal (verdicts)
    recovery.unstable_below = 0.5  # latents with p̂ at theta below this are the unstable ones
    c.sae.n_features, c.sae.k = 640, 10
    c.sae.aux_units, c.sae.aux_k = "error", 320  # the paper's formula; all dead features at once, which is cheaper than to choose
    c.sae.dead_after_tokens = 200 * 512
    c.train.tokens = 6000 * 512
    c.train.lr = 1e-3
    c.train.clip_norm = 1e9  # none
    c.train.warmup_fraction = c.train.decay_fraction = 0.0  # none
    return c


def pool(c: ml_collections.ConfigDict) -> None:
    """Turns a study, of a language model or of a world, into one of pools."""
    first = ("activations",) if "source" in c else ()
    c.stages = (*first, "train", "longer", "wider", "pool", "finetune", "pooled", "report")
    c.seeds = (21,)
    c.pool = pool = ml_collections.ConfigDict()
    pool.group = 8  # SAEs in each of two disjoint groups, the first so many seeds and the next; all others judge
    pool.theta = 0.7  # cosine from which two features are one, among the pooled and in the pool
    pool.sizes = (2, 4, 8)  # numbers of pooled SAEs at which curves are taken; divisors of group
    pool.thetas = (0.5, 0.6, 0.7, 0.8, 0.9)  # at which they are taken too
    pool.features = ()  # likewise, numbers of features; (): a quarter, a half, the same and twice those of one SAE
    pool.rows = 32_768  # training tokens on which features are ranked and pools calibrated
    pool.eval_rows = 32_768  # held-out tokens on which all are judged
    pool.span_rank = 16  # dimensions of the span that stands for unstable features in one kind of pool, where no local subspaces are found (section atlas)
    pool.tuned = ("pool", "pool of means", "random pool")  # kinds that are trained on, beside a single SAE of each group
    pool.held_tokens = 0  # with decoder rows held; 0: a quarter of train.tokens
    pool.free_tokens = 0  # then with decoder rows free; 0: as many as train.tokens
    pool.tune_rate = 1.0  # of the peak learning rate
    pool.decoder_rate = 0.03  # of the learning rate, for decoder rows that are free: slow, so that they stay what other seeds find too
    pool.headline = "pool of means, tuned"  # what claim C6 is decided on
    pool.repeat = True  # make and tune it again without each SAE, which its interval rests on
    pool.curves = True  # train pools on at the points of its curves, too, those that are not larger than one SAE
    pool.predictions = 4096  # held-out rows, about, on which predictions with reconstructions spliced in are compared; 0: none


def synthetic_grid() -> ml_collections.ConfigDict:
    """A study of many small worlds: half the reference world's size in every respect, so a cell takes a fraction of its time."""
    c = synthetic_study()
    c.stages = ("grid", "verdicts", "report")
    world = c.synthetic
    world.width, world.free_atoms, world.free_active = 64, 128, 3
    world.block_rank, world.block_atoms, world.block_active = 12, 192, 2
    c.sae.n_features, c.sae.k = 320, 5
    c.sae.aux_units, c.sae.aux_k = "variance", 192  # dead latents are revived; up to so many, all at once, which is cheaper than to choose
    c.sae.dead_after_tokens = 200 * 256
    c.train.batch_size, c.train.tokens, c.train.eval_rows, c.train.snapshots = 256, 4000 * 256, 8192, 2
    c.train.warmup_fraction, c.train.decay_fraction = 0.05, 0.2  # final losses are compared: without the noise of a full step
    c.cells = ml_collections.ConfigDict()  # name: what it changes in synthetic, sae and train; at: its coordinates in a phase diagram
    c.starts = ("random", "truth", "held truth")  # truth: atoms as decoder rows, the encoder fitted to their codes; held: they stay
    c.tuned_on = ()  # cells on which the rules of atlas and diagnosis were chosen; they are not scored
    c.causes = causes = (
        ml_collections.ConfigDict()
    )  # from where on a latent has a planted cause of its instability, and from where on that is clear
    causes.inside, causes.clear_inside = 0.5, 0.9  # basis ambiguity: share of its squared norm inside a block
    causes.combined, causes.clear_combined = 0.9, 0.95  # split or absorbed: share that up to three free atoms hold,
    causes.single, causes.clear_single = 0.9, 0.8  # and one of them does not
    causes.clear_nothing = 0.7  # unexplained: nothing of all that holds so much of it
    c.reference = ""  # the cell shown with fewer seeds, and from all starts; "": none
    c.contrasts = ()  # (what differs, cell, cell): figures of the first less those of the second
    return c


def tiny_grid(c: ml_collections.ConfigDict) -> None:
    """Makes a grid small enough for tests."""
    world = c.synthetic
    world.width, world.free_atoms, world.free_active, world.block_rank, world.block_atoms, world.block_active = 24, 16, 2, 3, 12, 2
    c.seeds = (3,)
    c.sae.n_features, c.sae.k, c.sae.aux_k, c.sae.dead_after_tokens = 28, 4, 8, 5000
    c.train.tokens, c.train.batch_size, c.train.steps_per_dispatch, c.train.checkpoint_every = 30_000, 64, 8, 80
    c.train.eval_rows = 1024
