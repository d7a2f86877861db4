"""The result files of a finished run."""

import math
from typing import Any

from etils import epath

from storage import files, tables


class Results:
    """What the stages left in a workdir.

    Attributes:
      summary: the figures by stage, as in `summary.json`.
    """

    def __init__(self, workdir: epath.Path):
        self.workdir = workdir
        found = {
            stage: self.json(f"{stage}/summary.json")
            for stage in ("stability", "subspace", "recovery")
            if self.has(f"{stage}/summary.json")
        }
        self.summary: dict[str, Any] = found

    def has(self, name: str) -> bool:
        return (self.workdir / name).exists()

    def json(self, name: str) -> Any:
        return files.read_json(self.workdir / name)

    def table(self, name: str) -> list[dict[str, Any]]:
        """A Parquet table as records. Raises ValueError naming a damaged file."""
        return tables.read_records(self.workdir / name)

    def rise_per_doubling(self) -> float | None:
        """By how much p̂ (all features) changed per doubling of training tokens between the last two dictionaries.

        None without two of them whose p̂ lies above the strongest null: where nothing has begun there is no plateau.
        """
        if not self.has("stability/tokens_curve.parquet"):
            return None
        chance = self.figure("stability.mean_p_all")["null"]
        begun = [r for r in self.table("stability/tokens_curve.parquet") if r["tokens"] > 0 and (r["p_low"] or 0.0) > chance]
        if len(begun) < 2:
            return None
        a, b = begun[-2:]
        return (b["p"] - a["p"]) / math.log2(b["tokens"] / a["tokens"])

    def metrics(self, stage: str) -> list[dict[str, Any]]:
        return files.read_json_lines(self.workdir / stage / "metrics.jsonl")

    def figure(self, name: str) -> dict[str, Any]:
        """An estimate by its path in the summary, as `stability.mean_p_live`."""
        stage, key = name.split(".", 1)
        return self.summary[stage][key]
