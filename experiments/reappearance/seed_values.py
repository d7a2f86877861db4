"""Figures of seeds whose labels depend on the other seeds, and their means with intervals from leaving out one seed at a time."""

from typing import Any

import numpy as np

from stability import aggregates
from stability.aggregates import seed_mean
from stability.estimates import Estimate

Key = tuple[Any, ...]


class Values:
    """Figures by key, of every seed and of every sample of seeds: of all, and with each one left out of the comparisons.

    A figure that does not change with the labels, or is too dear to be measured again for each sample, is given once (`fixed`).

    Args:
      seeds: how many.
      confidence: of intervals.
      unit: of estimates that are not told another.
    """

    def __init__(self, seeds: int, confidence: float, unit: str):
        self.seeds, self._confidence, self._unit = seeds, confidence, unit
        self._figures: dict[Key, np.ndarray] = {}  # (left out, seed); the last row: none
        self._without_document: dict[int, dict[Key, np.ndarray]] = {}  # by document, (seed,)
        self._of_block: dict[int, dict[Key, np.ndarray]] = {}

    def samples(self, seed: int) -> list[int | None]:
        """Who is left out where this seed is measured; None: nobody."""
        return [None, *(k for k in range(self.seeds) if k != seed)]

    def put(self, seed: int, excluded_seed: int | None, figures: dict[Key, float]) -> None:
        row = self.seeds if excluded_seed is None else excluded_seed
        for key, value in figures.items():
            self._figures.setdefault(key, np.full((self.seeds + 1, self.seeds), np.nan))[row, seed] = value

    def fixed(self, seed: int, figures: dict[Key, float]) -> None:
        for excluded_seed in self.samples(seed):
            self.put(seed, excluded_seed, figures)

    def without_document(self, seed: int, document: int, figures: dict[Key, float]) -> None:
        """Figures under the labels that all seeds give, from all text but one document."""
        self._put(self._without_document, seed, document, figures)

    def of_block(self, seed: int, block: int, figures: dict[Key, float]) -> None:
        """The same from one of several equal blocks of the text alone."""
        self._put(self._of_block, seed, block, figures)

    def _put(self, tables: dict[int, dict[Key, np.ndarray]], seed: int, place: int, figures: dict[Key, float]) -> None:
        table = tables.setdefault(place, {})
        for key, value in figures.items():
            table.setdefault(key, np.full(self.seeds, np.nan))[seed] = value

    def keys(self, first: str) -> list[Key]:
        """Those that begin so, in the order in which they came."""
        return [key for key in self._figures if key[0] == first]

    def of_seeds(self, key: Key) -> np.ndarray:
        """(S,) under the labels that all seeds give; NaN where there is none."""
        return self._figures[key][-1] if key in self._figures else np.full(self.seeds, np.nan)

    def value(self, key: Key) -> float | None:
        """Mean over seeds under the labels that all give; None where there is none."""
        values_S = self.of_seeds(key)
        return float(np.nanmean(values_S)) if np.isfinite(values_S).any() else None

    def mean(self, key: Key, **options: Any) -> Estimate:
        return self.estimate(lambda place: place(key), **options)

    def ratio(self, one: Key, other: Key, **options: Any) -> Estimate:
        return self.estimate(lambda place: place(one) / place(other) if place(other) > 0 else float("nan"), **options, log=True)

    def difference(self, one: Key, other: Key, **options: Any) -> Estimate:
        return self.estimate(lambda place: place(one) - place(other), **options)

    def estimate(self, statistic: Any, **options: Any) -> Estimate:
        """`statistic` of a function from keys to means over a sample of seeds; `options` as of `aggregates.jackknifed`.

        The variance is that of seeds, text fixed, and, where figures of parts of the text were put in, that of documents, seeds fixed.
        """

        def of_sample(weights_S: np.ndarray) -> float:
            row = self.seeds if weights_S.all() else int(np.argmin(weights_S))
            return float(statistic(lambda key: seed_mean(self._figures[key][row], weights_S) if key in self._figures else float("nan")))

        options = {"null": None, "unit": self._unit, "confidence": self._confidence} | options
        return aggregates.jackknifed(of_sample, self.seeds, **options, documents=self._without_documents(statistic))

    def _without_documents(self, statistic: Any) -> list[float]:
        """The figure without each part of the text, seeds fixed; [] where no part was looked at by itself, or the figure does not change with text."""
        tables = list(self._without_document.values()) or self._without_blocks()
        all_weights = np.ones(self.seeds)

        changing = {key for table in tables for key in table}
        nothing = np.full(self.seeds, np.nan)

        def of_part(table: dict[Key, np.ndarray]) -> float:
            mean = lambda key: seed_mean(table.get(key, nothing) if key in changing else self.of_seeds(key), all_weights)
            return float(statistic(mean))

        values = [of_part(table) for table in tables]
        return [] if len(values) < 2 or min(values) == max(values) else values

    def _without_blocks(self) -> list[dict[Key, np.ndarray]]:
        """Of blocks that were looked at alone, means over the others."""
        blocks = list(self._of_block.values())
        keys = dict.fromkeys(key for table in blocks for key in table)
        nothing = np.full(self.seeds, np.nan)
        stacked = {key: np.stack([table.get(key, nothing) for table in blocks]) for key in keys}

        def mean(values_NS: np.ndarray) -> np.ndarray:
            there = np.isfinite(values_NS)
            with np.errstate(invalid="ignore"):
                return np.asarray(np.where(there, values_NS, 0.0).sum(axis=0) / there.sum(axis=0))

        return [{key: mean(np.delete(values_NS, i, axis=0)) for key, values_NS in stacked.items()} for i in range(len(blocks))]
