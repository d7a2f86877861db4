"""The result files of a finished run."""

from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from storage import files, tables

Estimated = Mapping[str, Any]  # a figure as `summary.json` holds it: value, low, high, null, n, unit


class Results:
    """What the stages left in a workdir.

    Attributes:
      summary: the figures by stage, as in `summary.json`.
    """

    def __init__(self, workdir: epath.Path, stages: Sequence[str]):
        """`stages`: of the config; what others left in the workdir is not shown."""
        self.workdir, self._stages = workdir, tuple(stages)
        summary = {stage: self.json(f"{stage}/summary.json") for stage in self._stages if self.has(f"{stage}/summary.json")}
        self.summary: dict[str, Any] = summary

    @property
    def tokens(self) -> int:
        """Training tokens of each SAE; 0 where nobody knows."""
        return int(self.summary.get("plateau", {}).get("tokens", 0))

    def earlier(self) -> "list[Earlier]":
        """The same figures of SAEs as they were at a quarter and at half of their training, where the stage `plateau` measured them."""
        return [Earlier(point["tokens"], point["stages"]) for point in self.summary.get("plateau", {}).get("points", [])]

    def control(self) -> "Earlier | None":
        """The same of SAEs whose training ended at half the tokens, learning rate and all, where there are such."""
        point = self.summary.get("plateau", {}).get("control")
        return None if point is None else Earlier(point["tokens"], point["stages"])

    def end(self) -> "Results":
        """The figures that those along training are held against: where these are of fewer features, so are they at the end."""
        figures = self.summary.get("plateau", {}).get("end")
        return self if figures is None else Earlier(self.tokens, self.summary | figures)

    def has(self, name: str) -> bool:
        return name.split("/")[0] in self._stages and (self.workdir / name).exists()

    def json(self, name: str) -> Any:
        return files.read_json(self.workdir / name)

    def table(self, name: str, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """A Parquet table as records, of all columns or those named. Raises ValueError naming a damaged file."""
        return tables.read_records(self.workdir / name, columns)

    def columns(self, name: str, columns: Sequence[str]) -> dict[str, Any]:
        """Those columns of a Parquet table as arrays, without a record a row."""
        return tables.read_table(self.workdir / name, columns)

    def metrics(self, stage: str) -> list[dict[str, Any]]:
        return files.read_json_lines(self.workdir / stage / "metrics.jsonl")

    def figure(self, name: str) -> dict[str, Any]:
        """An estimate by its path in the summary, as `stability.mean_p_live`."""
        stage, key = name.split(".", 1)
        result: dict[str, Any] = self.summary[stage][key]
        return result


class Earlier(Results):
    """Figures of SAEs as they were earlier in training; no tables."""

    def __init__(self, tokens: int, summary: dict[str, Any]):
        self._tokens, self.summary, self._stages = tokens, summary, tuple(summary)

    @property
    def tokens(self) -> int:
        return self._tokens

    def has(self, name: str) -> bool:
        return False
