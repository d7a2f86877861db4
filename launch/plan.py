"""What a study will cost, before anything runs: operations, bytes moved, disk, memory, hours. `--plan` prints it.

Time of a stage = operations / (rate of matrix products × the share of it that the stage reaches) + bytes moved / bandwidth.
Rates are measured on the device at hand in a moment, or are the published ones of `DEVICES`; what a stage does and the shares are in
`launch/costs.py`, with where they come from.  What is small is left out: the text, the null models' decompositions, subspaces, the
transfer classifiers, the report.
"""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from etils import epath

from launch import device
from launch.costs import GIB, SHARES, STARTING_SECONDS, Cost, Hardware, of_stages
from launch.device import Speed
from saes import capacity


class Device(NamedTuple):
    """An accelerator by its data sheet.

    Attributes:
      name: for people.
      exact, float32, bfloat16: multiplications and additions a second in dense matrix products: of float32 at the highest precision
        (on TPUs six passes in bfloat16), at the default (GPUs multiply in TF32, TPUs in bfloat16), and of bfloat16.
      bytes: memory bandwidth a second.
      memory: bytes.
      platform: as JAX calls it.
    """

    name: str
    exact: float
    float32: float
    bfloat16: float
    bytes: float
    memory: int
    platform: str


DEVICES = {
    "a100": Device("NVIDIA A100 80 GB", 19.5e12, 156e12, 312e12, 2.04e12, 80 * GIB, "gpu"),
    "h100": Device("NVIDIA H100 SXM", 67e12, 495e12, 989e12, 3.35e12, 80 * GIB, "gpu"),
    "h200": Device("NVIDIA H200", 67e12, 495e12, 989e12, 4.8e12, 141 * GIB, "gpu"),
    "tpu-v4": Device("TPU v4 chip", 46e12, 275e12, 275e12, 1.23e12, 32 * GIB, "tpu"),
    "tpu-v5e": Device("TPU v5e chip", 33e12, 197e12, 197e12, 0.82e12, 16 * GIB, "tpu"),
    "tpu-v5p": Device("TPU v5p chip", 77e12, 459e12, 459e12, 2.77e12, 95 * GIB, "tpu"),
    "tpu-v6e": Device("TPU v6e chip", 153e12, 918e12, 918e12, 1.64e12, 32 * GIB, "tpu"),
}


def hardware(name: str, dtype: str) -> Hardware:
    """The device at hand (""), or a published one, e.g. "h100" or "tpu-v5e:8". Raises ValueError for an unknown one."""
    if not name:
        found = jax.devices()
        return Hardware(
            found[0].device_kind, len(found), found[0].platform, capacity.device_memory(), device.measure(jnp.dtype(dtype)), True
        )
    kind, _, count = name.partition(":")
    if kind not in DEVICES or not re.fullmatch("[1-9][0-9]*", count or "1"):
        raise ValueError(f"--plan_on={name}: one of {', '.join(DEVICES)}, with a number of them behind a colon")
    of = DEVICES[kind]
    speed = Speed(of.bfloat16 if dtype == "bfloat16" else of.exact, of.float32, of.exact, of.bytes)
    return Hardware(of.name, int(count or 1), of.platform, int(capacity.SHARE * of.memory), speed, False)


def seconds(one: Cost, of: Hardware) -> float:
    """Expected of one stage."""
    share = SHARES["cpu" if of.platform == "cpu" else "accelerator"][one.kind]
    rate = {"activations": of.speed.language_model, "train": of.speed.training, "match": of.speed.measuring}[one.kind]
    return STARTING_SECONDS + one.host + (one.flops / (share * rate) + one.moved / of.speed.bytes) / of.devices


def text(config: Any, of: Hardware) -> str:
    """The whole plan, as it is printed."""
    found = of_stages(config, of)
    speed = "measured now" if of.measured else "published; what a run reaches of it is assumed"
    s, k = config.sae, len(config.seed_list)
    lines = [
        f"{k} {s.variant} SAEs, F={s.n_features:,}, K={s.k}, {config.train.tokens:,} tokens each, on {_subject(config)}",
        f"on {of.devices} × {of.name}: matrix products of the language model {_rate(of.speed.language_model)}, of training {_rate(of.speed.training)}, "
        f"of comparisons {_rate(of.speed.measuring)}; memory {of.speed.bytes / 1e9:,.0f} GB/s ({speed})",
        "",
        f"{'stage':12} {'tokens':>9} {'FLOP':>9} {'moved':>10} {'on disk':>10} {'memory':>10} {'time':>10}",
    ]
    for one in found:
        lines.append(
            f"{one.stage:12} {_number(one.tokens):>9} {one.flops:9.1e} {_size(one.moved):>10} {_size(one.disk):>10} "
            f"{_size(one.memory):>10} {_time(seconds(one, of)):>10}" + (f"  {one.note}" if one.note else "")
        )
    total = sum(seconds(one, of) for one in found)
    lines.append(
        f"{'all':12} {'':9} {sum(c.flops for c in found):9.1e} {_size(sum(c.moved for c in found)):>10} {_size(sum(c.disk for c in found)):>10} "
        f"{_size(max((c.memory for c in found), default=0)):>10} {_time(total):>10}"
    )
    return "\n".join(lines)


def _subject(config: Any) -> str:
    c = config.source
    shape = f" (shape of {config.lm.config_from})" if config.lm.config_from and not epath.Path(config.lm.path).exists() else ""
    missing = " (not there yet)" if c.text and not epath.Path(c.text).exists() else ""
    return (
        c.activations
        or f"{config.lm.path}{shape} layer {c.layer} {c.site}, up to {c.tokens:,} rows of {c.text or 'the standard library'}{missing}"
    )


def _rate(value: float) -> str:
    return f"{value / 1e12:.3g} TFLOP/s"


def _number(value: float) -> str:
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g} {name}"
    return f"{value:.0f}"


def _size(value: float) -> str:
    for unit, name in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if value >= unit:
            return f"{value / unit:.3g} {name}"
    return f"{value / 1e3:.0f} kB"


def _time(value: float) -> str:
    if value >= 2 * 86_400:
        return f"{value / 86_400:.1f} days"
    return f"{value / 3600:.1f} h" if value >= 3600 else f"{value / 60:.1f} min" if value >= 90 else f"{value:.1f} s"
