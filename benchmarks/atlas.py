"""What the atlas and the diagnosis of a large study cost: their two kernels on a part of it, in turn with the matmul peak, in one run.

python -m benchmarks.atlas [--rows=16384 --width=512 --features=16384]
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks.timing import in_turn
from experiments.reappearance.labels import LabelRule
from experiments.subspaces.atlas import Atlas, rules_of
from stability import atlas, combinations, similarity

_ROWS = flags.DEFINE_integer("rows", 16_384, "Features of half of the seeds among which a search goes on.")
_WIDTH = flags.DEFINE_integer("width", 512, "Directions that are searched (atlas.directions).")
_FEATURES = flags.DEFINE_integer("features", 16_384, "Dictionary size of the diagnosis.")
_ANCHORS = flags.DEFINE_integer("anchors", 1024, "Features whose combinations are sought.")
_MODEL_WIDTH = flags.DEFINE_integer("model_width", 768, "Width of the diagnosed SAEs.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Measurements of each, in turn.")
SEEDS, FEATURES, NON_STABLE, UNSTABLE = 16, 2**14, 0.8, 0.4  # of the study whose cost is worked out


def main(argv: list[str]) -> None:
    del argv
    n, d, f, m, w = _ROWS.value, _WIDTH.value, _FEATURES.value, _ANCHORS.value, _MODEL_WIDTH.value
    rng = np.random.default_rng(0)
    unit = lambda *shape: similarity.unit_rows(rng.normal(size=shape).astype(np.float32))
    rows, anchors, others = unit(n, d), unit(m, w), unit(f, w)
    rules = rules_of(Atlas(), LabelRule(), d)
    square = jnp.asarray(rng.normal(size=(4096, 4096)), jnp.float32)
    product = jax.jit(functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST))
    ways = {
        "matmul, 4096 cubed": lambda: product(square, square),
        "one search": lambda: atlas.seek(rows, jnp.ones(n), rows[0], jnp.int32(d // 3), rules),
        "combinations": lambda: combinations.best_combinations(anchors, others),
    }
    seconds = in_turn(ways, _ROUNDS.value)
    peak = 2 * 4096**3 / seconds["matmul, 4096 cubed"]
    products = 3 * 2 * m * f * w
    print(f"{jax.devices()[0].device_kind}: matmul {peak / 1e12:.3g} TFLOP/s")
    print(f"one search among {n:,} rows of width {d}: {seconds['one search']:.2f} s")
    print(f"combinations of {m:,} features among {f:,} of width {w}: {products / seconds['combinations'] / peak:.0%} of the peak")
    searches = 2 * 16 * 3
    atlas_hours = searches * seconds["one search"] * SEEDS / 2 * FEATURES * NON_STABLE / n / 3600
    pairs_hours = 2 * SEEDS * (SEEDS - 1) * FEATURES * UNSTABLE / m * (FEATURES / f) * seconds["combinations"] / 3600
    print(
        f"extrapolated to {SEEDS} SAEs of F={FEATURES:,}: {searches} searches {atlas_hours:.1f} h (as many for every null draw); "
        f"combinations of the unstable, and by chance, {pairs_hours:.1f} h"
    )


if __name__ == "__main__":
    app.run(main)
