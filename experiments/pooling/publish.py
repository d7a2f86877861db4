"""A pool as it is published: SAELens' format, a card that says how it was made and what it is worth, p̂ of every feature."""

from typing import Any, NamedTuple

import numpy as np
from etils import epath

from experiments.pooling import pools
from experiments.pooling.pools import Pooled, Pooling
from experiments.pooling.scoring import DictionaryScore
from experiments.reappearance.labels import LabelRule
from experiments.stage import Task
from reports.text import number, with_interval
from saes.config import SAEConfig, TrainConfig
from saes.dictionary import Dictionary
from saes.formats import saelens
from stability.estimates import Estimate
from storage import files
from storage.tables import write_table

CARD, TABLE = "README.md", "stability.parquet"
NAMED = {
    "p": "mean p̂ against SAEs that were not pooled",
    "stable": "features that reappear in all of those",
    "between": "features shared with the pool of the other group",
    "explained": "explained variance",
    "ce recovered": "cross-entropy recovered",
    "l0": "L0",
    "dead": "features that never fire",
    "found free": "atoms outside the blocks that are found",
    "found block": "atoms in a block that are found",
}

ORIGINS = {
    pools.MEMBERS: "those first that reappear most often among them, each as one of them has it",
    pools.MEANS: "those first that reappear most often among them, each the mean of all that say the same",
    pools.RANDOM: "in random order: a control, and nothing to use",
    pools.STABLE: "those alone that reappear in (nearly) all of them",
    pools.SPAN: "those alone that reappear in (nearly) all of them, and directions of the subspaces that the others fill",
}


class Card(NamedTuple):
    """What a card says.

    Attributes:
      name: of the method.
      task: of the study.
      figures, differences: of the method, and less a single SAE.
    """

    name: str
    task: Task
    figures: dict[str, Estimate]
    differences: dict[str, Estimate]


def write(
    folder: epath.Path, dictionary: Dictionary, metadata: dict[str, Any], score: DictionaryScore, whole_pool: Pooled, card: Card
) -> list[epath.Path]:
    """Returns the files.

    Args:
      whole_pool: the pool as it was made; its `seed_M` are seeds.
    """
    saelens.save(folder, dictionary, metadata)
    fresh = len(score.hits_GM)
    table = {
        "feature": np.arange(score.features),
        "p": score.hits_GM.mean(axis=0),
        "reappearances": score.hits_GM.sum(axis=0),
        "comparisons": np.full(score.features, fresh),
        "live": score.live_M,
        "firing_rate": score.rate_M,
        "of_seed": whole_pool.seed_M,
        "of_feature": whole_pool.feature_M,
        "p_among_pooled": whole_pool.p_M,
        "members": whole_pool.members_M,
    }
    files.write_bytes(folder / CARD, _card(dictionary, metadata, fresh, card).encode())
    return [
        folder / saelens.CONFIG,
        folder / saelens.WEIGHTS,
        folder / saelens.CHECKSUM,
        folder / CARD,
        write_table(folder / TABLE, table),
    ]


def _card(dictionary: Dictionary, metadata: dict[str, Any], fresh: int, card: Card) -> str:
    c, s, rule, tokens = (
        card.task.section(Pooling),
        card.task.section(SAEConfig),
        card.task.section(LabelRule),
        card.task.section(TrainConfig).tokens,
    )
    rows = "\n".join(
        f"| {label} | {with_interval(card.figures[name].as_dict())} | {with_interval(card.differences[name].as_dict()) if name in card.differences else '–'} | {number(card.figures[name].null)} |"
        for name, label in NAMED.items()
        if name in card.figures and card.figures[name].value is not None
    )
    seeds = ", ".join(str(seed) for seed in metadata["pooled_seeds"])
    moved = {"topk": "decoder bias", "jumprelu": "decoder bias, thresholds"}.get(dictionary.architecture, "decoder and encoder biases")
    held_tokens, free_tokens = c.held_tokens, c.free_tokens
    again = "" if dictionary.architecture == "topk" else ", then calibrated again"
    steps = {
        "calibrated": f"calibrated ({moved}) on training tokens",
        "decoder held": f"calibrated, then trained on {held_tokens:,} tokens with decoder rows held{again}",
        "tuned": f"calibrated, then trained on {held_tokens:,} tokens with decoder rows held and on {free_tokens:,} with rows that move at {c.decoder_rate} of the learning rate{again}",
    }
    return f"""---
library_name: saelens
tags: [sparse-autoencoder, interpretability]
---

# {card.name}: {dictionary.w_dec_FD.shape[0]:,} features from {len(metadata["pooled_seeds"])} sparse autoencoders

Features of SAEs that were trained alike from {len(metadata["pooled_seeds"])} seeds ({seeds}), {ORIGINS[metadata["pooled"]]}; when they were pooled
none was within cosine {c.theta} of another. Model `{metadata["model_name"]}`, hook `{metadata["hook_name"]}`, width {dictionary.w_dec_FD.shape[1]}.

- **Pooled**: {card.name}; single SAEs: {s.variant}, {s.n_features:,} features, K = {s.k}, {tokens:,} tokens each.
- **Afterwards**: {steps[metadata["after_pooling"]]}.
- **Judged** by {fresh} SAEs that took no part in it, at cosine {rule.theta}, and by a pool of as many other SAEs, on held-out tokens.
- **Architecture**: {dictionary.architecture}{f", k = {dictionary.k}" if dictionary.k else ""}. Load it with SAELens ≥ 6: `SAE.load_from_disk("path/to/this/folder")`.

| | pools of this kind | less a single SAE | by chance |
|---|---|---|---|
{rows}

Values are means over two disjoint groups of seeds, with {rule.confidence:.0%} intervals. `stability.parquet` has a row per feature: p (share of the {fresh} judges
in which it reappears), the SAE and feature that leads it (whose it is, or the first of those whose mean it is), p̂ of that one among the pooled seeds,
and how many of their features say the same.
"""
