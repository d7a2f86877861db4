"""How often 95 % intervals of each kind hold the truth, in simulation: prints the table of docs/coverage.md.

python -m tests.coverage > docs/coverage.md      # 500 tables for each entry, about two minutes on a core
"""

import argparse
from collections.abc import Callable

import numpy as np

from experiments.reappearance.seed_values import Values
from stability import aggregates
from stability.estimates import Estimate

SEEDS = (3, 5, 8, 21)
CONFIDENCE, EPSILON, FEATURES, DOCUMENTS, PARTS = 0.95, 0.05, 120, 45, 10
Draw = Callable[[np.random.Generator, int], Estimate]


def hits(rng: np.random.Generator, seeds: int) -> np.ndarray:
    """(S, S, F): each seed has stable, unstable and middling features of its own; SAEs differ in quality."""
    odds_SF = rng.choice([-4.0, -0.5, 0.5, 4.0], (seeds, FEATURES), p=[0.4, 0.1, 0.1, 0.4])
    shift_S = rng.normal(0, 0.4, seeds)
    found = rng.random((seeds, seeds, FEATURES)) < 1 / (1 + np.exp(-(odds_SF[:, None] + shift_S[None, :, None] + shift_S[:, None, None])))
    return found & ~np.eye(seeds, dtype=bool)[:, :, None]


def knife(statistic: aggregates.Statistic, seeds: int, log: bool = False) -> Estimate:
    return aggregates.jackknifed(statistic, seeds, CONFIDENCE, null=None, unit="", log=log)


def mean_of_seeds(rng: np.random.Generator, seeds: int) -> Estimate:
    values_S = rng.normal(1, 0.1, seeds)
    return knife(lambda weights_S: aggregates.seed_mean(values_S, weights_S), seeds)


def mean_p(rng: np.random.Generator, seeds: int) -> Estimate:
    every = np.ones((seeds, FEATURES), bool)
    share_SS = aggregates.share_reappearing(hits(rng, seeds), every)
    return knife(lambda weights_S: aggregates.pair_mean(share_SS, weights_S), seeds)


def label_share(rng: np.random.Generator, seeds: int) -> Estimate:
    every = np.ones((seeds, FEATURES), bool)
    return knife(aggregates.label_share(hits(rng, seeds), every, EPSILON, stable=False), seeds)


def label_ratio(rng: np.random.Generator, seeds: int) -> Estimate:
    found = hits(rng, seeds)
    rate_SF = np.exp(rng.normal(0, 0.7, (seeds, FEATURES)) + found.mean(axis=1) + rng.normal(0, 0.1, (seeds, 1)))
    return knife(aggregates.label_ratio(rate_SF, found, np.ones((seeds, FEATURES), bool), EPSILON), seeds, log=True)


def with_text(rng: np.random.Generator, seeds: int) -> Estimate:
    figure_SN = 1 + rng.normal(0, 0.03, (seeds, 1)) + rng.normal(0, 0.3, DOCUMENTS) + rng.normal(0, 0.1, (seeds, DOCUMENTS))
    values = Values(seeds, CONFIDENCE, "")
    for s in range(seeds):
        values.fixed(s, {("x",): float(figure_SN[s].mean())})
        for d in range(DOCUMENTS):
            values.without_document(s, d, {("x",): float(np.delete(figure_SN[s], d).mean())})
    return values.mean(("x",))


def of_groups(rng: np.random.Generator, seeds: int) -> Estimate:
    return aggregates.of_groups(rng.normal(1, 0.1, seeds).tolist(), CONFIDENCE, null=None, unit="")


def change_along_training(rng: np.random.Generator, seeds: int) -> Estimate:
    """Seeds and parts of the text lie far apart, and change little from one measurement to the next."""
    level_SP = 1 + rng.normal(0, 0.1, (seeds, 1)) + rng.normal(0, 0.1, PARTS)
    changed_SP = level_SP + 0.05 + rng.normal(0, 0.02, (seeds, 1)) + rng.normal(0, 0.02, PARTS) + rng.normal(0, 0.02, (seeds, PARTS))

    def measured(figure_SP: np.ndarray) -> Estimate:
        documents = [float(np.delete(figure_SP, part, axis=1).mean()) for part in range(PARTS)]
        mean = lambda weights_S: aggregates.seed_mean(figure_SP.mean(axis=1), weights_S)
        return aggregates.jackknifed(mean, seeds, CONFIDENCE, null=None, unit="", documents=documents)

    before, after = measured(level_SP), measured(changed_SP)
    assert before.replicates is not None and after.replicates is not None and before.value is not None and after.value is not None
    value, half = after.value - before.value, aggregates.change(before.replicates, after.replicates)
    return Estimate(value, value - half, value + half, None, after.n, "")


KINDS: dict[str, tuple[str, Draw]] = {
    "mean over seeds": ("explained variance, L0", mean_of_seeds),
    "mean p̂ over pairs": ("mean p̂, MMCS; seeds differ in quality", mean_p),
    "share with a label": ("unstable share; the truth is that of as many seeds", label_share),
    "ratio between labels": ("firing rate, stable over unstable; labels change with the seeds", label_ratio),
    "seeds and text": ("cross-entropy, explained variance of sets; 45 documents", with_text),
    "change of a pair": ("a figure along training, at half and at the end; ten parts of the text", change_along_training),
    "mean over groups": ("pools of independent groups; the columns count groups", of_groups),
}


def coverage(draw: Draw, seeds: int, tables: int) -> float:
    """Share of made-up tables whose interval holds the mean of the figure over all of them; none counts as not holding it."""
    rng = np.random.default_rng(seeds)
    made = [draw(rng, seeds) for _ in range(tables)]
    truth = float(np.mean([e.value for e in made if e.value is not None]))
    return float(np.mean([e.low is not None and e.high is not None and e.low <= truth <= e.high for e in made]))


def page(tables: int) -> str:
    lines = [
        "# Coverage of intervals",
        "",
        f"How often a 95 % interval holds the truth, in {tables} made-up tables each, by kind of figure and number of seeds (`python -m tests.coverage`). A kind whose",
        "figure often has no interval (no feature with a label is left without some seed) counts these as misses.",
        "",
        "| kind of figure | as | " + " | ".join(f"S = {s}" for s in SEEDS) + " |",
        "|---|---|" + "---|" * len(SEEDS),
    ]
    for name, (what, draw) in KINDS.items():
        lines.append(f"| {name} | {what} | " + " | ".join(f"{coverage(draw, s, tables):.3f}" for s in SEEDS) + " |")
    lines += ["", "Bounds of shares by true p (claim C1) are not intervals of an estimate; `docs/claims.md` says what they held.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--tables", type=int, default=500)
    print(page(parser.parse_args().tables), end="")
