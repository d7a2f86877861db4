"""Stage: a byte-level BPE trained on the corpus' training files."""

from activations.text.tokenizer import train_tokenizer
from experiments.data import corpora
from experiments.data.corpora import Text, text_source
from experiments.language_model.size import Pretrain
from experiments.stage import Outputs, Stage, Task

STAGE = Stage(config=Pretrain, reads=(Text,), guarded=True)


def inputs(task: Task) -> dict[str, str]:
    return {"corpus": text_source(task.section(Text)).digest()}


def run(task: Task, out: Outputs) -> None:
    text = corpora.read(text_source(task.section(Text)))
    tokenizer = train_tokenizer((d.text for d in text.train), task.section(Pretrain).vocab_size)
    out.bytes("tokenizer.json", tokenizer.to_str(pretty=True).encode())
    out.json("corpus.json", {"digest": text.digest, "documents": text.listing, "near_duplicates": text.dropped})
