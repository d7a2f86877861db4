"""What a training step costs, ours and others' in turn, in one run: seed-tokens a second, share of the matmul peak, memory.

.venv-interop/bin/python -m benchmarks.train [--shapes=256x4096x2048x32x4,… --rounds=5 --steps=4 --json=FILE]      (`make bench`)

A shape is width × features × batch × k × seeds. Each contestant has a process of its own, with as many threads as this one may use, and waits while another
is measured. Work is the same for all: TopK, float32, Adam, unit decoder rows whose parallel gradient is removed, no auxiliary loss, rows in memory, every seed on
the same batch. The others train one SAE after the other. SAELens goes by its own trainer, which leaves
decoder rows as long as they are and scales codes by their length. Those that are not installed are left out, and said.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from typing import Any, NamedTuple

from absl import app, flags, logging

from benchmarks import contestants

_SHAPES = flags.DEFINE_list(
    "shapes", ["256x4096x2048x32x4", "768x16384x2048x64x2", "576x2048x1024x32x8"], "Width × features × batch × k × seeds."
)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Measurements of each, in turn.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 4, "Training steps of a measurement.", lower_bound=1)
_WARM = flags.DEFINE_integer("warm_up", 20, "Steps before the first measurement, at least.", lower_bound=1)
_ONLY = flags.DEFINE_list("only", [], "Contestants; all that are installed if empty.")
_SEEDS = flags.DEFINE_list("seeds", ["1", "2", "4", "8"], "Seeds at the first shape, of ours alone; empty: not measured.")
_JSON = flags.DEFINE_string("json", "", "File for the table.")
_CONTESTANT = flags.DEFINE_string(
    "contestant", "", "Runs this one at the first shape, as the benchmark asks it to (used by the benchmark itself)."
)

OURS, PEAK = "ours", "matmul"


class Shape(NamedTuple):
    """What is trained: width, features, tokens of a batch, active features of a token, seeds."""

    width: int
    features: int
    batch: int
    k: int
    seeds: int

    @property
    def flops(self) -> int:
        """Of a step of all seeds that cannot be done without: the encoder product, and four products with K codes a token."""
        return self.seeds * 2 * self.batch * self.width * (self.features + 4 * self.k)

    def __str__(self) -> str:
        return "x".join(map(str, self))


class Worker:
    """A contestant in a process of its own."""

    def __init__(self, name: str, shape: Shape):
        command = [
            sys.executable,
            "-m",
            "benchmarks.train",
            f"--contestant={name}",
            f"--shapes={shape}",
            f"--steps={_STEPS.value}",
            f"--warm_up={_WARM.value}",
        ]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._read()  # warm

    def seconds(self) -> float:
        """Of a step."""
        return float(self._ask("go")["seconds"])

    def end(self) -> int:
        """Bytes that the process held at most."""
        peak = int(self._ask("end")["peak"])
        self._process.wait()
        return peak

    def _ask(self, what: str) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        raise RuntimeError(f"a contestant ended with exit status {self._process.wait()}: {' '.join(map(str, self._process.args))}")


def serve(name: str, shape: Shape) -> None:
    """The other end: warms up, then runs steps whenever it is told to."""
    run = contestants.ALL[name].make(shape, _STEPS.value)
    for _ in range(-(-_WARM.value // _STEPS.value)):
        run()
    print("{}", flush=True)
    for line in sys.stdin:  # until the benchmark is gone
        if line.strip() == "end":
            print(json.dumps({"peak": contestants.peak_bytes()}), flush=True)
            return
        start = time.perf_counter()
        run()
        print(json.dumps({"seconds": (time.perf_counter() - start) / _STEPS.value}), flush=True)


def measured(names: list[str], shape: Shape) -> dict[str, dict[str, float]]:
    """By contestant the median, least and greatest seconds of a step, and the peak of memory; all have run in every round."""
    workers = {name: Worker(name, shape) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(_ROUNDS.value):
        for name, worker in workers.items():
            seconds[name].append(worker.seconds())
    return {
        name: {"median": statistics.median(s), "least": min(s), "greatest": max(s), "peak": workers[name].end()}
        for name, s in seconds.items()
    }


def rows(shape: Shape, times: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """A row a contestant."""
    peak = contestants.MATMUL_FLOPS / times[PEAK]["median"]
    return [
        {
            "shape": str(shape),
            "contestant": name,
            "ms": 1e3 * t["median"],
            "ms_least": 1e3 * t["least"],
            "ms_greatest": 1e3 * t["greatest"],
            "seed_tokens_a_second": shape.seeds * shape.batch / t["median"],
            "share_of_peak": shape.flops / t["median"] / peak,
            "memory_gb": t["peak"] / 1e9,
            "ours_is_faster_by": t["median"] / times[OURS]["median"],
        }
        for name, t in times.items()
        if name != PEAK
    ]


def main(argv: list[str]) -> None:
    del argv
    logging.set_verbosity(logging.WARNING)
    shapes = [Shape(*map(int, text.split("x"))) for text in _SHAPES.value]
    if _CONTESTANT.value:
        serve(_CONTESTANT.value, shapes[0])
        return
    names = [PEAK, *(name for name in contestants.ALL if name != PEAK and (not _ONLY.value or name in _ONLY.value or name == OURS))]
    for name in names[:]:
        if (missing := contestants.ALL[name].missing()) is not None:
            print(f"{name} is left out: {missing} is not installed here (make test-interop makes an environment that has it)")
            names.remove(name)
    table = []
    for shape in shapes:
        times = measured(names, shape)
        of_shape = rows(shape, times)
        table += of_shape
        _show(shape, of_shape, contestants.MATMUL_FLOPS / times[PEAK]["median"])
    per_seed = {int(s): measured([OURS], shapes[0]._replace(seeds=int(s)))[OURS]["median"] / int(s) for s in _SEEDS.value}
    if per_seed:
        print(
            f"\nours, ms a step and seed at {shapes[0].width} × {shapes[0].features}: "
            + ", ".join(f"S {s}: {1e3 * t:.1f}" for s, t in per_seed.items())
        )
    if _JSON.value:
        with open(_JSON.value, "w") as file:
            json.dump({"machine": machine(), "rows": table, "ms_per_seed": {s: 1e3 * t for s, t in per_seed.items()}}, file, indent=2)
            file.write("\n")


def _show(shape: Shape, table: list[dict[str, Any]], peak: float) -> None:
    print(f"\nD {shape.width}, F {shape.features}, B {shape.batch}, K {shape.k}, S {shape.seeds}; matmul peak {peak / 1e9:.0f} GFLOP/s")
    print(f"  {'':22} {'ms a step':>20} {'seed-tokens/s':>14} {'of the peak':>12} {'memory':>9} {'ours is':>9}")
    for r in table:
        print(
            f"  {r['contestant']:22} {r['ms']:7.0f} [{r['ms_least']:.0f}, {r['ms_greatest']:.0f}] {r['seed_tokens_a_second']:14,.0f} "
            f"{r['share_of_peak']:12.0%} {r['memory_gb']:6.2f} GB {r['ours_is_faster_by']:6.2f} ×"
        )


def machine() -> dict[str, Any]:
    """Where and with what this was measured."""
    model = platform.processor()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), model)
    versions = {}
    for package in ("jax", "torch", "eai-sparsify", "sae-lens"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {"cpu": model, "threads": contestants.threads(), "python": platform.python_version(), **versions}


if __name__ == "__main__":
    app.run(main)
