"""The max-cosine kernel against NumPy's `(A @ B.T).max(1)` and against the matmul peak, in turn, in one run; and what a large study costs.

python -m benchmarks.match [--features=16384 --width=768]

Memory is the peak above what a process holds with both dictionaries in place, each way in a process of its own (Linux).
"""

import functools
import pathlib
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks.timing import in_turn
from stability import matching, similarity

_FEATURES = flags.DEFINE_integer("features", 16_384, "Dictionary size.")
_WIDTH = flags.DEFINE_integer("width", 768, "Width.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Measurements of each, in turn.")
_SEEDS = flags.DEFINE_integer("study_seeds", 96, "SAEs of the study whose cost is worked out.")
_MEMORY_OF = flags.DEFINE_enum(
    "memory_of", None, ["kernel", "numpy"], "Prints the extra memory of one way and ends (used by the benchmark itself)."
)


def dictionaries(features: int, width: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [np.asarray(similarity.unit_rows(rng.normal(size=(features, width)).astype(np.float32))) for _ in range(2)]


def straightforward(a_FD: np.ndarray, b_GD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maximum and its place, one direction."""
    cosine = a_FD @ b_GD.T
    return cosine.max(1), cosine.argmax(1)


def main(argv: list[str]) -> None:
    del argv
    f, d = _FEATURES.value, _WIDTH.value
    if _MEMORY_OF.value:
        print(_extra_bytes(_MEMORY_OF.value, f, d))
        return
    a, b = dictionaries(f, d)
    a_dev, b_dev = jnp.asarray(a), jnp.asarray(b)
    n = 4096
    square = jnp.asarray(np.random.default_rng(0).normal(size=(n, n)), jnp.float32)
    product = jax.jit(functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST))
    ways = {
        "matmul, 4096 cubed": lambda: product(square, square),
        "kernel, both directions": lambda: similarity.best_match(a_dev, b_dev),
        "kernel with 10 thresholds": lambda: similarity.best_match(a_dev, b_dev, thresholds=tuple(np.linspace(0.5, 0.95, 10))),
        "NumPy (A @ B.T).max(1)": lambda: (a @ b.T).max(1),
        "NumPy max and argmax, both": lambda: (straightforward(a, b), straightforward(b, a)),
    }
    if jax.devices()[0].platform != "cpu":
        ways = {name: way for name, way in ways.items() if not name.startswith("NumPy")}
    seconds = in_turn(ways, _ROUNDS.value)
    operations = dict.fromkeys(ways, 2.0 * f * f * d) | {"matmul, 4096 cubed": 2.0 * n**3}
    peak = operations["matmul, 4096 cubed"] / seconds["matmul, 4096 cubed"]
    print(f"\nF = {f}, D = {d}, {jax.devices()[0].device_kind}")
    for name, s in seconds.items():
        rate = operations[name] / s
        print(f"  {name:28} {s:8.3f} s   {rate / 1e9:8.0f} GF/s of the product   {rate / peak:5.0%} of the matmul peak")
    if jax.devices()[0].platform == "cpu":
        extra = {way: _in_a_process_of_its_own(way, f, d) for way in ("kernel", "numpy")}
        print(
            f"  memory beyond the dictionaries: kernel {extra['kernel'] / 2**20:.0f} MiB, NumPy {extra['numpy'] / 2**20:.0f} MiB, 1 : {extra['numpy'] / extra['kernel']:.1f}"
        )
    _one_to_one(a, b)
    _study(seconds["kernel, both directions"], f, d)


def _one_to_one(a: np.ndarray, b: np.ndarray) -> None:
    """Of dictionaries that share half of their rows up to noise."""
    half = len(a) // 2
    noisy = np.asarray(similarity.unit_rows(np.concatenate([a[:half] + 0.5 * b[:half], b[half:]])))
    start = time.perf_counter()
    found = matching.one_to_one(a, noisy[np.random.default_rng(1).permutation(len(a))])
    print(f"  one to one: {time.perf_counter() - start:.1f} s, mean cosine {found.mean():.4f}, the best has at most {found.gap:.1e} more")


def _study(seconds_a_pair: float, f: int, d: int) -> None:
    """What all pairs of a study take: linear in pairs."""
    s = _SEEDS.value
    pairs = s * (s - 1) // 2
    print(
        f"  {s} dictionaries: {pairs} pairs, {2.0 * f * f * d * pairs:.2g} operations, {seconds_a_pair * pairs / 3600:.2f} h at this rate (extrapolated)"
    )
    print(f"  results {2 * 4 * s * s * f / 2**30:.1f} GiB, dictionaries {4 * s * f * d / 2**30:.1f} GiB")
    if jax.devices()[0].platform != "cpu":
        rows = jax.random.normal(jax.random.key(0), (s, f, d))
        start = time.perf_counter()
        similarity.all_pairs(rows)
        print(f"  all of them, measured: {time.perf_counter() - start:.1f} s")


def _in_a_process_of_its_own(way: str, f: int, d: int) -> int:
    command = [sys.executable, "-m", "benchmarks.match", f"--memory_of={way}", f"--features={f}", f"--width={d}"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _extra_bytes(way: str, f: int, d: int) -> int:
    """Peak resident memory while it runs, less what was resident before (Linux)."""
    a, b = dictionaries(f, d)
    a_dev, b_dev = jnp.asarray(a), jnp.asarray(b)
    jax.block_until_ready(similarity.best_match(a_dev[:8], b_dev[:8]))  # what a first call loads
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status("VmRSS")
    if way == "kernel":
        jax.block_until_ready(similarity.best_match(a_dev, b_dev))
    else:
        (a @ b.T).max(1)
    return _status("VmHWM") - before


def _status(field: str) -> int:
    return next(
        int(line.split()[1]) * 1024 for line in pathlib.Path("/proc/self/status").read_text().splitlines() if line.startswith(field)
    )


if __name__ == "__main__":
    app.run(main)
