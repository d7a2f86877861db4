"""The language model whose activations are studied: its section of the config, and whether a config has one."""

from activations.language_model import checkpoint
from activations.language_model.config import DecoderConfig
from experiments.data.harvesting import Harvesting
from experiments.data.own_arrays import OwnRows
from experiments.fields import check, config, field
from experiments.settings import Settings
from experiments.stage import Product, Task


@config("lm")
class LanguageModel:
    """The model whose activations are studied."""

    path: str = field(
        default="models/stdlib-neox-4x128",
        doc="folder in Hugging Face layout, or a hub id: a family of activations/language_model/families.py",
        path=True,
    )
    revision: str = field(default="", doc="commit, tag or branch of a hub id; '': the default branch. The run records the commit")
    dtype: str = field(default="float32", doc="of parameters and forward pass: float32 | bfloat16", one_of=("float32", "bfloat16"))
    model_parallel: int = field(default=1, doc="devices that share a copy of the model; batches are cut over the others", gt=0)
    config_from: str = field(
        default="", doc="folder with the config.json of the model, for --plan without the hub; '': that of path", how=True
    )

    def check(self) -> None:
        check(bool(self.path), "lm.path", self.path, "a folder in Hugging Face layout, or a hub id")


def _own(settings: Settings) -> bool:
    own = settings.get(OwnRows)
    return own is not None and bool(own.activations)


MODEL = Product(
    "model",
    reads=(LanguageModel, OwnRows, Harvesting),
    given=lambda settings: LanguageModel in settings and not _own(settings),
    lacking=lambda settings: LanguageModel not in settings or _own(settings),
)


def loaded_config(task: Task) -> DecoderConfig:
    """Of the model that the config names."""
    lm = task.section(LanguageModel)
    return checkpoint.load_config(checkpoint.locate(lm.path, lm.revision))
