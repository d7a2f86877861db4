"""Stage: what the claims rest on, measured on SAEs as they were at a quarter and at half of their training, to tell whether it still moves.

at-<tokens>/<stage>/   what the measuring stages make of those SAEs
control/<stage>/       the same of SAEs of the run `half`, which ended there, learning rate and all
"""

import dataclasses
import functools
import json
import math
from typing import Any

from experiments import registry
from experiments.ablation.function import Function
from experiments.data import dictionary_list
from experiments.data.dictionary_list import External
from experiments.fields import check, config, field, section_of
from experiments.reappearance.labels import Reappearance
from experiments.stage import SUMMARY, Outputs, Stage, Task
from runtime import interrupts
from saes.config import TrainConfig
from storage import files

MEASURING = (
    "stability",
    "function",
    "splice",
    "statistics",
    "explanations",
    "subspace",
    "sensitivity",
    "transfer",
    "recovery",
)  # in an order in which they can run
EARLIER = (0.25, 0.5)  # of the training tokens
MOST_APART = 1.5  # factor between the tokens that are wanted and those at which SAEs were kept


@config("plateau")
class Plateau:
    """What is measured again on SAEs as they were earlier in training."""

    stages: tuple[str, ...] = field(
        default=tuple(name for name in MEASURING if name != "explanations"),
        doc="whose figures are measured again, those that the config has; 'explanations' asks its model again",
        one_of=MEASURING,
        distinct=True,
        least=1,
    )


CONTROL = "half"  # a run of `train`, the same seeds with half the tokens
STAGE = Stage(config=Plateau, needs=("saes",), uses=("rows", "model", "gaussian", CONTROL), children=MEASURING)


def check_settings(task: Task) -> None:
    """What must hold between sections."""
    stages = task.section(Plateau).stages
    for name in stages:
        missing = [need for need in registry.house().stages[name].needs if need in MEASURING and need not in stages]
        check(
            not missing,
            "plateau.stages",
            stages,
            f"{name!r} reads what {' and '.join(map(repr, missing))} write{'s' * (len(missing) == 1)}",
        )
    if task.has(CONTROL) and not task.settings[External].dictionaries:
        control, own = task.settings.of_run(CONTROL), task.settings
        for section in own:
            same = dataclasses.replace(section, tokens=control[TrainConfig].tokens) if isinstance(section, TrainConfig) else section
            what = f"runs.{CONTROL}.{section_of(type(section)) or 'seeds'}"
            check(control[type(section)] == same, what, "changed", "this run is the control of 'plateau': the same SAEs on half the tokens")
        _check_half(control[TrainConfig].tokens, own[TrainConfig].tokens // 2)


def _check_half(tokens: int, half: int) -> None:
    near = tokens > 0 and abs(math.log(tokens / half)) <= math.log(MOST_APART)
    check(near, f"runs.{CONTROL}.train.tokens", tokens, f"it is held against SAEs after {half:,} tokens")


def run(task: Task, out: Outputs) -> None:
    listing = dictionary_list.place(task)
    snapshots = [tokens for tokens, _ in dictionary_list.load(listing).snapshots if tokens > 0]
    points = earlier_points(snapshots)
    if points is None:
        out.not_measured(
            f"no SAEs were kept at about a quarter and half of their training (after {', '.join(map(str, snapshots)) or 'no number of'} tokens)"
        )
        return
    measured = []
    for tokens in points:
        interrupts.raise_if_stop_requested("plateau: finished points are kept")
        print(f"plateau: SAEs after {tokens:,} tokens")
        measured.append(
            {"tokens": tokens, "stages": json.loads(out.part(f"at {tokens}", functools.partial(_measured, task, str(listing), tokens)))}
        )
    out.summary({"tokens": snapshots[-1], "points": measured} | _control(task, out, points[-1]))


def _control(task: Task, out: Outputs, half: int) -> dict[str, Any]:
    """SAEs on the way have not been annealed; those of a run of half the tokens have. Figures of both at half tell whether that matters; {} without such a run."""
    if not task.has(CONTROL) or task.section(External).dictionaries:
        return {}
    listing = task.path(f"{CONTROL}/train") / dictionary_list.NAME
    tokens = dictionary_list.read(listing)["training"]["tokens"]
    _check_half(tokens, half)
    seeds, own = dictionary_list.load(listing).seeds, dictionary_list.saes(task).seeds
    if seeds != own:
        print(
            f"plateau: no control: config.runs.{CONTROL} has the seeds {list(seeds)}, the study {list(own)} (seeds that are not finite are left out)"
        )
        return {}
    print(f"plateau: SAEs that ended after {tokens:,} tokens")
    measured = out.part("control", functools.partial(_measured, task, str(listing), None))
    return {"control": {"tokens": tokens, "stages": json.loads(measured)}}


def earlier_points(snapshots: list[int]) -> list[int] | None:
    """Of the tokens after which SAEs were kept, the last being the end, those nearest to a quarter and to half of it; None where one is too far off."""
    points = []
    for share in EARLIER:
        nearest = min(snapshots[:-1], key=lambda tokens: abs(math.log(tokens / (share * snapshots[-1]))), default=None)
        if nearest is None or abs(math.log(nearest / (share * snapshots[-1]))) > math.log(MOST_APART):
            return None
        points.append(nearest)
    return points if len(set(points)) == len(points) else None


def _measured(task: Task, listing: str, tokens: int | None) -> str:
    """Summaries of the measuring stages by name, as JSON, of SAEs as they were after so many tokens (None: at their end); null models and figures that no
    claim rests on are taken once."""
    folder = task.folder / ("control" if tokens is None else f"at-{tokens}")
    settings, stages = task.settings, task.section(Plateau).stages
    names = [name for name in MEASURING if name in stages and name in settings.stages]
    settings = settings.replaced(
        External(dictionaries=listing, at_tokens=tokens or 0), dataclasses.replace(settings[Reappearance], null_draws=1)
    )
    if "function" in names:
        settings = settings.replaced(dataclasses.replace(settings[Function], refill_rows=512))
    settings = settings.with_stages(*names, *(name for name in settings.stages if name not in STAGE.children))
    for name in names:
        registry.run_child(task, name, folder, settings)
    return json.dumps({name: files.read_json(folder / name / SUMMARY) for name in names})
