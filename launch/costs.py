"""Operations, bytes and seconds of every stage, from a config alone."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from etils import epath

from activations import adopt
from activations.language_model import checkpoint, cost
from activations.language_model.config import DecoderConfig
from launch import device, pool_curves, pools
from launch.device import Speed
from launch.stages import sensitivity
from saes import capacity
from stability import atlas

GIB = 2**30
# Share of the rate of large matrix products that a stage reaches in its own products. On CPU measured on two EPYC cores with the
# quickstart (BUILD.md has the comparison); on an accelerator assumed, none has been measured.
SHARES = {"cpu": {"activations": 0.85, "train": 0.6, "match": 0.8}, "accelerator": {"activations": 0.4, "train": 0.4, "match": 0.6}}
STARTING_SECONDS = 10  # of a stage: reading, compiling; on the quickstart between 5 and 20
PARAMETER_PASSES = 14  # of a parameter through memory in a step: gradients, projection, norm, Adam's moments, the new value
KEPT_CHECKPOINTS = 2  # at a time, of parameters and Adam's moments
CODE_PASSES = 10  # of an array (batch, features) in a step
MEASURING_PASSES = 75  # of such an array where SAEs are measured: codes, their choice, moments, top rows
CODING_PASSES = 20  # where they are only made and summed
LAYER_PASSES = 7  # of what a layer computes
LOGIT_PASSES = 6  # over the logits of a token: their exponentials, their divergence from the model's own
SPLICED_SETS = 31  # sets of features that are removed or kept in every SAE, beside draws and single features
REFITTED = 2.1  # Σ of the cubes of the shares of features that refits keep: all, all but a label, a label alone
REFILLED_SETS = 30  # sets that are removed before the selection
HOST_RATE = 2e10  # multiplications and additions a second of one BLAS thread
COUNTING_SECONDS, ENTRY_SECONDS = 1e-9, 1.2e-7  # on the host, an activation looked at, one that is above 0 counted; on two EPYC cores
RULE_SECONDS = 4e-7  # on the host, a firing held against the rules on its token, and so for the null; on two EPYC cores, at 300 to 2000 firings a feature
NON_STABLE, UNSTABLE = 0.8, 0.4  # of the features, as in the quickstart
DECOMPOSING_SECONDS = 6e-10  # of a symmetric matrix, by the cube of its width; on two EPYC cores at width 128
MATCHING_SECONDS = 8.6 / 2**28  # on the host, a pair matched one to one, by the square of features (benchmarks/match.py)
DRAWING_SECONDS = 20e-9  # on a CPU, a Gaussian number drawn and given its covariance, at width 768


class Cost(NamedTuple):
    """Of one stage.

    Attributes:
      stage: its name.
      tokens: that it handles, counted once for each SAE.
      flops: multiplications and additions in matrix products.
      moved: bytes through memory.
      disk: bytes that it leaves.
      memory: peak bytes on a device.
      host: seconds of work that the host does alone.
      kind: of `SHARES`.
      note: what people should know.
    """

    stage: str
    tokens: float
    flops: float
    moved: float
    disk: float
    memory: float
    kind: str
    note: str = ""
    host: float = 0.0


class Hardware(NamedTuple):
    """What the study would run on."""

    name: str
    devices: int
    platform: str
    memory: int
    speed: Speed
    measured: bool


def of_stages(config: Any, of: Hardware) -> list[Cost]:
    """Of the config's stages that cost something."""
    if not hasattr(config, "lm"):
        raise ValueError("--plan: counts studies of activations (configs with config.lm); this config is of another kind")
    c = config.source
    model = None if c.activations else language_model(config)
    if model is None:
        rows, width = _user_rows(config)
    else:
        rows, width = float(c.tokens + c.eval_tokens), model.sites()[c.site]
    found = []
    if "activations" in config.stages:
        found.append(_activations(config, model, rows, width, of))
    arms = len(config.arms) if hasattr(config, "arms") else 1
    if {"train", "factorial"} & set(config.stages):
        found.append(_training(config, width, of, "train" if arms == 1 else "factorial", len(config.seed_list) * arms))
    if "gaussian" in config.stages:
        drawn = DRAWING_SECONDS * width * config.train.steps * config.train.batch_size if of.platform == "cpu" else 0.0
        found.append(_training(config, width, of, "gaussian", config.gaussian_seeds)._replace(host=drawn))
    if hasattr(config, "pool"):
        found += _pools(config, width, of)
    if "stability" in config.stages:
        found.append(_stability(config, width, of))
    if "sensitivity" in config.stages:
        found.append(_sensitivity(config, width, of))
    if "atlas" in config.stages:
        found.append(_atlas(config, width, of))
    if "diagnosis" in config.stages:
        found.append(_diagnosis(config, width, of))
    if "function" in config.stages:
        found.append(_function(config, width, of))
    if "statistics" in config.stages:
        found.append(_statistics(config, width, rows - c.tokens if model is None else float(c.eval_tokens), model))
    if "splice" in config.stages and model is not None and model.causal:
        found.append(_splice(config, width, model))
    return found


