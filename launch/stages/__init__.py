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
      sections: fields of the config that its results depend on (whole sections or `section.field`), all that it reads.
      after: stages whose outputs it reads, if they are among the config's stages.
      training: multiplies at the device's default precision; the others, which measure, at the highest.
      guarded: dear enough that a changed config is refused rather than run again (unless `--overwrite`).
      later: those of `sections` that were declared when there were records without them already; a guarded stage with such a record
        takes them to be what they are now, and says so.
    """

    name: str
    sections: tuple[str, ...]
    after: tuple[str, ...] = ()
    guarded: bool = False
    training: bool = False
    later: tuple[str, ...] = ()

    def run(self, config: Any, workdir: epath.Path) -> list[epath.Path]:
        """Does the work below `workdir / name` and returns the files that are its results."""
        return self._module().run(config, workdir)

    def inputs(self, config: Any) -> dict[str, str]:
        """Digests of what the stage reads from outside the workdir; raises for settings that do not fit it."""
        module = self._module()
        return module.inputs(config) if hasattr(module, "inputs") else {}

    def _module(self) -> Any:
        return importlib.import_module(f"launch.stages.{self.name}")


POOLING = tuple(f"stability.{field}" for field in ("theta", "epsilon", "rare_firings", "block_size"))  # what pools are made by
_POOL = ("group", "theta", "rows", "span_rank", "headline", "repeat", "curves", "sizes", "thetas", "features")  # and of what

_TEXT = ("source.text", "source.activations", "source.context_length")  # which a written SAE names
_TRAINED = (*_TEXT, "sweep")  # read wherever SAEs are trained
_HELD_OUT = ("source.activations", "synthetic", "train.eval_rows")  # where held-out rows come from
_GAUSSIAN = ("data_seed", "train.halves", "train.shuffle_block", "train.shuffle_window")  # and the rows that a null was trained on
_MODEL = ("lm", "source.activations", "source.start_token", "source.context_length", "source.layer", "source.site")  # run over them again

_ALL = (
    # The study.
    Stage("activations", ("source", "lm.path", "lm.revision", "lm.dtype", "lm.model_parallel"), guarded=True),
    Stage(
        "train",
        ("synthetic", "seeds", "init_seed", "data_seed", "sweep", "sae", "train", *_TEXT),
        after=("activations",),
        guarded=True,
        training=True,
        later=_TEXT,
    ),
    Stage(
        "gaussian",
        ("gaussian_seeds", "init_seed", "data_seed", "sae", "train", *_TRAINED),
        after=("activations",),
        guarded=True,
        training=True,
        later=_TRAINED,
    ),
    *(
        Stage(
            name,
            ("synthetic", "seeds", "init_seed", "data_seed", "sae", "train", "pool.group", *more, *_TRAINED),
            after=("activations",),
            guarded=True,
            training=True,
            later=_TRAINED,
        )
        for name, more in (("longer", ("pool.held_tokens", "pool.free_tokens")), ("wider", ()))
    ),
    Stage(
        "pool",
        (
            *(f"pool.{field}" for field in _POOL),
            *POOLING,
            "stability.dictionaries",
            "atlas",
            "sae",
            "train",
            "data_seed",
            "synthetic",
            "source.text",
        ),
        after=("activations", "train"),
    ),
    Stage(
        "finetune",
        # What it shares with `pool`, so that a change is refused before those are made anew.
        (
            *(f"pool.{field}" for field in _POOL if field != "span_rank"),
            *POOLING,
            *(f"pool.{field}" for field in ("tuned", "held_tokens", "free_tokens", "tune_rate", "decoder_rate")),
            "data_seed",
            "sae",
            "train",
            "synthetic",
            "pool.span_rank",
            *_TRAINED,
        ),
        after=("activations", "train", "pool"),
        guarded=True,
        training=True,
        later=("synthetic", "pool.span_rank", *_TRAINED),
    ),
    Stage(
        "pooled",
        ("pool", "stability", "atlas", "recovery", "sae", "train", "data_seed", "synthetic", "source.text", *_MODEL),
        after=("activations", "train", "longer", "wider", "pool", "finetune"),
    ),
    Stage(
        "factorial",
        ("arms", "seeds", "init_seed", "data_seed", "sae", "train", *_TRAINED),
        after=("activations",),
        guarded=True,
        training=True,
        later=("init_seed", "data_seed", *_TRAINED),
    ),
    Stage("arms", ("arms", "stability", "sensitivity.neighbours", "transfer.features"), after=("activations", "factorial")),
    Stage("collect", ("saes", "newcomers", "ignore_names", "source.activations", "source.eval_tokens")),
    Stage("stability", ("stability", *_HELD_OUT, *_GAUSSIAN), after=("activations", "train", "gaussian", "collect")),
    Stage("sensitivity", ("sensitivity", "stability", *_HELD_OUT), after=("activations", "train", "collect", "stability")),
    Stage(
        "subspace",
        ("subspace", "stability.dictionaries", "stability.theta", "stability.confidence", *_HELD_OUT),
        after=("activations", "train", "collect", "stability"),
    ),
    Stage(
        "atlas",
        ("atlas", "stability.dictionaries", "stability.confidence", *POOLING, *_HELD_OUT, *_GAUSSIAN, "gaussian_seeds"),
        after=("activations", "train", "gaussian", "collect", "stability"),
    ),
    Stage(
        "diagnosis",
        ("diagnosis", "atlas", "stability.dictionaries", "stability.confidence", "stability.block_size", "source.activations"),
        after=("activations", "train", "collect", "stability", "atlas"),
    ),
    Stage("transfer", ("transfer", "stability"), after=("train", "collect", "stability", "sensitivity")),
    Stage("function", ("function", "stability", *_HELD_OUT), after=("activations", "train", "collect", "stability")),
    Stage("splice", ("splice", "function", "stability", *_MODEL), after=("activations", "train", "stability", "function")),
    Stage(
        "statistics",
        ("statistics", "function.seeds", "function.draws", "stability", "source.batch_size", "source.shard_contexts", *_MODEL),
        after=("activations", "train", "collect", "stability"),
    ),
    Stage(
        "explanations",
        ("explanations", "function.seeds", "stability", "source.activations", "lm.path", "lm.revision"),
        after=("activations", "train", "collect", "stability", "statistics"),
    ),
    Stage("predict", ("saes", "newcomers", "stability", "sensitivity.neighbours"), after=("collect", "stability", "sensitivity")),
    Stage(
        "recovery",
        ("recovery", "stability.dictionaries", "stability.confidence", "stability.block_size", *_HELD_OUT),
        after=("train", "stability"),
    ),
    Stage("grid", ("synthetic", "cells", "starts", "seeds", "init_seed", "data_seed", "sae", "train"), guarded=True, training=True),
    Stage(
        "verdicts",
        ("recovery", "contrasts", "reference", "cells", "starts", "seeds", "sae", "train", "synthetic")
        + ("stability.confidence", "stability.epsilon", "stability.block_size"),
        after=("grid",),
    ),
    Stage("causes", ("causes", "tuned_on", "atlas", "diagnosis", "stability", "cells", "sae", "train", "synthetic"), after=("grid",)),
    Stage(
        "report",
        ("report", "claims", "seeds", "starts", "sae.variant", "sae.n_features", "recovery.found", "recovery.tie", "source.activations")
        + ("stability.theta", "stability.confidence", "stability.dictionaries"),
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
    Stage(
        "model_card",
        ("model_card", "source.text", "source.text_field", "source.root", "pretrain"),
        after=("tokenizer", "pretrain"),
    ),
)

STAGES = {stage.name: stage for stage in _ALL}
