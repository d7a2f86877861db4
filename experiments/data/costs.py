"""What a stage will take: operations, bytes, memory, seconds of the host. A stage's file holds its own `cost`; here is what they share."""

from typing import NamedTuple

from etils import epath

from activations import adopt
from activations.language_model import checkpoint
from activations.language_model.config import DecoderConfig
from experiments.data.harvesting import Harvesting
from experiments.data.language_model import LanguageModel
from experiments.data.own_arrays import OwnRows
from experiments.data.seeds import Seeds
from experiments.settings import Settings
from runtime.device import Speed
from saes.config import SAEConfig
from synthetic.config import WorldConfig

GIB = 2**30
# Share of the rate of large matrix products that a stage reaches in its own products. On CPU measured on two EPYC cores with the
# quickstart (BUILD.md has the comparison); on an accelerator assumed, none has been measured.
SHARES = {"cpu": {"activations": 0.85, "train": 0.6, "match": 0.8}, "accelerator": {"activations": 0.4, "train": 0.4, "match": 0.6}}
STARTING_SECONDS = 10  # of a stage: reading, compiling; on the quickstart between 5 and 20
MEASURING_PASSES = 75  # of an array (batch, features) through memory where SAEs are measured: codes, their choice, moments, top rows
CODING_PASSES = 20  # where codes are only made and summed
LAYER_PASSES = 7  # of what a layer computes
HOST_RATE = 2e10  # multiplications and additions a second of one BLAS thread
UNSTABLE, NON_STABLE = 0.4, 0.8  # of the features, as in the quickstart


class Cost(NamedTuple):
    """Of one stage.

    Attributes:
      stage: its label.
      tokens: that it handles, counted once for each SAE.
      flops: multiplications and additions in matrix products.
      moved: bytes through memory.
      disk: bytes that it leaves.
      memory: peak bytes on a device.
      kind: of `SHARES`.
      note: what people should know.
      host: seconds of work that the host does alone.
    """

    stage: str
    tokens: float
    flops: float
    moved: float
    disk: float
    memory: float
    kind: str
    note: str = ""
    host: float = 0.0


class Hardware(NamedTuple):
    """What the study would run on."""

    name: str
    devices: int
    platform: str
    memory: int
    speed: Speed
    measured: bool


class Size(NamedTuple):
    """What is studied.

    Attributes:
      rows: activations to train on and held out.
      held_out: of them those held out.
      width: of the activations.
      model: whose activations they are; None of a user's own arrays and of worlds.
    """

    rows: float
    held_out: float
    width: int
    model: DecoderConfig | None


def size(settings: Settings) -> Size:
    """Of a config. From the model's own folder, or `lm.config_from`, or the hub, of which nothing but `config.json` is fetched."""
    world = settings.get(WorldConfig)
    if world is not None:
        return Size(0.0, 32_768.0, world.width, None)
    own = settings[OwnRows]
    if own.activations:
        arrays = adopt.find(own.activations, "source.activations")
        rows = float(sum(a.rows for a in arrays))
        return Size(rows, min(float(own.eval_tokens), rows // 10), arrays[0].width, None)
    read = settings[Harvesting]
    model = language_model(settings)
    return Size(float(read.tokens + own.eval_tokens), float(own.eval_tokens), model.sites()[read.site], model)


def language_model(settings: Settings) -> DecoderConfig:
    """Shape of the model that a config names."""
    lm, read = settings[LanguageModel], settings[Harvesting]
    elsewhere = lm.config_from and not epath.Path(lm.path).exists()
    folder = epath.Path(lm.config_from) if elsewhere else checkpoint.locate(lm.path, lm.revision, only_config=True)
    model = checkpoint.load_config(folder)
    model.check_place(read.layer, read.site)
    return model


def comparisons(settings: Settings, stage: str, products: float, width: int, encoded: float, block_size: int) -> Cost:
    """Of a stage that compares dictionaries, so many times two of them and so many rows at a time, and codes so many tokens."""
    f, n = float(settings[SAEConfig].n_features), len(settings[Seeds].list)
    flops = products * 2 * f * f * width + encoded * 4 * f * width
    moved = 4.0 * (products * 3 * f * f + encoded * MEASURING_PASSES * f)
    disk = n * f * (n * 12 + 400)
    memory = 4.0 * n * f * width + 3 * 4.0 * block_size * f
    return Cost(stage, encoded, flops, moved, disk, memory, "match", f"{products:,.0f} comparisons of two SAEs")
