"""The sharding rules, on four devices of a CPU: in a process of its own, since the number of devices is fixed at the start."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from activations.language_model import cost, decoder, parameters
from activations.language_model.parameters import shapes
from activations.language_model.placement import Placement
from tests.activations.language_model.test_decoder import SMALL

ROOT = pathlib.Path(__file__).parents[3]

SCRIPT = """
import sys, pathlib, jax, numpy as np, jax.numpy as jnp
from activations.harvest import Harvest
from activations.language_model import checkpoint, decoder
from activations.language_model.placement import Placement
from activations.store import ActivationStore, StoreWriter
from activations.text.contexts import Contexts
from runtime.mesh import make_language_mesh
from tests.activations.language_model import small_models

root = pathlib.Path(sys.argv[1])
tokens = np.concatenate([small_models.tokens()] * 2)
places = Contexts(tokens, np.array([20, 7, 12, 20], np.int32), np.arange(4, dtype=np.int32), np.zeros(4, np.int32))


def harvested(folder, params, config, placement):
    writer = StoreWriter(folder, {"width": config.width, "dtype": "float32"})
    of = Harvest(params, config, 1, "mlp_out", 4, 4, placement=placement)
    of.run(places, writer, lambda n: None, lambda: None)
    writer.finish(1)
    return ActivationStore(folder).load()

for name in ("llama", "gemma2", "gpt2"):
    folder = small_models.write(root / name, name)
    config = checkpoint.load_config(folder)
    alone = checkpoint.load_params(folder, config)
    expected = decoder.next_token_nll(alone, config, jnp.asarray(tokens))
    whole = harvested(root / f"{name}-alone", alone, config, Placement.one_device())
    for model_parallel in (1, 2, 4):
        placement = Placement(make_language_mesh(model_parallel))
        params = checkpoint.load_params(folder, config, placement=placement)
        held = sum(s.data.nbytes for leaf in jax.tree.leaves(params) for s in leaf.addressable_shards if s.device.id == 0)
        batch = jax.device_put(tokens, placement.of_batch())
        found = jax.jit(lambda p, t: decoder.next_token_nll(p, config, t))(params, batch)
        np.testing.assert_allclose(found, expected, atol=2e-5 * float(expected.max()))
        rows = harvested(root / f"{name}-{model_parallel}", params, config, placement)
        np.testing.assert_allclose(rows.acts_ND, whole.acts_ND, atol=1e-5 * float(np.abs(whole.acts_ND).max()))
        assert (rows.token_N == whole.token_N).all()
        print(name, model_parallel, placement.data, held / sum(leaf.nbytes for leaf in jax.tree.leaves(alone)))
try:
    make_language_mesh(3)
except ValueError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_model_over_four_devices_computes_the_same(tmp_path):
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    *lines, last = done.stdout.splitlines()
    shares = {(name, int(parts)): (int(data), float(share)) for name, parts, data, share in (line.split() for line in lines)}
    for name in ("llama", "gemma2", "gpt2"):
        assert shares[name, 1] == (4, 1.0)
        assert shares[name, 2][0] == 2 and shares[name, 2][1] < 0.65
        assert shares[name, 4][0] == 1 and shares[name, 4][1] < shares[name, 2][1]
    assert last == "config.lm.model_parallel=3: must divide this host's 4 devices"


def test_rules():
    mesh = jax.make_mesh((1, 1, 1), ("seed", "data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    placement = Placement(mesh)
    spec = lambda *path: placement.of(path, _shape(path)).spec
    assert spec("layers", "q", "w") == P(None, None, "model") and spec("layers", "q", "b") == P(None, "model")
    assert spec("layers", "o", "w") == P(None, "model", None) and spec("layers", "o", "b") == P()
    assert (
        spec("layers", "attention_norm", "w") == P() and spec("embed", "w") == P("model", None) and spec("unembed", "w") == P(None, "model")
    )


def _shape(path):
    found = shapes(SMALL)
    for part in path:
        found = found[part]
    return found


def test_operations_are_those_that_xla_counts():
    """Of the matrix products and the attention; XLA also counts element-wise work, which is little in a wide model."""
    config = dataclasses.replace(SMALL, width=256, n_heads=4, n_kv_heads=4, head_width=64, mlp_width=1024)
    params = jax.eval_shape(lambda: parameters.init_params(jax.random.key(0), config))
    one = lambda p, h: decoder._one_layer(p, config, 0, h, decoder.shared(config, 128, None))
    compiled = jax.jit(one).lower(params, jax.ShapeDtypeStruct((4, 128, 256), jnp.float32)).compile()
    counted = compiled.cost_analysis()["flops"] / (4 * 128)
    for layer, site, layers in ((0, "resid_post", 1), (2, "mlp_act", 3), (2, "resid_pre", 2), (0, "resid_pre", 0)):
        assert cost.flops_per_token(config, layer, site, 128) == pytest.approx(layers * counted, rel=0.05)


def test_batches_are_sized_to_memory():
    per_context = cost.context_bytes(SMALL, 64, 4)
    for memory, expected in ((0, 1), (per_context, 1), (5 * per_context, 4), (10**12, 16)):
        assert cost.batch_size(SMALL, 64, 4, memory, 48) == expected
    assert cost.batch_size(SMALL, 64, 4, per_context, 48, data=4) == 4  # one on each device
