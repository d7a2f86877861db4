"""Lists of dictionaries for tests, without files."""

import numpy as np

from experiments.data.dictionary_list import DictionaryList
from saes.dictionary import Dictionary


def listed(decoders, seeds=None, encoders=None, k=3):
    """TopK SAEs with the given decoder rows (each (F_s, D)); encoders are the decoders' transposes where none are given."""
    made = []
    for i, w in enumerate(decoders):
        rows = np.asarray(w if encoders is None else encoders[i], np.float32)
        zeros = np.zeros(len(w), np.float32)
        made.append(Dictionary(rows.T.copy(), zeros, np.asarray(w, np.float32), np.zeros(w.shape[1], np.float32), k=min(k, len(w))))
    seeds = tuple(range(len(made))) if seeds is None else seeds
    return DictionaryList(seeds, ("",) * len(made), tuple(made), {}, {}, (), tuple(range(len(made))), [])


def unit(*shape, rng):
    w = rng.normal(size=shape).astype(np.float32)
    return w / np.linalg.norm(w, axis=-1, keepdims=True)
