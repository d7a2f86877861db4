"""How often each rule would say yes, of studies of so many seeds in which the claim is true by a stated law.

    python -m experiments.robustness.power > experiments/robustness/power.json      # 500 made-up tables an entry, about five minutes on a core

Laws are of the figures that a rule reads: an effect, and how far the figures of single seeds lie apart. Where the paper names an effect it is the paper's;
the spread is that of the quickstart's eight seeds. C6 compares independent products instead, so its size is the number of pools. `--plan` names rules whose
power is below a half at a study's size.
"""

import argparse
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

from experiments.fields import fields_of
from experiments.pooling import products
from experiments.pooling.products import ALL, EXPLAINED, LIVE, Figures
from reports.claims import YES, Claims, side
from stability import aggregates, mixing

SIZES = (6, 8, 12, 16, 21, 32)  # seeds; what holds of the last is taken to hold of more
POOLS = (3, 4, 5, 6, 8)  # independent pools, likewise
SEEDS, GROUPS = "seeds", "independent pools"  # what sizes count
TABLES = 500
CONFIDENCE, LEAST = 0.95, 0.5
FILE = pathlib.Path(__file__).with_name("power.json")
WORLDS = FILE.with_name("worlds.json")  # benchmarks/power_on_worlds.py
RULES = {f.name: f.default for f in fields_of(Claims)}


class Law(NamedTuple):
    """Of one figure that must lie above a threshold.

    Attributes:
      margin: the figure less the threshold (of ratios their logarithms), if the claim is true.
      spread: standard deviation of a single seed's figure.
      text: standard deviation that the text adds, the same for all seeds.
      parts: figures of this kind, of which each must hold.
      confidence: of each interval.
    """

    margin: float
    spread: float
    text: float = 0.0
    parts: int = 1
    confidence: float = CONFIDENCE


class Stated(NamedTuple):
    """What is supposed of a claim, in words and as laws."""

    words: str
    laws: tuple[Law, ...]


SIX = 1 - (1 - CONFIDENCE) / 6
LAWS = {
    "C2": Stated(
        "removing N stable features costs 0.01 of explained variance and 0.1 nats more than 4N unstable ones, and stable ones hold 0.2 more of what is explained",
        (Law(0.01, 0.0028, 0.0007, 6, SIX), Law(0.1, 0.03, 0.02, 6, SIX), Law(0.2, 0.035)),
    ),
    "C3a": Stated(
        "stable features fire 0.44/0.18 times as often, as in the paper, by means and by medians",
        (Law(math.log(0.44 / 0.18), 0.12, 0.0, 2), Law(math.log(0.44 / 0.18), 0.21, 0.0, 2)),
    ),
    "C3b": Stated("an unstable feature has the higher score with probability 0.6", (Law(0.1, 0.024),)),
    "C3c": Stated("0.389 of unstable and 0.113 of stable features are explained by a substring, as in the paper; 40 pairs in all", (Law(0.276, 0.26),)),
    "C4": Stated(
        "overlap and captured energy lie 0.05 above each of five nulls, effective rank 0.03 below",
        (Law(0.05, 0.012, 0.0, 10), Law(0.03, 0.006, 0.0, 2)),
    ),
    "C5": Stated(
        "planes overlap by 0.97, free atoms are found by 0.98, atoms of the block by 0.2",
        (Law(0.97 - RULES["c5_span"], 0.012, 0.0, 2), Law(0.98 - RULES["c5_span"], 0.01), Law(RULES["c5_found"] - 0.2, 0.02)),
    ),
    "C7": Stated("decoder rows have an AUROC 0.1 above the best baseline", (Law(0.1, 0.1, 0.05),)),
}  # fmt: skip
C1 = "a twentieth of features have p between 0.2 and 0.8, the others 0.02 or 0.98; 400 live features a seed, whose quality differs by 0.2 in log odds"


class Kind(NamedTuple):
    """What is supposed of the products of one method.

    Attributes:
      shared: share of all and of live features that two of them have in common.
      explained: explained variance, less the pools'.
      product: standard deviation over products of what each adds to the shares of its pairs.
    """

    shared: Mapping[str, float]
    explained: float
    product: float


POOLED = Kind({ALL: 0.632, LIVE: 0.701}, 0.0, 0.005)
LONG = Kind({ALL: 0.432, LIVE: 0.434}, 0.008, 0.012)
TUNED = Kind({ALL: 0.379, LIVE: 0.389}, 0.008, 0.012)
LONG_SAES, PAIR, SPREAD_EXPLAINED = 5, 0.005, 0.0003
C6 = (
    "two pools share 0.632 of all and 0.701 of live features, two of 5 SAEs trained longer 0.432 and 0.434, two SAEs trained on alike 0.379 and 0.389; pools explain 0.008 less than either; a product adds "
    "0.005 (a pool) or 0.012 (an SAE) to the shares of its pairs, a pair 0.005, and 0.0003 to what is explained (standard deviations): as in configs/pool.py, but that pools explain 0.0126 less than SAEs trained longer there, where the rule says no"
)


def power(claim: str, size: int, tables: int = TABLES) -> float:
    """Share of made-up studies of so many seeds, for C6 of so many independent pools, in which all intervals lie above their thresholds."""
    rng = np.random.default_rng(size)
    if claim in ("C1", "C6"):
        decides = _c1 if claim == "C1" else _c6
        return float(np.mean([decides(rng, size) for _ in range(tables)]))
    return _of_laws(rng, claim, size, tables)


