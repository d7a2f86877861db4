"""The kinds of study there are, each as its config's fields; `launch/config.py` makes them."""

import dataclasses
import re
from typing import ClassVar

from launch.arms import ARMS
from launch.measuring import (
    Atlas,
    Claims,
    Diagnosis,
    Explanations,
    Function,
    Pool,
    Report,
    Sensitivity,
    Splice,
    Stability,
    Statistics,
    Subspace,
    Transfer,
)
from launch.roster import RANDOM, STARTS
from launch.sections import LanguageModel, ModelCard, Pretrain, Source, Sweep, check
from launch.stages import MEASURING
from saes.config import SAEConfig, TrainConfig
from saes.variants import variant
from synthetic.causes import Causes
from synthetic.config import Recovery, WorldConfig, common_shape


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """Settings of a config whose stages make a language model."""

    STAGES: ClassVar[tuple[str, ...]] = ("tokenizer", "pretrain", "model_card")

    stages: tuple[str, ...]
    source: Source
    pretrain: Pretrain
    model_card: ModelCard


@dataclasses.dataclass(frozen=True)
class _Measured:
    """What every study has that measures SAEs, wherever they come from."""

    stages: tuple[str, ...]
    stability: Stability
    sensitivity: Sensitivity
    subspace: Subspace
    atlas: Atlas
    diagnosis: Diagnosis
    transfer: Transfer
    function: Function
    statistics: Statistics
    explanations: Explanations
    report: Report
    claims: Claims

    def __post_init__(self):
        least = 1 / (1 + self.atlas.draws)
        check(
            least <= 1 - self.stability.confidence, "atlas.draws", self.atlas.draws,
            f"no p-value is below {least:.3g}, so none could meet stability.confidence={self.stability.confidence}",
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Seeds(_Measured):
    """What every study of seeds has, whatever its activations come from."""

    seeds: tuple[int, ...]
    init_seed: int
    data_seed: int
    sweep: Sweep
    sae: SAEConfig
    train: TrainConfig

    def __post_init__(self):
        super().__post_init__()
        if not self.seeds or not 0 <= min(self.seeds) <= max(self.seeds) < 2**32 or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"config.seeds={self.seeds}: a count, or distinct seeds from 0 to 2³²−1")
        if len(self.seed_list) < 2:
            raise ValueError(f"config.seeds={self.seeds}: stability compares at least 2 seeds")
        for field in ("init_seed", "data_seed"):
            check(-1 <= getattr(self, field) < 2**32, field, getattr(self, field), "-1 (each SAE's by its seed) or a seed for all")
        penalised = variant(self.sae.variant).penalised
        check(all(k <= self.sae.k for k in self.sweep.k), "sweep.k", self.sweep.k, f"at most sae.k={self.sae.k}, which sets the shapes")
        check(
            penalised or not self.sweep.sparsity, "sweep.sparsity", self.sweep.sparsity,
            f"the variant {self.sae.variant!r} has no penalty",
        )  # fmt: skip
        check(
            not (self.sweep.sparsity and self.sae.controlled), "sweep.sparsity", self.sweep.sparsity,
            "the controller would drive all to the same L0: sae.control_rate=0 and sae.control_gain=0 fix the coefficient",
        )  # fmt: skip
        check(
            not self.train.export_sparsify or self.sae.variant == "topk", "train.export_sparsify", self.train.export_sparsify,
            "sparsify's format holds topk SAEs alone",
        )  # fmt: skip
        later = [name for name in self.stages if name not in ("activations", "train")]
        check(
            not (self.sweep and later), "stages", self.stages,
            "a sweep only trains; measure a cell with --config.stability.dictionaries=…/train/cells/<cell>/dictionaries.json",
        )  # fmt: skip

    @property
    def seed_list(self) -> tuple[int, ...]:
        """One number is a count: seeds 0 to that less one; several are the seeds themselves."""
        return tuple(range(self.seeds[0])) if len(self.seeds) == 1 else self.seeds

    @property
    def differ_in(self) -> str:
        """What the SAEs of a cell differ in, for people."""
        found = ["initialisation"] * (self.init_seed < 0) + ["order of activations"] * (self.data_seed < 0)
        return " and ".join(found + ["half of the documents"] * self.train.halves) or "nothing"


