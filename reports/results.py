"""The result files of a finished run."""

import json
import math
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath


class Results:
    """What the stages left in a workdir.

    Attributes:
      summary: the figures by stage, as in `summary.json`.
    """

    def __init__(self, workdir: epath.Path):
        self.workdir = workdir
        found = {stage: self.json(f"{stage}/summary.json") for stage in ("stability", "subspace") if self.has(f"{stage}/summary.json")}
        self.summary: dict[str, Any] = found

    def has(self, name: str) -> bool:
        return (self.workdir / name).exists()

    def json(self, name: str) -> Any:
        return json.loads((self.workdir / name).read_text())

    def table(self, name: str) -> list[dict[str, Any]]:
        """A Parquet table as records. Raises ValueError naming a damaged file."""
        path = self.workdir / name
        try:
            return pq.read_table(pa.BufferReader(path.read_bytes())).to_pylist()
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path} is damaged: not Parquet ({error})") from error

    def rise_per_doubling(self) -> float | None:
        """By how much p̂ (all features) rose per doubling of training tokens between the last two dictionaries; None without them."""
        if not self.has("stability/tokens_curve.parquet"):
            return None
        trained = [row for row in self.table("stability/tokens_curve.parquet") if row["tokens"] > 0]
        if len(trained) < 2:
            return None
        a, b = trained[-2:]
        return (b["p"] - a["p"]) / math.log2(b["tokens"] / a["tokens"])

    def metrics(self, stage: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.workdir / stage / "metrics.jsonl").read_text().splitlines()]

    def figure(self, name: str) -> dict[str, Any]:
        """An estimate by its path in the summary, as `stability.mean_p_live`."""
        stage, key = name.split(".")
        return self.summary[stage][key]
