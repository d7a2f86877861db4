"""The stages of a study, in the order in which data flows; `STAGES` is all that the runner knows of them.

Stage modules are imported when they run: `--stages=report` does not pay for what `activations` needs.
"""

import dataclasses
import importlib
from typing import Any

from etils import epath

MEASURING = (
    "stability",
    "sensitivity",
    "subspace",
    "atlas",
    "diagnosis",
    "transfer",
    "function",
    "statistics",
    "explanations",
)  # whatever the SAEs come from


@dataclasses.dataclass(frozen=True)
class Stage:
    """What the runner needs to know of a stage.

    Attributes:
      name: also the stage's folder in the workdir and its module, `launch.stages.<name>`.
      sections: fields of the config that its results depend on (whole sections or `section.field`).
      after: stages whose outputs it reads, if they are among the config's stages.
      training: multiplies at the device's default precision; the others, which measure, at the highest.
      guarded: dear enough that a changed config is refused rather than run again (unless `--overwrite`).
    """

    name: str
    sections: tuple[str, ...]
    after: tuple[str, ...] = ()
    guarded: bool = False
    training: bool = False

    def run(self, config: Any, workdir: epath.Path) -> list[epath.Path]:
        """Does the work below `workdir / name` and returns the files that are its results."""
        return self._module().run(config, workdir)

    def inputs(self, config: Any) -> dict[str, str]:
        """Digests of what the stage reads from outside the workdir; raises for settings that do not fit it."""
        module = self._module()
        return module.inputs(config) if hasattr(module, "inputs") else {}

    def _module(self) -> Any:
        return importlib.import_module(f"launch.stages.{self.name}")


TRAINED = ("synthetic", "cells", "starts", "seeds", "init_seed", "data_seed", "sae", "train")  # of a grid
ROWS = ("synthetic", "train.eval_rows", "saes", "source", "lm")  # what SAEs from elsewhere and the rows that they are measured on depend on
POOLING = tuple(f"stability.{field}" for field in ("theta", "epsilon", "rare_firings", "block_size"))  # what pools are made by

_ALL = (
    # The study.
    Stage("activations", ("source", "lm.path", "lm.revision", "lm.dtype", "lm.model_parallel"), guarded=True),
    Stage(
        "train",
        ("synthetic", "seeds", "init_seed", "data_seed", "sweep", "sae", "train"),
        after=("activations",),
        guarded=True,
        training=True,
    ),
    Stage(
        "gaussian",
        ("gaussian_seeds", "init_seed", "data_seed", "sae", "train"),
        after=("activations",),
        guarded=True,
        training=True,
    ),
    *(
        Stage(
            name,
            ("synthetic", "seeds", "init_seed", "data_seed", "sae", "train", "pool.group", *more),
            after=("activations",),
            guarded=True,
            training=True,
        )
        for name, more in (("longer", ("pool.held_tokens", "pool.free_tokens")), ("wider", ()))
    ),
    Stage(
        "pool",
        (
            "pool.group",
            "pool.theta",
            "pool.rows",
            "pool.span_rank",
            "pool.headline",
            "pool.repeat",
            "pool.curves",
            "pool.sizes",
            "pool.thetas",
            "pool.features",
            *POOLING,
            "stability.dictionaries",
            "atlas",
            "sae",
            "train",
            "data_seed",
            *ROWS,
        ),
        after=("activations", "train"),
    ),
    Stage(
        "finetune",
        # What it shares with `pool`, so that a change is refused before those are made anew.
        (
            *(f"pool.{field}" for field in ("group", "theta", "headline", "repeat", "curves", "sizes", "thetas", "features")),
            "pool.rows",
            *POOLING,
            *(f"pool.{field}" for field in ("tuned", "held_tokens", "free_tokens", "tune_rate", "decoder_rate")),
            "data_seed",
            "sae",
            "train",
        ),
        after=("activations", "train", "pool"),
        guarded=True,
        training=True,
    ),
    Stage(
        "pooled",
        ("pool", "stability", "atlas", "recovery", "seeds", "sae", "train", "data_seed", *ROWS),
        after=("activations", "train", "longer", "wider", "pool", "finetune"),
    ),
    Stage("factorial", ("arms", "seeds", "sae", "train"), after=("activations",), guarded=True, training=True),
    Stage(
        "arms",
        ("stability", "sensitivity.neighbours", "transfer.features", "arms", "seeds", "sae", "train", *ROWS),
        after=("activations", "factorial"),
    ),
    Stage("collect", ("saes", "ignore_names", "newcomers", "source.activations", "source.eval_tokens")),
    Stage("stability", ("stability", *ROWS), after=("activations", "train", "gaussian", "collect")),
    Stage("sensitivity", ("sensitivity", "stability", *ROWS), after=("activations", "train", "collect", "stability")),
    Stage("subspace", ("subspace", "stability", *ROWS), after=("activations", "train", "collect", "stability")),
    Stage(
        "atlas",
        ("atlas", "stability", "gaussian_seeds", "data_seed", "train", *ROWS),
        after=("activations", "train", "gaussian", "collect", "stability"),
    ),
    Stage(
        "diagnosis",
        ("diagnosis", "atlas", "stability", *ROWS),
        after=("activations", "train", "collect", "stability", "atlas"),
    ),
    Stage("transfer", ("transfer", "stability"), after=("train", "collect", "stability", "sensitivity")),
    Stage("function", ("function", "stability", *ROWS), after=("activations", "train", "collect", "stability")),
    Stage("splice", ("splice", "function", "stability", *ROWS), after=("activations", "train", "stability", "function")),
    Stage(
        "statistics",
        ("statistics", "function.seeds", "function.draws", "stability", *ROWS),
        after=("activations", "train", "collect", "stability"),
    ),
    Stage(
        "explanations",
        ("explanations", "function.seeds", "stability", *ROWS),
        after=("activations", "train", "collect", "stability", "statistics"),
    ),
    Stage(
        "predict",
        ("newcomers", "saes", "ignore_names", "stability", "sensitivity.neighbours"),
        after=("collect", "stability", "sensitivity"),
    ),
    Stage("recovery", ("recovery", "stability", *ROWS), after=("train", "stability")),
    Stage("grid", TRAINED, guarded=True, training=True),
    Stage("verdicts", ("recovery", "contrasts", "reference", "stability", *TRAINED), after=("grid",)),
    Stage("causes", ("causes", "tuned_on", "atlas", "diagnosis", "stability", *TRAINED), after=("grid",)),
    Stage(
        "report",
        ("report", "claims", "stability", "recovery", "seeds", "starts", "sae", "pool", *ROWS),
        after=(
            "activations",
            "train",
            "collect",
            *MEASURING,
            "splice",
            "recovery",
            "verdicts",
            "arms",
            "pooled",
        ),
    ),
    # The embedded language model.
    Stage("tokenizer", ("source.text", "source.text_field", "source.root", "pretrain.vocab_size"), guarded=True),
    Stage("pretrain", ("source.text", "source.text_field", "source.root", "pretrain"), after=("tokenizer",), guarded=True, training=True),
    Stage("model_card", ("model_card", "pretrain", "source.text", "source.text_field", "source.root"), after=("tokenizer", "pretrain")),
)

STAGES = {stage.name: stage for stage in _ALL}