def _of_laws(rng: np.random.Generator, claim: str, seeds: int, tables: int) -> float:
    holds = np.ones(tables, bool)
    for law in LAWS[claim].laws:
        for _ in range(law.parts):
            values_TS = law.margin + rng.normal(0, law.text, (tables, 1)) + rng.normal(0, law.spread, (tables, seeds))
            variance = values_TS.var(axis=1, ddof=1) / seeds + law.text**2
            squares = (values_TS.var(axis=1, ddof=1) / seeds) ** 2 / (seeds - 1)
            half = scipy.stats.t.ppf(0.5 + law.confidence / 2, variance**2 / squares) * np.sqrt(variance)
            holds &= values_TS.mean(axis=1) - half > 0
    return float(holds.mean())


def _c1(rng: np.random.Generator, seeds: int, features: int = 400) -> bool:
    kind_SF = rng.random((seeds, features))
    p_SF = np.where(kind_SF < 0.05, rng.uniform(0.2, 0.8, kind_SF.shape), np.where(kind_SF < 0.525, 0.02, 0.98))
    odds_SF, quality_S = np.log(p_SF) - np.log1p(-p_SF), rng.normal(0, 0.2, seeds)
    found_SSF = rng.random((seeds, seeds, features)) < 1 / (1 + np.exp(-(odds_SF[:, None] + quality_S[None, :, None])))
    found_SSF &= ~np.eye(seeds, dtype=bool)[:, :, None]
    every = np.ones((seeds, features), bool)
    reliability = aggregates.jackknifed(mixing.reliability(found_SSF, every), seeds, CONFIDENCE, null=None, unit="")
    middle = mixing.shares(found_SSF, every, [(0.2, 0.8)], CONFIDENCE)
    return bool(
        reliability.low is not None
        and reliability.low > RULES["c1_reliability"]
        and middle is not None
        and middle.high_I[0] < RULES["c1_middle"]
    )


def _c6(rng: np.random.Generator, groups: int) -> bool:
    """Whether all six differences of one made-up study lie above their margins."""
    units = tuple(f"group {g}" for g in range(groups))
    pooled, tuned = (_figures(rng, kind, units) for kind in (POOLED, TUNED))  # of the same groups
    long = _figures(rng, LONG, tuple(f"long {i}" for i in range(LONG_SAES)))
    margins = {ALL: RULES["c6_p"], LIVE: RULES["c6_p"], EXPLAINED: RULES["c6_explained"]}
    return all(
        side(products.difference(pooled, other, figure, CONFIDENCE).as_dict(), margin) == YES
        for other in (long, tuned)
        for figure, margin in margins.items()
    )


def _figures(rng: np.random.Generator, kind: Kind, units: tuple[str, ...]) -> Figures:
    """Figures of made-up products: what a product adds is the same in all its pairs and in both shares, what a pair adds is its own."""
    count = len(units)
    product_G = rng.normal(0, kind.product, count)
    shares = {}
    for name, mean in kind.shared.items():
        own_GG = np.triu(rng.normal(0, PAIR, (count, count)), 1)
        shares[name] = np.clip(mean + product_G[:, None] + product_G + own_GG + own_GG.T, 0, 1)
        np.fill_diagonal(shares[name], np.nan)
    explained_G = kind.explained + rng.normal(0, SPREAD_EXPLAINED, count)
    return Figures(units, (), shares[ALL], shares[LIVE], np.empty((count, 0)), explained_G, np.empty(count), {})


def table(tables: int = TABLES) -> dict[str, Any]:
    """What `power.json` holds: by claim its law in words, what sizes count, and the power by size."""
    words = {"C1": C1, "C6": C6} | {claim: stated.words for claim, stated in LAWS.items()}
    return {
        claim: {
            "law": words[claim],
            "size": GROUPS if claim == "C6" else SEEDS,
            "power": {str(s): power(claim, s, tables) for s in (POOLS if claim == "C6" else SIZES)},
        }
        for claim in sorted(words)
    }


def at_size(size: int, counted: str = SEEDS) -> dict[str, float]:
    """Power of every rule that a study of so many seeds, or pools, has: that of the largest size of the table that is no larger; {} below the least."""
    sizes = [s for s in (POOLS if counted == GROUPS else SIZES) if s <= size]
    claims = json.loads(FILE.read_text())
    return {claim: entry["power"][str(sizes[-1])] for claim, entry in claims.items() if entry["size"] == counted} if sizes else {}


def text(size: int, counted: str = SEEDS) -> str:
    """One line for `--plan`."""
    if not (values := at_size(size, counted)):
        least = "min_seeds" if counted == SEEDS else "c6_groups"
        return f"power: {size} {counted} decide no claim (config.claims.{least})"
    weak = [f"{claim} ({value:.2f})" for claim, value in values.items() if value < LEAST]
    warning = f"too small to tell: {', '.join(weak)}" if weak else ""
    strong = ", ".join(f"{claim} {value:.2f}" for claim, value in values.items() if value >= LEAST)
    figures = "; ".join(part for part in (warning, strong) if part)
    return f"power of the claims' rules at {size} {counted}, by the laws in experiments/robustness/power.json: {figures}"


def on_worlds() -> str:
    """One line for `--plan`: what was seen on trained worlds, which hold more than the figures of a law."""
    kinds = json.loads(WORLDS.read_text())
    yes = []
    for claim, entry in kinds.items():
        counts = {side: entry["true"][side] for side in ("yes", "no", "undecided")}
        yes.append(f"{claim} {counts['yes']} of {sum(counts.values())}" + f" (no {counts['no']})" * bool(counts["no"]))
    size = {entry["seeds"] for entry in kinds.values()}
    return f"power on trained worlds of {' and '.join(map(str, size))} SAEs, plateau aside: {', '.join(yes)}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--tables", type=int, default=TABLES)
    print(json.dumps(table(parser.parse_args().tables), indent=2))
