"""Stage: trains the embedded language model (AdamW, warm-up and cosine) and writes it in Hugging Face layout."""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from activations.language_model import checkpoint, decoder
from activations.language_model.block import Params
from activations.language_model.config import DecoderConfig, Rotary
from activations.language_model.parameters import init_params
from activations.loss import mean_nll
from activations.order import ShuffledOrder
from activations.text import contexts
from activations.text.tokenizer import load_tokenizer
from experiments.data.corpora import Text, text_source
from experiments.language_model.size import Pretrain
from experiments.stage import Outputs, Stage, Task
from runtime.checkpoints import Checkpoints
from runtime.loop import LoopPlan, run_loop
from runtime.metrics import MetricsWriter, WallTimes

STAGE = Stage(config=Pretrain, reads=(Text,), needs=("tokenizer",), training=True, guarded=True)


@flax.struct.dataclass
class State:
    params: Params
    opt_state: optax.OptState


def run(task: Task, out: Outputs) -> None:
    c, folder = task.section(Pretrain), task.folder
    text = text_source(task.section(Text)).read()
    tokenizer = load_tokenizer(task.path("tokenizer"))
    train = contexts.make_contexts(text.train, tokenizer, c.context_length)
    held_out = contexts.make_contexts(text.held_out, tokenizer, c.context_length)
    order = ShuffledOrder(len(train.length_N), c.seed)
    model = model_config(c)
    optimizer = make_optimizer(c)

    params = init_params(jax.random.key(c.seed, impl="threefry2x32"), model)
    state = State(params, optimizer.init(params))
    checkpoints = Checkpoints(folder / "checkpoints")
    restored = checkpoints.restore_latest(state)
    state, step = restored if restored else (state, 0)

    def load(first: int, count: int) -> tuple[jax.Array, jax.Array]:
        index = order.rows(first * c.batch_size, count * c.batch_size)
        tokens, lengths = train.tokens_NT[index], train.length_N[index]
        shape = (count, c.batch_size)
        result: tuple[jax.Array, jax.Array] = jax.device_put((tokens.reshape(*shape, -1), lengths.reshape(shape)))
        return result

    def on_state(step: int, state: State) -> dict[str, Any]:
        if step % c.eval_every and step != c.steps:
            return {}
        return {"held_out_nll": mean_nll(state.params, model, held_out)}

    state = run_loop(
        LoopPlan("pretrain", c.steps, c.steps_per_dispatch, c.checkpoint_every, c.batch_size * c.context_length),
        state,
        step,
        load=load,
        dispatch=functools.partial(jax.jit(train_steps, static_argnums=(0, 1), donate_argnums=2), model, optimizer),
        checkpoints=checkpoints,
        metrics=MetricsWriter(folder / "metrics.jsonl", step),
        walls=WallTimes(task.root / "wall_times.jsonl"),
        on_state=on_state,
        headline=lambda m: f"loss {m['loss']:.3f}" + (f", held out {m['held_out_nll']:.3f}" if "held_out_nll" in m else ""),
    )
    checkpoints.close()
    checkpoint.save(folder / "model", model, state.params, tokenizer.backend)
    model_files = [folder / "model" / name for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")]
    out.add(*model_files, folder / "metrics.jsonl")  # the card shows its course


def model_config(c: Pretrain) -> DecoderConfig:
    return DecoderConfig(
        family="gpt_neox",
        vocab_size=c.vocab_size,
        width=c.width,
        n_layers=c.n_layers,
        n_heads=c.n_heads,
        n_kv_heads=c.n_heads,
        head_width=c.width // c.n_heads,
        mlp_width=c.mlp_width,
        max_positions=c.max_positions,
        activation="gelu",
        norm_eps=1e-5,
        tied_embeddings=False,
        residual="parallel",
        rotary=(Rotary(int(c.width // c.n_heads * c.rotary_fraction), 10000.0),),
    )


def make_optimizer(c: Pretrain) -> optax.GradientTransformation:
    """AdamW(0.9, 0.95) behind a global-norm clip; decay on matrices only."""
    schedule = optax.warmup_cosine_decay_schedule(c.lr / c.warmup_steps, c.lr, c.warmup_steps, c.steps, c.lr * c.final_lr_fraction)

    # Stacked biases and norms have two axes (layer, width), stacked matrices three; embeddings two, and are decayed.
    def is_matrix(path: Any, leaf: Any) -> bool:
        return leaf.ndim >= 2 and path[-1].key == "w" and not any("norm" in str(getattr(k, "key", "")) for k in path)

    mask = functools.partial(jax.tree_util.tree_map_with_path, is_matrix)
    return optax.chain(
        optax.clip_by_global_norm(c.clip_norm),
        optax.adamw(schedule, b1=0.9, b2=0.95, weight_decay=c.weight_decay, mask=mask),
    )


def train_steps(
    model: DecoderConfig, optimizer: optax.GradientTransformation, state: State, batches: tuple[jax.Array, jax.Array]
) -> tuple[State, dict[str, jax.Array]]:
    """One optimizer step per batch; batches are (tokens (N, B, T), lengths (N, B)). Metrics are means over the N steps."""

    def loss_fn(params: Params, tokens_BT: jax.Array, length_B: jax.Array) -> jax.Array:
        nll_BU = decoder.next_token_nll(params, model, tokens_BT, unroll=True)
        real_BU = jnp.arange(1, tokens_BT.shape[1]) < length_B[:, None]
        return jnp.sum(nll_BU * real_BU) / jnp.sum(real_BU)

    def step(state: State, batch: tuple[jax.Array, jax.Array]) -> tuple[State, dict[str, jax.Array]]:
        loss, grads = jax.value_and_grad(loss_fn)(state.params, *batch)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics = {"loss": loss, "gradient_norm": optax.tree.norm(grads)}
        return State(optax.apply_updates(state.params, updates), opt_state), metrics

    state, metrics = jax.lax.scan(step, state, batches)
    return state, {name: jnp.mean(values) for name, values in metrics.items()}
