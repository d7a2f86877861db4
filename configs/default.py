"""What configs start from: sections with every field at its default, for the stages of each kind of study.

`python -m launch.main --config=configs/quickstart.py --describe` prints all fields of a config with value, default, bounds and meaning; docs/config.md has them all.
"""

import ml_collections

from experiments import registry
from experiments.data.dictionary_list import External

# Stages that measure SAEs, whatever they come from.
MEASURING = ("stability", "sensitivity", "subspace", "atlas", "diagnosis", "transfer", "function", "statistics", "explanations")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    """A study of SAEs trained on a language model's activations."""
    if arg not in ("", "tiny"):
        raise ValueError(f"--config=configs/default.py:{arg}: the only argument is 'tiny'")
    c = of_stages("activations", "train", *MEASURING, "splice", "plateau", "specifications", "report")
    c.stages = (*(stage for stage in c.stages if stage not in ("plateau", "specifications")), "gaussian")
    c.runs.gaussian = gaussian = (
        ml_collections.ConfigDict()
    )  # SAEs trained on Gaussian activations of the same mean and covariance: a null model
    gaussian.seeds = (4,)
    gaussian.train = ml_collections.ConfigDict({"data": "gaussian", "halves": False, "snapshots": 2, "export_sparsify": False})
    if arg == "tiny":
        tiny(c)
    return c


def of_stages(*stages: str) -> ml_collections.ConfigDict:
    """The sections that these stages want, with the list of SAEs from elsewhere that may take the place of those that a study trains."""
    return registry.default_config(stages, External)


def tiny(c: ml_collections.ConfigDict) -> None:
    """Seconds instead of minutes, for tests; the figures mean nothing."""
    c.source.tokens, c.source.eval_tokens, c.source.context_length = 12_000, 4000, 64
    c.seeds = (3,)
    c.stages = tuple(stage for stage in c.stages if stage != "gaussian")
    c.sae.n_features, c.sae.k, c.sae.dead_after_tokens = 64, 4, 5000
    c.train.tokens, c.train.batch_size, c.train.steps_per_dispatch, c.train.checkpoint_every = 60_000, 128, 8, 80
    c.train.snapshots = 4
    c.runs.gaussian.seeds = (2,)
    tiny_measuring(c)
    c.splice.contexts, c.splice.positions, c.splice.singles, c.splice.draws = 8, 40, 3, 1


def tiny_measuring(c: ml_collections.ConfigDict) -> None:
    """The same of the stages that measure, those that a config has."""
    small = {
        "stability": {"null_draws": 2, "curve_rows": 1000, "rare_firings": 5, "span_rank": 4},
        "sensitivity": {"rows": 1024},
        "subspace": {"min_features": 3, "subsamples": 3, "ranks": (1, 2, 3), "headline_rank": 2},
        "function": {"refill_rows": 512, "bins": 3, "draws": 3},
        "statistics": {"shuffled_tokens": 1000},
        "explanations": {"pairs": 3, "contexts": 4, "candidates": 4},
    }
    for section, fields in small.items():
        if section in c:
            c[section].update(fields)
