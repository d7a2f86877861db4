"""Who is measured by `benchmarks/train.py`: a step of ours, of others, and the matmul that gives the peak, each set up in a process of its own.

Every one trains the shape's SAEs on the same stream of standard normal rows. Imports stand in functions: a process loads its own library alone.
"""

import importlib.util
import os
import resource
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Step = Callable[[], None]  # runs as many steps as were asked for, and waits for them
LR = 1e-3
N = 4096
MATMUL_FLOPS = 2 * N**3  # of a step of `matmul`


class Contestant(NamedTuple):
    """One of them.

    Attributes:
      make: (shape, steps) → what runs as many steps.
      packages: that it needs.
    """

    make: Callable[[Any, int], Step]
    packages: tuple[str, ...] = ()

    def missing(self) -> str | None:
        """A package that is not installed; None if all are."""
        return next((name for name in self.packages if importlib.util.find_spec(name) is None), None)


def threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def peak_bytes() -> int:
    """Memory that this process held at most, with its libraries."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def rows(shape: Any, steps: int) -> np.ndarray:
    """(steps, B, D)."""
    return np.random.default_rng(0).normal(size=(steps, shape.batch, shape.width)).astype(np.float32)


def _matmul(shape: Any, steps: int) -> Step:
    del shape
    import jax
    import jax.numpy as jnp

    square = jnp.asarray(np.random.default_rng(0).normal(size=(N, N)), jnp.float32)
    product = jax.jit(jnp.matmul)

    def run() -> None:
        for _ in range(steps):
            product(square, square).block_until_ready()

    return run


def _ours(shape: Any, steps: int) -> Step:
    import jax
    import jax.numpy as jnp

    from runtime.mesh import make_mesh
    from saes import capacity
    from saes.autoencoder import Knobs
    from saes.config import SAEConfig, TrainConfig
    from saes.lanes import init_lanes, initial_keys, make_train_steps, plan_lanes

    sae = SAEConfig(variant="topk", n_features=shape.features, k=shape.k, aux_weight=0.0)
    train = TrainConfig(batch_size=shape.batch, steps_per_dispatch=steps)
    devices, platform = jax.device_count(), jax.devices()[0].platform
    width = capacity.choose(shape.seeds, sae, train, shape.width, devices, platform, capacity.device_memory()).width
    plan, mesh = plan_lanes(shape.seeds, devices, width), make_mesh()
    lanes = len(plan.members)
    knobs = Knobs(lr=jnp.full(lanes, LR), k=jnp.full(lanes, sae.k, jnp.int32), sparsity=jnp.zeros(lanes), decoder_rate=jnp.ones(lanes))
    held = [init_lanes(sae, train, mesh, initial_keys(np.arange(lanes)), knobs, jnp.zeros((lanes, shape.width)))]
    batches, step = jnp.asarray(rows(shape, steps)), make_train_steps(plan, sae, train, mesh)

    def run() -> None:
        held[0], metrics = step(held[0], batches)
        jax.block_until_ready((held[0], metrics))

    return run


def _torch() -> Any:
    """The library, with as many threads as the others have."""
    import torch

    torch.set_num_threads(threads())
    torch.manual_seed(0)
    return torch


def _sparsify(shape: Any, steps: int) -> Step:
    """The step of its trainer (`sparsify/trainer.py`), SAE after SAE, with Adam."""
    torch = _torch()
    from sparsify import SparseCoder, SparseCoderConfig

    saes = [SparseCoder(shape.width, SparseCoderConfig(num_latents=shape.features, k=shape.k)) for _ in range(shape.seeds)]
    optimizers = [torch.optim.Adam(sae.parameters(), lr=LR) for sae in saes]
    batches = torch.from_numpy(rows(shape, steps))

    def run() -> None:
        for x in batches:
            for sae, optimizer in zip(saes, optimizers, strict=True):
                sae.set_decoder_norm_to_unit_norm()
                sae(x).fvu.backward()
                sae.remove_gradient_parallel_to_decoder_directions()
                optimizer.step()
                optimizer.zero_grad()

    return run


def _saelens(shape: Any, steps: int) -> Step:
    """The step of its trainer of many SAEs (`sae_lens/training/multi_sae_trainer.py`)."""
    torch = _torch()
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.multi_sae_trainer import MultiSAETrainer

    config = TopKTrainingSAEConfig(d_in=shape.width, d_sae=shape.features, k=shape.k, aux_loss_coefficient=0.0)
    saes = {str(i): TopKTrainingSAE(config) for i in range(shape.seeds)}
    plan = SAETrainerConfig(total_training_samples=10**9, train_batch_size_samples=shape.batch, lr=LR, lr_end=LR)
    trainers = MultiSAETrainer(plan, saes, dict.fromkeys(saes, "rows"), iter(())).trainers
    batches = torch.from_numpy(rows(shape, steps))

    def run() -> None:
        for x in batches:
            for trainer in trainers.values():
                trainer.step(x)
                trainer.n_training_steps += 1

    return run


def _plain(shape: Any, steps: int) -> Step:
    """TopK as one would write it: dense codes, autograd, SAE after SAE."""
    torch = _torch()

    def of_one() -> tuple[Any, Any]:
        decoder = torch.nn.functional.normalize(torch.randn(shape.features, shape.width), dim=1)
        parameters = (decoder.T.clone(), torch.zeros(shape.features), decoder, torch.zeros(shape.width))
        parameters = tuple(p.requires_grad_() for p in parameters)
        return parameters, torch.optim.Adam(parameters, lr=LR)

    saes = [of_one() for _ in range(shape.seeds)]
    batches = torch.from_numpy(rows(shape, steps))

    def run() -> None:
        for x in batches:
            for (w_enc, b_enc, w_dec, b_dec), optimizer in saes:
                values, places = torch.topk((x - b_dec) @ w_enc + b_enc, shape.k, dim=1)
                codes = torch.zeros(shape.batch, shape.features).scatter(1, places, torch.relu(values))
                (codes @ w_dec + b_dec - x).square().sum(1).mean().backward()
                with torch.no_grad():
                    w_dec.grad -= (w_dec.grad * w_dec).sum(1, keepdim=True) * w_dec
                optimizer.step()
                optimizer.zero_grad()
                with torch.no_grad():
                    w_dec /= w_dec.norm(dim=1, keepdim=True)

    return run


ALL = {
    "matmul": Contestant(_matmul),
    "ours": Contestant(_ours),
    "sparsify": Contestant(_sparsify, ("torch", "sparsify")),
    "SAELens, multi-SAE": Contestant(_saelens, ("torch", "sae_lens")),
    "torch, plain TopK": Contestant(_plain, ("torch",)),
}
