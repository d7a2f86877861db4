"""Stage: what a sample of features responds to, in words, and whether the words tell where the features fire.

features.parquet   a row per explained feature: explanation, kind, detection score
"""

import contextlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from etils import epath
from jaxtyping import Array

from activations.store import Rows
from experiments.ablation.function import Function
from experiments.data import dictionary_list, row_texts
from experiments.data.dictionary_list import DictionaryList
from experiments.fields import check, config, field
from experiments.reappearance import feature_sets
from experiments.reappearance.feature_sets import STABLE, UNSTABLE, Features
from experiments.reappearance.labels import LabelRule
from experiments.reappearance.seed_values import Key, Values
from experiments.stage import Outputs, Stage, Task
from interpret import explanations as explaining
from interpret.bill import bill
from interpret.completion import Cached, Completer, CompletionError, Usage, total
from interpret.contexts import ContextReader
from interpret.endpoint import Endpoint
from interpret.explanations import KINDS, SUBSTRING, SURFACE, Explained, explain_all
from interpret.rules import RuleBased
from runtime import progress
from saes.dictionary import Dictionary, encode
from stability.estimates import Estimate


@config("explanations")
class Explanations:
    """Who explains which features, and what that may cost."""

    model: str = field(
        default="", doc="of an OpenAI-compatible endpoint (OPENAI_BASE_URL, OPENAI_API_KEY); '': rules on the text of tokens, offline"
    )
    pairs: int = field(default=40, doc="of a stable and an unstable feature of one SAE that fire about equally often", gt=0)
    contexts: int = field(default=8, doc="from which a feature is explained", gt=0)
    candidates: int = field(default=10, doc="other contexts in which it is asked whether the feature fires; in half of them it does", gt=0)
    context_tokens: int = field(default=24, doc="tokens of a context before the one in question; a third as many behind", gt=0)
    at_once: int = field(default=4, doc="questions under way", gt=0, how=True)
    timeout: float = field(default=60.0, doc="seconds for an answer", gt=0, how=True)
    retries: int = field(default=4, doc="of a question that was not answered, with growing pauses", ge=0, how=True)
    max_tokens: int = field(default=400, doc="of an answer", gt=0)
    price_in: float = field(default=0.0, doc="per million tokens of questions, in the currency of most_cost; 0: not shown", ge=0, how=True)
    price_out: float = field(default=0.0, doc="per million tokens of answers", ge=0, how=True)
    most_cost: float = field(
        default=0.0, doc="of all answers, kept ones too, above which nothing more is asked; 0: no bound", ge=0, how=True
    )

    def check(self) -> None:
        check(
            self.candidates % 2 == 0, "explanations.candidates", self.candidates,
            "must be even: half of them are contexts in which the feature fires",
        )  # fmt: skip
        check(
            not self.most_cost or self.price_in + self.price_out > 0, "explanations.most_cost", self.most_cost,
            "needs prices: set explanations.price_in and explanations.price_out",
        )  # fmt: skip


STAGE = Stage(config=Explanations, reads=(Function, LabelRule), needs=("saes", "stability", "statistics"), uses=("rows", "model"))

ANSWERS = "completions"  # folder of the workdir: answers are kept whatever becomes of the stage
MOST_APART = 1.5  # factor between the firing rates of a pair


class FeatureChoice(NamedTuple):
    """A feature that is explained: place of its SAE, its number, its label, and the number of its pair."""

    seed: int
    feature: int
    label: str
    pair: int


