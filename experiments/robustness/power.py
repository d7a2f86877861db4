"""How often each rule would say yes, of studies of so many seeds in which the claim is true by a stated law.

    python -m experiments.robustness.power > experiments/robustness/power.json      # 500 made-up tables an entry, about five minutes on a core

Laws are of the figures that a rule reads: an effect, and how far the figures of single seeds lie apart. Where the paper names an effect it is the paper's;
the spread is that of the quickstart's eight seeds. `--plan` names rules whose power is below a half at a study's size.
"""

import argparse
import json
import math
import pathlib
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

from experiments.fields import fields_of
from reports.claims import Claims
from stability import aggregates, mixing

SIZES = (6, 8, 12, 16, 21, 32)  # seeds; what holds of the last is taken to hold of more
TABLES = 500
CONFIDENCE, LEAST = 0.95, 0.5
FILE = pathlib.Path(__file__).with_name("power.json")
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


def power(claim: str, seeds: int, tables: int = TABLES) -> float:
    """Share of made-up studies in which all intervals lie above their thresholds."""
    rng = np.random.default_rng(seeds)
    if claim == "C1":
        return float(np.mean([_c1(rng, seeds) for _ in range(tables)]))
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


def table(tables: int = TABLES) -> dict[str, Any]:
    """What `power.json` holds: by claim its law in words, and the power by number of seeds."""
    words = {"C1": C1} | {claim: stated.words for claim, stated in LAWS.items()}
    return {
        claim: {
            "law": words[claim],
            "power": {str(s): power(claim, s, tables) for s in SIZES},
        }
        for claim in sorted(words)
    }


def at_size(seeds: int) -> dict[str, float]:
    """Power of every rule that a study of so many seeds has: that of the largest size of the table that is no larger; {} below the least."""
    sizes = [s for s in SIZES if s <= seeds]
    claims = json.loads(FILE.read_text())
    return {claim: entry["power"][str(sizes[-1])] for claim, entry in claims.items()} if sizes else {}


def text(seeds: int) -> str:
    """One line for `--plan`."""
    if not (values := at_size(seeds)):
        return f"power: {seeds} seeds decide no claim (config.claims.min_seeds)"
    weak = [f"{claim} ({value:.2f})" for claim, value in values.items() if value < LEAST]
    warning = f"too small to tell: {', '.join(weak)}; " if weak else ""
    return f"power of the claims' rules at {seeds} seeds, by the laws in experiments/robustness/power.json: {warning}" + ", ".join(
        f"{claim} {value:.2f}" for claim, value in values.items() if value >= LEAST
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--tables", type=int, default=TABLES)
    print(json.dumps(table(parser.parse_args().tables), indent=2))