def language_model(config: Any) -> DecoderConfig:
    """From the model's own folder, or `lm.config_from`, or the hub, of which nothing but `config.json` is fetched."""
    lm = config.lm
    elsewhere = lm.config_from and not epath.Path(lm.path).exists()
    folder = epath.Path(lm.config_from) if elsewhere else checkpoint.locate(lm.path, lm.revision, only_config=True)
    model = checkpoint.load_config(folder)
    model.check_place(config.source.layer, config.source.site)
    return model


def _activations(config: Any, model: DecoderConfig | None, rows: float, width: int, of: Hardware) -> Cost:
    c = config.source
    if model is None:
        return Cost("activations", rows, 0.0, 2.0 * 4 * rows * width, rows * 12 + rows / 32, 0.0, "activations", "read once, not copied")
    item = jnp.dtype(config.lm.dtype).itemsize
    positions = rows * c.context_length / (c.context_length - 1)
    weights = cost.parameter_bytes(model, item) // config.lm.model_parallel
    memory = device.work_memory(of.platform, of.memory, weights)
    data = max(1, of.devices // config.lm.model_parallel)
    batch = c.batch_size or cost.batch_size(model, c.context_length, item, memory, c.shard_contexts, data)
    per_context = cost.context_bytes(model, c.context_length, item)
    passes = LAYER_PASSES * (c.layer + 1.0) * per_context * positions / c.context_length
    layers = cost.parameter_bytes(model, item) * (c.layer + 1) / model.n_layers * positions / (batch * c.context_length)
    disk = rows * (width * jnp.dtype(c.dtype).itemsize + 12 + 8 / 256)
    flops = positions * cost.flops_per_token(model, c.layer, c.site, c.context_length)
    return Cost(
        "activations", rows, flops, passes + layers, disk, weights + batch / data * per_context, "activations", f"{batch} contexts a batch"
    )


def _training(config: Any, width: int, of: Hardware, name: str, count: int) -> Cost:
    s, t = config.sae, config.train
    cells = math.prod(max(1, len(getattr(config.sweep, name))) for name in ("lr", "k", "sparsity"))
    tokens = float(t.steps * t.batch_size) * count * cells
    dense = 2.0 * width * s.n_features
    gathers = s.variant == "topk" and of.platform == "cpu"  # codes as places: decoder and gradients touch K rows
    flops = tokens * (dense + 8.0 * s.k * width if gathers else 5 * dense)
    parameters = 2 * s.n_features * width
    moved = tokens * (4.0 * PARAMETER_PASSES * parameters / t.batch_size + 4.0 * CODE_PASSES * s.n_features)
    moved += tokens * (4.0 * 6 * s.k * width if gathers else 0.0)
    own = config.data_seed < 0 or t.halves
    fits = capacity.choose(count, s, t, width, of.devices, of.platform, of.memory, own)
    held, work = capacity.bytes_per_lane(s, t, width, own)
    at_once = math.ceil(min(count, fits.at_once) / of.devices)
    memory = at_once * held + min(at_once, fits.width) * work + (0 if own else capacity.bytes_of_batches(t, width))
    rounds = math.ceil(count / fits.at_once)
    disk = 4.0 * count * (parameters + 2 * s.n_features) * (1 + len(t.snapshot_steps()))  # exported, and along training
    disk += KEPT_CHECKPOINTS * 4 * 3.0 * parameters * min(count, fits.at_once)  # of the round that runs
    return Cost(
        name, tokens, flops, moved, disk, memory, "train", f"{rounds} round{'s' * (rounds > 1)} of up to {min(count, fits.at_once)} SAEs"
    )


def _stability(config: Any, width: int, of: Hardware) -> Cost:
    """Every pair once; null models and dictionaries along training among the first SAEs; codes of held-out tokens."""
    c, n = config.stability, len(config.seed_list)
    pairs = lambda k: k * (k - 1) / 2
    some, along = min(n, c.null_seeds), min(n, c.curve_seeds)
    products = pairs(n) + (c.null_draws + 3) * pairs(some) + len(config.train.snapshot_steps()) * pairs(along)
    encoded = n * config.source.eval_tokens + len(config.train.snapshot_steps()) * along * c.curve_rows
    return _comparisons(config, "stability", products, width, encoded)


def _sensitivity(config: Any, width: int, of: Hardware) -> Cost:
    """Decoder, encoder, either sign, and their rotations, over all pairs; one to one, and of rotated ones, over the chosen pairs."""
    n = len(config.seed_list)
    matched = 2 * len(sensitivity.chosen_pairs(n, config.sensitivity.pairs))
    found = _comparisons(config, "sensitivity", 6 * n * (n - 1) / 2, width, n * config.sensitivity.rows)
    return found._replace(
        host=matched * MATCHING_SECONDS * config.sae.n_features**2, note=f"{found.note}, {matched} matched one to one on the host"
    )


def _atlas(config: Any, width: int, of: Hardware) -> Cost:
    """Searches from `starts` features until `patience` batches find nothing, in two halves of the seeds, for the features and for the null draws."""
    c = config.atlas
    n = min(len(config.seed_list), c.seeds)
    rows = NON_STABLE * config.sae.n_features * n / 2
    searches = 2 * (1 + c.null_draws) * c.starts * (c.patience + 1)
    width = min(width, c.directions)
    flops = searches * atlas.STEPS * 4.0 * rows * width**2
    moved = searches * atlas.STEPS * 4.0 * 4 * rows * width
    decomposing = searches * atlas.STEPS * DECOMPOSING_SECONDS * float(width) ** 3
    memory = 4.0 * rows * width * 4
    return Cost("atlas", n * c.rows, flops, moved, n * config.sae.n_features * 40.0, memory, "match", f"{searches:,} searches", decomposing)


def _diagnosis(config: Any, width: int, of: Hardware) -> Cost:
    """Three products for every ordered pair, of the unstable features of one SAE with all of the other; as many of turned dictionaries."""
    n = min(len(config.seed_list), config.atlas.seeds)
    return _comparisons(config, "diagnosis", 2 * 3 * n * (n - 1) * UNSTABLE, width, 0)


def _function(config: Any, width: int, of: Hardware) -> Cost:
    """Codes, and products of codes with codes; the effects of all sets follow from these, on the host. In topk some sets are removed before the selection too."""
    c, f = config.function, float(config.sae.n_features)
    n, rows = min(len(config.seed_list), c.seeds), float(min(config.source.eval_tokens, c.rows))
    refilled = REFILLED_SETS * c.refill_rows if config.sae.variant == "topk" else 0.0
    encoded = n * (rows + refilled)
    flops = encoded * 4 * f * width + n * rows * 2 * f * (f + width)
    sets = n * (n + 1) * 2 * f * f * (2 * c.draws + 20.0) / HOST_RATE
    refits = n * 2 * REFITTED * f**3 / 3 / HOST_RATE
    note = f"{62 * f * f / GIB:,.1f} GiB on the host"
    return Cost(
        "function", n * rows, flops, 4.0 * encoded * CODING_PASSES * f, n * f * 40, 4.0 * (f * f + 16_384 * f), "match", note, sets + refits
    )


def _statistics(config: Any, width: int, rows: float, model: DecoderConfig | None) -> Cost:
    """Codes of all held-out tokens, counted on the host; with a language model the same for contexts in random order."""
    f, n = float(config.sae.n_features), len(config.seed_list)
    shuffled = min(float(config.statistics.shuffled_tokens), rows) if model is not None else 0.0
    vocabulary = model.vocab_size if model is not None else 50_000
    passes = max(1.0, 12 * f * vocabulary / config.statistics.table_bytes)
    encoded = n * (rows * passes + 2 * shuffled) + n * rows * ("explanations" in config.stages)  # which looks where features are silent
    flops = encoded * 2 * f * width
    if model is not None:
        flops += shuffled * cost.flops_per_token(model, config.source.layer, config.source.site, config.source.context_length)
    counting = n * rows * (COUNTING_SECONDS * f + (ENTRY_SECONDS + RULE_SECONDS) * config.sae.k)
    moved = 4.0 * encoded * CODING_PASSES * f
    return Cost(
        "statistics",
        n * rows,
        flops,
        moved,
        n * f * 500,
        4.0 * 1024 * f,
        "match",
        f"{math.ceil(passes)} passes over held-out tokens",
        counting,
    )


def _splice(config: Any, width: int, model: DecoderConfig) -> Cost:
    """For every set of features the layers above the site and the predictions, of every SAE."""
    c, s = config.splice, config.source
    n = min(len(config.seed_list), c.seeds)
    replayed = float(n * c.tokens * (SPLICED_SETS + 2 * c.draws + c.singles)) * s.context_length / (s.context_length - 1)
    last = model.n_layers - 1
    whole = cost.flops_per_token(model, last, "resid_post", s.context_length)
    above = whole - cost.flops_per_token(model, s.layer, s.site, s.context_length)
    flops = replayed * (above + 2.0 * model.width * model.vocab_size + 2.0 * config.sae.n_features * width)
    moved = replayed * 4.0 * (LOGIT_PASSES * model.vocab_size + LAYER_PASSES * (last - s.layer) * 6 * model.width)
    return Cost("splice", replayed, flops, moved, 1e5, 4.0 * 2**26, "activations", f"{replayed:,.0f} tokens replayed above layer {s.layer}")


def _pools(config: Any, width: int, of: Hardware) -> list[Cost]:
    """Longer and wider SAEs, pools made of the two groups and again without each SAE, some of them trained on, all judged."""
    c, train = config.pool, config.train
    repeated = 2 * c.group * c.repeat * (", " in c.headline)
    points = 2 * len(pool_curves.trained_on(config))
    made = 2 * len(pools.KINDS) + repeated + points
    tuned = 2 * (len(c.tuned) + 1) + repeated + points  # a single SAE of each group, too
    remade = 2 * len(pools.KINDS) * (c.group + 1)
    curves = 2 * (c.group + 1) * 2 * (len(c.sizes) + len(c.thetas) + 2)
    tokens = sum(c.tuning_tokens(train.tokens))
    longer = dataclasses.replace(config, train=dataclasses.replace(train, tokens=train.tokens * c.group + tokens))
    wider = dataclasses.replace(config, sae=dataclasses.replace(config.sae, n_features=config.sae.n_features * c.group))
    tuning = dataclasses.replace(config, train=dataclasses.replace(train, tokens=tokens))
    n = len(config.seed_list)
    pairs = n * (n - 1) / 2
    every = {
        "longer": lambda: _training(longer, width, of, "longer", 2),
        "wider": lambda: _training(wider, width, of, "wider", 2),
        "pool": lambda: _comparisons(config, "pool", pairs + made * c.group, width, n * c.rows + made * c.rows / 8),
        "finetune": lambda: _training(tuning, width, of, "finetune", tuned),
        "pooled": lambda: _comparisons(
            config,
            "pooled",
            pairs + (remade + curves) * (c.group + n - 2 * c.group),
            width,
            n * c.rows + (remade + curves + tuned) * c.eval_rows,
        ),
    }
    return [cost_of() for stage, cost_of in every.items() if stage in config.stages]


def _comparisons(config: Any, stage: str, products: float, width: int, encoded: float) -> Cost:
    f = float(config.sae.n_features)
    n = len(config.seed_list)
    flops = products * 2 * f * f * width + encoded * 4 * f * width
    moved = 4.0 * (products * 3 * f * f + encoded * MEASURING_PASSES * f)
    disk = n * f * (n * 12 + 400)
    memory = 4.0 * n * f * width + 3 * 4.0 * config.stability.block_size * f
    return Cost(stage, encoded, flops, moved, disk, memory, "match", f"{products:,.0f} comparisons of two SAEs")


def _user_rows(config: Any) -> tuple[float, int]:
    arrays = adopt.find(config.source.activations, "source.activations")
    return float(sum(a.rows for a in arrays)), arrays[0].width
