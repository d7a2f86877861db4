"""Random dictionaries of every architecture for tests."""

import json
import pathlib

import jax
import numpy as np

from saes.dictionary import Dictionary

S, F, D, K = 3, 20, 7, 4


def make(architecture: str = "topk") -> Dictionary:
    """S of them, stacked, NumPy leaves; thresholds and gates such that some features fire."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
    shared = {"w_enc_DF": normal(S, D, F), "b_enc_F": normal(S, F) - 1, "w_dec_FD": normal(S, F, D), "b_dec_D": normal(S, D)}
    if architecture == "jumprelu":
        shared["threshold_F"] = np.abs(normal(S, F))
    if architecture == "gated":
        shared |= {"r_mag_F": 0.3 * normal(S, F), "b_mag_F": normal(S, F)}
    return Dictionary(**shared, architecture=architecture, k=K if architecture == "topk" else 0)


def one(architecture: str = "topk") -> Dictionary:
    """The first of them."""
    return jax.tree.map(lambda a: a[0], make(architecture))


def change_config(path: pathlib.Path, left_out: tuple[str, ...] = (), **changes: object) -> None:
    """Changes fields of an exported `cfg.json`, and takes away the list of checksums beside it: the configuration of somebody else."""
    known = {name: value for name, value in json.loads(path.read_text()).items() if name not in left_out}
    path.write_text(json.dumps(known | changes))
    for beside in path.parent.glob("*.sha256"):
        beside.unlink()
