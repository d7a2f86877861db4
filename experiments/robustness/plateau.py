"""Stage: what the claims rest on, measured on SAEs as they were at a quarter and at half of their training, to tell whether it still moves.

at-<tokens>/<stage>/   what the measuring stages make of those SAEs
control/<stage>/       the same of SAEs of the run `half`, which ended there, learning rate and all
end/<stage>/           subspaces at the end, of as many features as there are at all of these points: overlaps and ranks grow with their number
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from experiments import registry
from experiments.ablation.function import Function
from experiments.data import dictionary_list
from experiments.data.dictionary_list import External
from experiments.fields import check, config, field, section_of
from experiments.reappearance.labels import Reappearance
from experiments.stage import SUMMARY, Outputs, Stage, Task
from experiments.subspaces.subspace import Subspace
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
SUBSPACE = "subspace"
STAGE = Stage(config=Plateau, needs=("saes",), uses=("rows", "model", "gaussian", CONTROL, SUBSPACE), children=MEASURING)


def check_settings(task: Task) -> None:
    """What must hold between sections."""
    external = task.settings.get(External)
    check(
        external is None or not external.at_tokens,
        "stability.at_tokens",
        external and external.at_tokens,
        "the stage 'plateau' measures SAEs as they were earlier by itself, and holds them against their end",
    )
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


class Place(NamedTuple):
    """Which SAEs are measured, and where.

    Attributes:
      folder: below the stage's own.
      listing: the list of SAEs.
      tokens: as they were after so many; 0 at their end.
    """

    folder: str
    listing: str
    tokens: int


def run(task: Task, out: Outputs) -> None:
    listing = dictionary_list.place(task)
    snapshots = [tokens for tokens, _ in dictionary_list.load(listing).snapshots if tokens > 0]
    points = earlier_points(snapshots)
    if points is None:
        out.not_measured(
            f"no SAEs were kept at about a quarter and half of their training (after {', '.join(map(str, snapshots)) or 'no number of'} tokens)"
        )
        return
    places = {Place(f"at-{tokens}", str(listing), tokens): tokens for tokens in points} | _control(task, points[-1])
    figures = {}
    for place, tokens in places.items():
        interrupts.raise_if_stop_requested("plateau: finished points are kept")
        print(f"plateau: SAEs {'after' if place.tokens else 'that ended after'} {tokens:,} tokens")
        figures[place.folder] = _measured(task, out, place, MEASURING)
    end = _of_equally_many(task, out, [*places], figures)
    every = [{"tokens": tokens, "stages": figures[place.folder]} for place, tokens in places.items()]
    control = {"control": every[-1]} if len(every) > len(points) else {}
    out.summary({"tokens": snapshots[-1], "points": every[: len(points)]} | control | ({"end": end} if end else {}))


def _control(task: Task, half: int) -> dict[Place, int]:
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
    return {Place("control", str(listing), 0): tokens}


def _of_equally_many(task: Task, out: Outputs, places: list[Place], figures: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Puts in place of every point's subspaces those of as many features as there are at all points. Returns the same of the end; {} where some point has none."""
    if not task.has(SUBSPACE) or any("not_measured" in f.get(SUBSPACE, {"not_measured": ""}) for f in figures.values()):
        return {}
    every = [task.summary(SUBSPACE), *(f[SUBSPACE] for f in figures.values())]
    if "not_measured" in every[0]:
        return {}
    same = dataclasses.replace(
        task.section(Subspace),
        most_features=min(f["features_per_set"] for f in every),
        most_against_nulls=min(f["fewest_against_a_null"] for f in every),
    )
    print(f"plateau: subspaces of {same.most_features} features in each set, {same.most_against_nulls} against nulls, at every point")
    for place in places:
        interrupts.raise_if_stop_requested("plateau: finished points are kept")
        figures[place.folder] |= _measured(task, out, place, (SUBSPACE,), same)
    last = Place("end", str(dictionary_list.place(task)), 0)
    return {SUBSPACE: _measured(task, out, last, ("stability", SUBSPACE), same)[SUBSPACE]}


def earlier_points(snapshots: list[int]) -> list[int] | None:
    """Of the tokens after which SAEs were kept, the last being the end, those nearest to a quarter and to half of it; None where one is too far off."""
    points = []
    for share in EARLIER:
        nearest = min(snapshots[:-1], key=lambda tokens: abs(math.log(tokens / (share * snapshots[-1]))), default=None)
        if nearest is None or abs(math.log(nearest / (share * snapshots[-1]))) > math.log(MOST_APART):
            return None
        points.append(nearest)
    return points if len(set(points)) == len(points) else None


def _measured(task: Task, out: Outputs, place: Place, stages: Sequence[str], *changed: object) -> dict[str, Any]:
    """Summaries of measuring stages by name, with `changed` sections; null models and figures that no claim rests on are taken once."""
    folder = task.folder / place.folder
    settings, asked = task.settings, task.section(Plateau).stages
    there = [name for name in MEASURING if name in asked and name in settings.stages]
    names = [name for name in there if name in stages]
    settings = settings.replaced(
        External(dictionaries=place.listing, at_tokens=place.tokens), dataclasses.replace(settings[Reappearance], null_draws=1), *changed
    )
    if "function" in names:
        settings = settings.replaced(dataclasses.replace(settings[Function], refill_rows=512))
    settings = settings.with_stages(*there, *(name for name in settings.stages if name not in STAGE.children))

    def measured() -> str:
        for name in names:
            registry.run_child(task, name, folder, settings)
        return json.dumps({name: files.read_json(folder / name / SUMMARY) for name in names})

    return dict(json.loads(out.part(f"{place.folder}: {', '.join(names)}", measured)))
