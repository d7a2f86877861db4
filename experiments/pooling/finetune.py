"""Stage: pools trained on, first with their decoder rows held, then with rows that move slowly.

held/, free/   as what stage `train` leaves: every pool that is tuned, of all groups, as seeds 0, 1, …; a pool that is not full has silent features behind its own.
               Those of the headline's curves, and those made without one SAE, are among them: of the first two groups.
               Single SAEs, the first of each group, are trained on in the same way: what training on does by itself.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from etils import epath

from activations.stream import Stream
from experiments.data import dictionary_list, sources
from experiments.data.corpora import Text
from experiments.data.costs import Cost, Hardware, Size
from experiments.data.harvesting import Harvesting
from experiments.data.own_arrays import OwnRows
from experiments.data.seeds import Seeds
from experiments.data.sources import Sampling
from experiments.pooling import curve_points, pool, pools
from experiments.pooling.pool import Which
from experiments.pooling.pools import FREE, HELD, SINGLE, Pooling
from experiments.settings import Settings
from experiments.stage import SUMMARY, Outputs, Stage, Task
from experiments.training import given, population, train
from experiments.training.given import Given
from experiments.training.population import Member, Rounds
from saes.config import SAEConfig, TrainConfig
from saes.dictionary import Dictionary, first_features
from saes.formats import saelens
from saes.lanes import LanePlan
from saes.step import TrainState
from saes.variants import variant
from storage import files

STAGE = Stage(
    config=Pooling,
    reads=(SAEConfig, TrainConfig, Rounds, Sampling, Seeds),
    optional=(Text, OwnRows, Harvesting),
    needs=("train", "pool", "rows"),
    training=True,
    guarded=True,
)


def run(task: Task, out: Outputs) -> None:
    c, sae, length = task.section(Pooling), task.section(SAEConfig), task.section(TrainConfig)
    source = sources.source(task)
    scale = train.read_plan(task.path("train"))["scale"]
    seeds = task.summary("pool")["seeds"]
    names = pools.group_names(c.groups)
    places = [Which(kind, name) for kind in c.tuned for name in names]
    places += [Which(kind, name, s) for kind in c.tuned for name in pools.NAMES for s in seeds[name]]
    places += [Which(p.recipe.kind, name, point=p.name) for p in curve_points.trained_on(c, sae.n_features) for name in pools.NAMES]
    paths = {place: pool.path(task, place) for place in places}
    paths |= {Which(SINGLE, name): task.path("train/sae") / f"seed-{seeds[name][0]}" for name in names}
    who = [place for place, path in paths.items() if path.exists()]
    begin = {place: saelens.load(paths[place])[0] for place in who}
    summary: dict[str, Any] = {}
    for phase, rate, tokens in ((HELD, 0.0, c.held_tokens), (FREE, c.decoder_rate, c.free_tokens)):
        summary[phase] = [[*place, d.w_dec_FD.shape[0]] for place, d in begin.items()]
        out.summary(summary)
        tuned = dataclasses.replace(length, tokens=tokens, lr=c.tune_rate * length.peak_lr(sae.n_features), snapshots=2, eval_at_tokens=())
        steady = dataclasses.replace(sae, sparsity_warmup_fraction=0.0)
        seeds_of = Seeds(seeds=tuple(range(len(begin))), init_seed=-1, data_seed=task.section(Seeds).order)
        rounds = dataclasses.replace(task.section(Rounds), export_sparsify=False)
        cells = population.one_cell(steady, tuned)
        trained = population.make_population(steady, tuned, rounds, seeds_of, False, cells, population.dataset(task))
        start = _starting(sae.variant, list(begin.values()), rate)
        out.add(*train.train_all(trained, task.folder / phase, source, f"finetune {phase}", scale, start))
        finite = read(task.folder, phase)
        for which in (w for w in begin if w not in finite):
            print(f"finetune {phase}: {describe(which)} was not finite in training and is left out: lower config.pool.tune_rate")
        begin = finite


def describe(which: Which) -> str:
    suffix = "" if which.excluded_seed is None else f", without seed {which.excluded_seed}"
    return f"{which.kind} of group {which.group}{suffix}{'' if which.point is None else f', {which.point}'}"


def read(folder: epath.Path, phase: str) -> dict[Which, Dictionary]:
    """What a phase left, without the silent features, and without what was not finite in training.

    Raises:
      ValueError: nothing was.
    """
    tuned = files.read_json(folder / SUMMARY)[phase]
    saes = dictionary_list.load(folder / phase / dictionary_list.NAME, least=0, distinct=False)
    if not saes.seeds:
        raise ValueError(f"{folder / phase}: nothing was finite in training: lower config.pool.tune_rate")
    finite = {}
    for lane, d in zip(saes.seeds, saes.dictionaries, strict=True):
        *which, size = tuned[lane]
        finite[Which(*which)] = dataclasses.replace(
            first_features(d, size), k=min(d.k, size)
        )  # in topk no more can be active than there are
    return finite


def _starting(kind: str, dictionaries: list[Dictionary], decoder_rate: float) -> train.Start:
    """Every SAE begins as a dictionary; what there is room for behind its features is silent."""

    def start(state: TrainState, plan: LanePlan, members: Sequence[Member], streams: Sequence[Stream], scale: float) -> TrainState:
        del streams
        own = [dictionaries[m.seed] for m in members]
        begins = [Given(d.w_dec_FD.shape[0], vars(variant(kind).from_dictionary(d, scale)), decoder_rate) for d in own]
        return given.place(state, plan, begins)

    return start


def cost(settings: Settings, size: Size, hardware: Hardware) -> Cost:
    """Training of every pool that is tuned, with a single SAE of each group."""
    c, sae = settings[Pooling], settings[SAEConfig]
    tuned = c.groups * (len(c.tuned) + 1) + pool.pools_again(c) + 2 * len(curve_points.trained_on(c, sae.n_features))
    length = dataclasses.replace(settings[TrainConfig], tokens=c.held_tokens + c.free_tokens)
    alike = settings.replaced(length, Seeds(seeds=tuple(range(tuned)), init_seed=-1, data_seed=settings[Seeds].order))
    return train.cost(alike, size, hardware)._replace(stage="finetune")