def run(task: Task, out: Outputs) -> None:
    c = task.section(Explanations)
    counted = task.summary("statistics")
    if "not_measured" in counted:
        out.not_measured(counted["not_measured"])
        return
    whole = dictionary_list.saes(task)
    saes = whole.first(task.section(Function).seeds)
    stats = feature_sets.read(task, whole, task.section(Function).seeds)
    choices = _pairs(stats, c.pairs)
    if not choices:
        out.not_measured("no stable and unstable features that fire about equally often")
        return
    text = row_texts.read(task)
    assert text is not None
    # First of all, since an endpoint that is not there is found out at once.
    endpoint = contextlib.closing(Endpoint(c.model, c.timeout, c.retries, c.max_tokens)) if c.model else None
    with endpoint or contextlib.nullcontext(RuleBased()) as completer:
        tasks = _tasks(task, saes, choices, text)
        answers, usage = _asked(c, completer, tasks, task.root / ANSWERS)
    if any(answers.unusable.values()):
        which = ", ".join(f"{n} of {answers.asked[phase]} to the {phase}" for phase, n in answers.unusable.items() if n)
        print(f"explanations: answers that could not be used: {which}. Another model may do better, or this one with more max_tokens")
    explained = answers.explained
    values = Values(len(saes.seeds), task.section(LabelRule).confidence, "share")
    for seed in range(len(saes.seeds)):
        values.fixed(seed, _figures([(f.label, e) for f, e in zip(choices, explained, strict=True) if f.seed == seed]))
    summary = _summary(values) | {
        "by": completer.name,
        "asked_a_model": bool(c.model),
        "features": len(choices),
        "asked": answers.asked,
        "unusable": answers.unusable,
        "labels": "held fixed",
    }
    summary |= {"usage": usage._asdict(), "kinds": _kinds(choices, explained)}
    out.summary(summary)
    out.table("features", _table(saes, choices, explained))


def _pairs(stats: Features, count: int) -> list[FeatureChoice]:
    """Of every SAE alike pairs of a stable and an unstable feature that fire about equally often, each feature in one pair."""
    masks = feature_sets.by_label(stats)
    choices: list[FeatureChoice] = []
    s = len(stats.live_SF)
    for seed in range(s):
        missing = count // s + (seed < count % s)
        log_rate_F = np.log(np.maximum(stats.rate_SF[seed], 1e-12))
        stable = np.flatnonzero(masks[STABLE][seed]).tolist()
        for unstable in np.random.default_rng(seed).permutation(np.flatnonzero(masks[UNSTABLE][seed])).tolist():
            if not missing or not stable:
                break
            nearest = min(stable, key=lambda f: abs(log_rate_F[f] - log_rate_F[unstable]))
            if abs(log_rate_F[nearest] - log_rate_F[unstable]) <= np.log(MOST_APART):
                stable.remove(nearest)
                pair = len(choices) // 2
                choices += [FeatureChoice(seed, nearest, STABLE, pair), FeatureChoice(seed, unstable, UNSTABLE, pair)]
                missing -= 1
    return choices


class Candidates(NamedTuple):
    """Rows that a feature's explanation may be held against, of the half of the contexts from which it is not explained.

    Attributes:
      fires: on which it fires, at random.
      alike: on which it is silent, of the same tokens, each for another of `fires`.
      silent_N: all on which it is silent.
    """

    fires: list[int]
    alike: list[int]
    silent_N: np.ndarray


