"""What a study will cost, before anything runs: operations, bytes moved, disk, memory, hours. `--plan` prints it.

Time of a stage = operations / (rate of matrix products × the share of it that the stage reaches) + bytes moved / bandwidth.
Rates are measured on the device at hand in a moment, or are the published ones of `DEVICES`; what a stage does and the shares are in
the `cost` of each, with where they come from.  What is small is left out: the text, the null models' decompositions, subspaces, the
transfer classifiers, the report.
"""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
from etils import epath

from experiments import registry
from experiments.data import costs
from experiments.data.corpora import Text
from experiments.data.costs import GIB, SHARES, STARTING_SECONDS, Cost, Hardware
from experiments.data.harvesting import Harvesting
from experiments.data.language_model import LanguageModel
from experiments.data.own_arrays import OwnRows
from experiments.data.seeds import Seeds
from experiments.pooling.pools import Pooling
from experiments.robustness import power
from experiments.settings import Settings
from runtime import device
from runtime.device import Speed
from saes import capacity
from saes.config import SAEConfig, TrainConfig
from synthetic.config import WorldConfig


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
        devices = jax.devices()
        return Hardware(
            devices[0].device_kind, len(devices), devices[0].platform, capacity.device_memory(), device.measure(jnp.dtype(dtype)), True
        )
    kind, _, count = name.partition(":")
    if kind not in DEVICES or not re.fullmatch("[1-9][0-9]*", count or "1"):
        raise ValueError(f"--plan_on={name}: one of {', '.join(DEVICES)}, with a number of them behind a colon")
    entry = DEVICES[kind]
    speed = Speed(entry.bfloat16 if dtype == "bfloat16" else entry.exact, entry.float32, entry.exact, entry.bytes)
    return Hardware(entry.name, int(count or 1), entry.platform, int(capacity.SHARE * entry.memory), speed, False)


def seconds(one: Cost, device_used: Hardware) -> float:
    """Expected of one stage."""
    share = SHARES["cpu" if device_used.platform == "cpu" else "accelerator"][one.kind]
    rate = {"activations": device_used.speed.language_model, "train": device_used.speed.training, "match": device_used.speed.measuring}[
        one.kind
    ]
    return STARTING_SECONDS + one.host + (one.flops / (share * rate) + one.moved / device_used.speed.bytes) / device_used.devices


def of_tasks(settings: Settings, device_used: Hardware) -> tuple[list[Cost], list[str]]:
    """(what the tasks of a config take, labels of those that nobody planned)."""
    size = costs.size(settings)
    estimates, unplanned = [], []
    for task in registry.tasks(settings, epath.Path()):
        own = task.stage.function("cost")
        one = own(task.settings, size, device_used) if own else None
        if one is None:
            unplanned.append(task.label)
        else:
            estimates.append(one._replace(stage=task.label))
    return estimates, unplanned


def text(settings: Settings, device_used: Hardware) -> str:
    """The whole plan, as it is printed. Raises ValueError for a config whose SAEs are there already, or of which no stage says what it takes."""
    if SAEConfig not in settings or Seeds not in settings:
        raise ValueError("--plan: counts studies that train SAEs; this config is of another kind")
    estimates, unplanned = of_tasks(settings, device_used)
    if not estimates:
        raise ValueError(f"--plan: no stage of this config says what it takes ({', '.join(unplanned)})")
    name = max(14, *(len(one.stage) for one in estimates))
    speed = "measured now" if device_used.measured else "published; what a run reaches of it is assumed"
    s, k = settings[SAEConfig], len(settings[Seeds].list)
    lines = [
        f"{k} {s.variant} SAEs, F={s.n_features:,}, K={s.k}, {settings[TrainConfig].tokens:,} tokens each, on {_subject(settings)}",
        f"on {device_used.devices} × {device_used.name}: matrix products of the language model {_rate(device_used.speed.language_model)}, of training {_rate(device_used.speed.training)}, "
        f"of comparisons {_rate(device_used.speed.measuring)}; memory {device_used.speed.bytes / 1e9:,.0f} GB/s ({speed})",
        "",
        f"{'stage':{name}} {'tokens':>9} {'FLOP':>9} {'moved':>10} {'on disk':>10} {'memory':>10} {'time':>10}",
    ]
    for one in estimates:
        lines.append(
            f"{one.stage:{name}} {_number(one.tokens):>9} {one.flops:9.1e} {_size(one.moved):>10} {_size(one.disk):>10} "
            f"{_size(one.memory):>10} {_time(seconds(one, device_used)):>10}" + (f"  {one.note}" if one.note else "")
        )
    total = sum(seconds(one, device_used) for one in estimates)
    lines.append(
        f"{'all':{name}} {'':9} {sum(c.flops for c in estimates):9.1e} {_size(sum(c.moved for c in estimates)):>10} {_size(sum(c.disk for c in estimates)):>10} "
        f"{_size(max((c.memory for c in estimates), default=0)):>10} {_time(total):>10}"
    )
    if unplanned:
        lines.append(f"not planned: {', '.join(unplanned)}")
    if "stability" in settings.stages and "report" in settings.stages:
        lines += [power.text(k), power.on_worlds()]
    if "pooled" in settings.stages and "report" in settings.stages:
        lines.append(power.text(settings[Pooling].groups, power.GROUPS))
    return "\n".join(lines)


def _subject(settings: Settings) -> str:
    world = settings.get(WorldConfig)
    if world is not None:
        return world.subject
    c, written, own, lm = settings[Harvesting], settings[Text], settings[OwnRows], settings[LanguageModel]
    shape = f" (shape of {lm.config_from})" if lm.config_from and not epath.Path(lm.path).exists() else ""
    missing = " (not there yet)" if written.text and not epath.Path(written.text).exists() else ""
    text_of = written.text or "the standard library"
    return own.activations or f"{lm.path}{shape} layer {c.layer} {c.site}, up to {c.tokens:,} rows of {text_of}{missing}"


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