@dataclasses.dataclass(frozen=True)
class Study(_Seeds):
    """Settings of a config whose stages measure stability on a language model."""

    STAGES: ClassVar[tuple[str, ...]] = (
        "activations",
        "train",
        "gaussian",
        *MEASURING,
        "splice",
        "report",
    )

    source: Source
    lm: LanguageModel
    gaussian_seeds: int
    splice: Splice

    def __post_init__(self):
        super().__post_init__()
        check(self.gaussian_seeds >= 2, "gaussian_seeds", self.gaussian_seeds, "at least 2; without the stage 'gaussian' there are none")
        check(
            "gaussian" not in self.stages or not self.stability.dictionaries, "stages", self.stages,
            "SAEs from elsewhere have no null trained as they were: leave 'gaussian' out",
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class FactorialStudy(Study):
    """Settings of a config that trains the arms of the seed factorial."""

    STAGES: ClassVar[tuple[str, ...]] = ("activations", "factorial", "arms", "report")

    arms: tuple[str, ...]

    def __post_init__(self):
        super().__post_init__()
        check(
            bool(self.arms) and set(self.arms) <= set(ARMS) and len(set(self.arms)) == len(self.arms),
            "arms",
            self.arms,
            f"distinct ones of {ARMS}",
        )


_POOLS = ("train", "longer", "wider", "pool", "finetune", "pooled", "report")


@dataclasses.dataclass(frozen=True)
class PoolStudy(Study):
    """Settings of a config that pools features of many seeds on a language model."""

    STAGES: ClassVar[tuple[str, ...]] = ("activations", *_POOLS)

    pool: Pool


@dataclasses.dataclass(frozen=True)
class Activations:
    """Activations that are there already."""

    activations: str
    eval_tokens: int

    def __post_init__(self):
        check(self.eval_tokens > 0, "source.eval_tokens", self.eval_tokens, "must be above 0")


@dataclasses.dataclass(frozen=True)
class Comparison(_Measured):
    """Settings of a config that measures SAEs which are there already."""

    STAGES: ClassVar[tuple[str, ...]] = ("collect", *MEASURING, "report")

    saes: str
    ignore_names: bool
    source: Activations

    def __post_init__(self):
        super().__post_init__()
        check(bool(self.paths), "saes", self.saes, "--config.saes=path1,path2,… names folders or hub ids of SAEs")
        check(not self.stability.dictionaries, "stability.dictionaries", self.stability.dictionaries, "config.saes takes its place here")
        check("collect" in self.stages, "stages", self.stages, "'collect' finds the SAEs; --stages=… runs some of the stages")

    @property
    def paths(self) -> tuple[str, ...]:
        return _paths(self.saes)


def _paths(text: str) -> tuple[str, ...]:
    return tuple(path for part in text.split(",") if (path := part.strip()))


@dataclasses.dataclass(frozen=True)
class Prediction(Comparison):
    """Settings of a config that predicts how stable the features of SAEs outside a bank are."""

    STAGES: ClassVar[tuple[str, ...]] = ("collect", "stability", "sensitivity", "predict")

    newcomers: str

    def __post_init__(self):
        super().__post_init__()
        check(
            bool(self.newcomer_paths), "newcomers", self.newcomers, "--config.newcomers=path names the SAE whose features are asked about"
        )

    @property
    def newcomer_paths(self) -> tuple[str, ...]:
        return _paths(self.newcomers)


@dataclasses.dataclass(frozen=True)
class SyntheticStudy(_Seeds):
    """Settings of a config whose activations come from a world of known atoms."""

    STAGES: ClassVar[tuple[str, ...]] = (
        "train",
        *MEASURING,
        "recovery",
        "report",
    )

    synthetic: WorldConfig
    recovery: Recovery

    def __post_init__(self):
        super().__post_init__()
        check(self.train.data == "activations" and not self.train.halves, "train.data", self.train.data, "a world has no stored rows")

    @property
    def subject(self) -> str:
        c = self.synthetic
        blocks = f"{c.blocks} block{'s' * (c.blocks != 1)} of {c.block_atoms} in rank {c.rank}"
        return f"a synthetic world of width {c.width}: {c.free_atoms} free atoms, {blocks}"


@dataclasses.dataclass(frozen=True)
class SyntheticPoolStudy(SyntheticStudy):
    """The same in a world of known atoms."""

    STAGES: ClassVar[tuple[str, ...]] = _POOLS

    pool: Pool


@dataclasses.dataclass(frozen=True)
class GridCell:
    """One world of a grid, with the SAEs trained on it; sections as in the study, with what the cell changes.

    Attributes:
      name: of its folder.
      at: its coordinates in a phase diagram, {} if it is in none.
    """

    name: str
    at: tuple[tuple[str, float], ...]
    synthetic: WorldConfig
    sae: SAEConfig
    train: TrainConfig


@dataclasses.dataclass(frozen=True)
class GridStudy(SyntheticStudy):
    """Settings of a config that trains SAEs on many worlds, from random starts and from the truth."""

    STAGES: ClassVar[tuple[str, ...]] = ("grid", "verdicts", "causes", "report")

    cells: tuple[GridCell, ...]
    starts: tuple[str, ...]
    contrasts: tuple[tuple[str, str, str], ...]
    reference: str
    tuned_on: tuple[str, ...]
    causes: Causes

    def __post_init__(self):
        super().__post_init__()
        names = [c.name for c in self.cells]
        check(bool(names) and len(set(names)) == len(names), "cells", names, "distinct names, at least one")
        for name in names:
            check(bool(re.fullmatch(r"[\w %+-]+", name)), "cells", name, "a name of letters, digits, blanks, %, + and -")
        check(self.starts in ((RANDOM,), STARTS), "starts", self.starts, f"({RANDOM!r},) or {STARTS}")
        check(not self.sweep, "sweep", self.sweep, "cells take its place in a grid")
        for c in self.cells:
            check(c.synthetic.blocks > 0, "synthetic.blocks", c.synthetic.blocks, f"cell {c.name!r} has no block to judge")
        plain = ("topk", "batchtopk")  # matryoshka's groups would follow the padded size
        for c in self.cells:
            check(c.sae.variant in plain, "sae.variant", c.sae.variant, f"one of {plain}, whose encoders can be fitted to the truth")
            check(c.train.eval_rows <= 65_536, "train.eval_rows", c.train.eval_rows, "at most 65536 in a grid")
        for contrast in self.contrasts:
            check(
                len(contrast) == 3 and set(contrast[1:]) <= set(names), "contrasts", contrast, f"(what differs, cell, cell) of {names}"
            )  # fmt: skip
        check("causes" not in self.stages or len(self.seed_list) >= 4, "seeds", self.seeds, "at least 4: 'causes' compares two halves of 2")
        check(set(self.tuned_on) <= set(names), "tuned_on", self.tuned_on, f"some of the cells {names}")
        check(self.reference in ("", *names), "reference", self.reference, f"one of the cells {names}, or '' for none")
        common_shape([c.synthetic for c in self.cells])

    @property
    def subject(self) -> str:
        return f"{len(self.cells)} synthetic worlds of width {self.synthetic.width}"