def _tasks(task: Task, saes: DictionaryList, choices: list[FeatureChoice], text: row_texts.Texts) -> list[explaining.Task]:
    """Explained from the strongest contexts of one half, held against places of the other half: some where the feature fires, and as many where it does
    not. Both features of a pair get as many places, and as many of these on the tokens on which they fire: such places are harder to tell."""
    c = task.section(Explanations)
    table = task.table("statistics/features", ("seed", "feature", "top_rows", "top_values", "sample_rows"))
    by_seed = {name: saes.by_seed(np.stack(list(table[name])), -1) for name in ("top_rows", "top_values", "sample_rows")}
    reader = ContextReader(text.rows, text.vocabulary, text.documents)
    context = lambda row: reader.context(int(row), c.context_tokens, c.context_tokens // 3)
    odd_N = text.context_N % 2 == 1
    tasks: list[explaining.Task] = []
    seeds = list(dict.fromkeys(f.seed for f in choices))
    bar = progress.tokens(len(seeds) * len(odd_N), "explanations/firing")
    for seed in seeds:
        of_seed = [f for f in choices if f.seed == seed]
        fires_NM = _fires(saes.dictionaries[seed], [f.feature for f in of_seed], text.rows, bar)
        strongest, candidates = [], []
        for m, choice in enumerate(of_seed):
            top, strength = by_seed["top_rows"][seed, choice.feature], by_seed["top_values"][seed, choice.feature]
            places = [(r, v) for r, v in zip(top, strength, strict=True) if v > 0]
            strongest.append(
                [(r, v) for r, v in places if not odd_N[r]][: c.contexts] or places[: c.contexts]
            )  # it may fire in the other half alone
            explained_from = text.context_N[[r for r, _ in strongest[m]]]
            sampled = [r for r in by_seed["sample_rows"][seed, choice.feature] if r >= 0 and text.context_N[r] not in explained_from]
            rng = np.random.default_rng((saes.seeds[seed], choice.feature))
            silent_N = odd_N & ~fires_NM[:, m]
            fires = sampled[: c.candidates // 2]
            candidates.append(Candidates(fires, _alike(rng, text.rows.token_N, fires, silent_N), silent_N))
        for m, choice in enumerate(of_seed):
            pair = [one for f, one in zip(of_seed, candidates, strict=True) if f.pair == choice.pair]
            count, alike = (min(len(getattr(one, name)) for one in pair) for name in ("fires", "alike"))
            rng = np.random.default_rng((saes.seeds[seed], choice.feature, 1))
            fires, silent = _held_against(rng, text.rows.token_N, candidates[m], count, min(alike, count))
            tasks.append(
                explaining.Task(
                    [context(r) for r, _ in strongest[m]],
                    np.array([v for _, v in strongest[m]]),
                    [context(r) for r in (*fires, *silent)],
                    np.arange(len(fires) + len(silent)) < len(fires),
                    f"{seed}/{choice.feature}",
                )
            )
    bar.close()
    return tasks


def _fires(dictionary: Dictionary, features: list[int], rows: Rows, bar: Any) -> np.ndarray:
    """(N, M) whether each of the features of one SAE is active."""
    on_device, place = jax.device_put(dictionary), jnp.asarray(features)
    padded = ((x, np.pad(x, ((0, progress.BATCH - len(x)), (0, 0)))) for x in progress.batches(rows.acts_ND, bar))
    return np.concatenate([np.asarray(_active(on_device, whole, place))[: len(x)] for x, whole in padded])


@jax.jit
def _active(dictionary: Dictionary, x_BD: Array, at_M: Array) -> Array:
    return encode(dictionary, x_BD)[:, at_M] > 0


def _alike(rng: np.random.Generator, token_N: np.ndarray, rows: list[int], silent_N: np.ndarray) -> list[int]:
    """Rows on which the feature is silent, of the token of each of its rows, no row twice; fewer where there are none left."""
    alike: list[int] = []
    for row in rows:
        pool = np.setdiff1d(np.flatnonzero(silent_N & (token_N == token_N[row])), alike)
        if len(pool):
            alike.append(int(rng.choice(pool)))
    return alike


def _held_against(
    rng: np.random.Generator, token_N: np.ndarray, candidates: Candidates, count: int, alike: int
) -> tuple[list[int], list[int]]:
    """(rows on which it fires, as many on which it is silent), so many of these of the same tokens and the others of other tokens; none where there
    are too few."""
    fires = candidates.fires[:count]
    other_N = np.flatnonzero(candidates.silent_N & ~np.isin(token_N, token_N[candidates.fires]))
    if not fires or len(other_N) < count - alike:
        return [], []
    return fires, candidates.alike[:alike] + rng.choice(other_N, count - alike, replace=False).tolist()


def _asked(
    c: Explanations, completer: Completer, tasks: list[explaining.Task], folder: epath.Path
) -> tuple[explaining.Explanations, Usage]:
    """Answers of the rules at once; of an endpoint through files, with what it costs shown before and on the way. The usage is of all answers, whenever
    they were paid for."""
    if not c.model:
        return explain_all(completer, tasks), completer.usage
    earlier, due = bill(Cached(completer, folder).stored_answers, tasks)
    had = f", beside {earlier.requests:,} answers that are kept ({_price(c, earlier)})" if earlier.requests else ""
    print(f"explanations: {due.requests:,} questions to {completer.name}, about {_price(c, due)}{had}", flush=True)
    expected = _cost(c, total([earlier, due]))
    if c.most_cost and due.requests and expected > c.most_cost:
        raise ValueError(f"config.explanations.most_cost={c.most_cost}: the questions are expected to cost {expected:.2f}{had}")
    with tqdm.tqdm(total=due.requests, desc="explanations", unit="question", mininterval=1.0) as bar:

        def on_answer() -> None:
            progress.look_for_signals()
            bar.set_postfix_str(_price(c, completer.usage))
            bar.update()
            if c.most_cost and _cost(c, total([earlier, completer.usage])) > c.most_cost:
                raise CompletionError(
                    f"explanations: {_price(c, completer.usage)} in this run{had}: above explanations.most_cost={c.most_cost}; answers are kept"
                )

        asked = Cached(completer, folder, c.at_once, on_answer)
        return explain_all(asked, tasks), asked.usage


def _cost(c: Explanations, usage: Usage) -> float:
    return (c.price_in * usage.prompt_tokens + c.price_out * usage.completion_tokens) / 1e6


def _price(c: Explanations, usage: Usage) -> str:
    tokens = f"{usage.prompt_tokens:,} tokens in, {usage.completion_tokens:,} out"
    return f"{tokens}, cost {_cost(c, usage):.2f}" if c.price_in or c.price_out else tokens


def _figures(explained: list[tuple[str, Explained]]) -> dict[Key, float]:
    out: dict[Key, float] = {}
    for label in (STABLE, UNSTABLE):
        kinds = [e.kind for feature_label, e in explained if feature_label == label and e.kind is not None]
        scores = [e.detection.balanced_accuracy for feature_label, e in explained if feature_label == label and e.detection is not None]
        if kinds:
            out["surface", label] = float(np.mean([kind in SURFACE for kind in kinds]))
            out["substring", label] = float(np.mean([kind == SUBSTRING for kind in kinds]))
        if scores:
            out["detection", label] = float(np.mean(scores))
    return out


def _summary(values: Values) -> dict[str, Any]:
    figures: dict[str, Estimate] = {}
    shares = ((name, None, "share of explanations") for name in ("substring", "surface"))
    for name, null, unit in (*shares, ("detection", 0.5, "balanced accuracy")):
        for label in (STABLE, UNSTABLE):
            figures[f"{name}_{label}"] = values.mean((name, label), null=null, unit=unit, bounds=(0.0, 1.0))
        figures[f"{name}_difference"] = values.difference((name, UNSTABLE), (name, STABLE), null=0.0, unit=unit)
    return {name: e.as_dict() for name, e in figures.items()}


def _kinds(choices: list[FeatureChoice], explained: list[Explained]) -> dict[str, dict[str, int]]:
    """How many explanations of each kind, by label."""
    count = lambda label, kind: sum(f.label == label and e.kind == kind for f, e in zip(choices, explained, strict=True))
    return {label: {kind: count(label, kind) for kind in KINDS} for label in (STABLE, UNSTABLE)}


def _table(saes: DictionaryList, choices: list[FeatureChoice], explained: list[Explained]) -> dict[str, list[Any]]:
    return {
        "seed": [saes.seeds[f.seed] for f in choices],
        "feature": [f.feature for f in choices],
        "label": [f.label for f in choices],
        "explanation": [e.explanation or "" for e in explained],
        "kind": [e.kind or "" for e in explained],
        "detection": [None if e.detection is None else e.detection.balanced_accuracy for e in explained],
        "true_positive_rate": [None if e.detection is None else e.detection.true_positive_rate for e in explained],
        "false_positive_rate": [None if e.detection is None else e.detection.false_positive_rate for e in explained],
    }
