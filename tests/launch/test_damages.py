"""One damage to one file of a finished run, and the same command again: one line that names the file, or the results that were there."""

import json
import random
import re
import shutil

import numpy as np
import pytest
from etils import epath

from configs import compare, default
from experiments import registry
from experiments.data import dictionary_list, sae_paths
from launch import run as runner
from runtime import interrupts, records
from storage import files

ROWS, WIDTH = 1500, 12
WAYS = ("flip", "flip", "cut", "empty", "gone", "longer", "another", "swap")
# Read by nobody once the stage is done, or what a run always writes anew.
WITHOUT_EFFECT = re.compile(
    r"wall_times\.jsonl|\.lock|[a-z]+/written\.txt|train/round-\d+/(metrics\.jsonl|finished\.json)"  # of no stage that is done
)
FROM_A_FAILURE = {"error.log"}


class Run:
    """A finished run in a folder, its files in memory, and the command that made it."""

    def __init__(self, home, stages):
        rng = np.random.default_rng(0)
        atoms = rng.standard_normal((20, WIDTH))
        np.save(home / "x.npy", (np.maximum(rng.standard_normal((ROWS, 20)) - 1, 0) @ atoms).astype(np.float32))
        c = default.get_config()
        c.stages, c.seeds = stages, (3,)
        c.source.activations, c.source.eval_tokens = str(home / "x.npy"), 400
        c.sae.n_features, c.sae.k, c.sae.dead_after_tokens = 24, 4, 2000
        c.train.tokens, c.train.batch_size, c.train.steps_per_dispatch, c.train.checkpoint_every = 4096, 64, 8, 32
        c.train.snapshots, c.train.export_sparsify = 7, True
        c.stability.null_draws, c.stability.curve_rows, c.stability.rare_firings, c.stability.span_rank = 1, 400, 2, 4
        c.subspace.min_features, c.subspace.subsamples, c.subspace.ranks, c.subspace.headline_rank = 3, 2, (1, 2), 2
        self.config, self.workdir = c, home / "run"

    def go(self, only=(), overwrite=False):
        interrupts.reset()
        runner.run(self.config, registry.validated(self.config), epath.Path(self.workdir), list(only), "", overwrite)

    def finish(self):
        self.go()
        self.whole = self.on_disk()
        return self

    def on_disk(self):
        return {str(p.relative_to(self.workdir)): p.read_bytes() for p in sorted(self.workdir.rglob("*")) if p.is_file()}

    def results(self):
        """Names of what the records list, the records, and what is merged of them."""
        listed = {name for name in self.whole if name.startswith(".records/") or name.endswith("/stage.json")} | {
            "config.json",
            "summary.json",
        }
        for stage in self.config.stages:
            record = files.read_record(epath.Path(self.workdir / stage / "stage.json"), "", None)
            listed |= {f"{stage}/{name}" for name in record["outputs"]}
        return listed

    def restore(self):
        there = self.on_disk()
        for name in there.keys() - self.whole.keys():
            (self.workdir / name).unlink()
        for path in self.workdir.glob("*.replaced-*"):
            shutil.rmtree(path)
        for name, data in self.whole.items():
            if there.get(name) != data:
                (self.workdir / name).parent.mkdir(parents=True, exist_ok=True)
                (self.workdir / name).write_bytes(data)


@pytest.fixture(scope="module")
def early(tmp_path_factory):
    """Stages of some seconds."""
    return Run(tmp_path_factory.mktemp("early"), ("activations", "train", "stability")).finish()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return Run(tmp_path_factory.mktemp("whole"), ("activations", "train", "stability", "sensitivity", "subspace", "report")).finish()


def damaged(rng, data, others):
    """(what was done, the bytes or None) of one damage that changes something."""
    way = rng.choice(WAYS)
    if way == "gone":
        return "deleted", None
    if way == "longer" or not data:
        more = bytes([rng.randrange(256)])
        return f"{more!r} appended", data + more
    if way == "empty":
        return "cut to 0 bytes", b""
    if way == "cut":
        length = rng.randrange(len(data))
        return f"cut to {length} of {len(data)} bytes", data[:length]
    if way == "another":
        other = rng.choice(sorted(name for name, content in others.items() if content != data))
        return f"replaced by {other}", others[other]
    if way == "swap":
        first, second = sorted(rng.randrange(len(data)) for _ in range(2))
        if data[first] != data[second]:
            out = bytearray(data)
            out[first], out[second] = data[second], data[first]
            return f"bytes {first} and {second} swapped", bytes(out)
    place, bit = rng.randrange(len(data)), rng.randrange(8)
    return f"bit {bit} of byte {place} flipped", data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def put(run, name, data):
    path = run.workdir / name
    path.unlink() if data is None else path.write_bytes(data)


def end(run, name):
    """Runs the command again on a damaged workdir; whether it was refused. Fails on every end but the two that are accepted."""
    before = run.on_disk()
    try:
        run.go()
    except (ValueError, OSError) as error:
        message, stage = str(error), name.removeprefix(".records/").split("/")[0].removesuffix(".json")
        assert "\n" not in message and ("copy" in message or "--overwrite" in message or "take another" in message), message
        assert name in message or f"{run.workdir / stage}" in message, message
        after = {n: data for n, data in run.on_disk().items() if n not in FROM_A_FAILURE}
        assert after == before, f"refused, but {sorted(n for n in after.keys() | before.keys() if after.get(n) != before.get(n))} changed"
        return True
    after = run.on_disk()
    wrong = [n for n in sorted(run.results()) if after.get(n) != run.whole[n]]
    assert not wrong, f"nothing was said, and {wrong} are not what they were"
    assert not list(run.workdir.glob("*.replaced-*"))
    assert name in run.results() or WITHOUT_EFFECT.fullmatch(name), "in no record, and nothing says that nobody reads it"
    return False


def check(run, count, seed):
    rng = random.Random(seed)
    refused, failed = 0, []
    for number in range(count):
        name = rng.choice(sorted(run.whole))
        what, data = damaged(rng, run.whole[name], {n: content for n, content in run.whole.items() if n != name})
        put(run, name, data)
        try:
            refused += end(run, name)
        except Exception as error:
            failed.append(f"case {number} of seed {seed}, {name}: {what}: {type(error).__name__}: {error}")
        finally:
            run.restore()
    assert not failed, "\n\n".join([f"{len(failed)} of {count} cases", *failed])
    return refused


def test_one_damage_is_refused_by_name_or_mended(early):
    assert 0 < check(early, 20, 0) < 20


@pytest.mark.slow
def test_many_damages_are_refused_by_name_or_mended(whole):
    assert 40 < check(whole, 200, 1) < 180


def test_every_file_of_a_run_is_in_a_record_or_read_by_nobody(early):
    unknown = [n for n in early.whole if n not in early.results() and not WITHOUT_EFFECT.fullmatch(n)]
    assert unknown == []
    assert all(f"{stage}/summary.json" in early.results() for stage in ("train", "stability")) and registry.house().stages["train"].guarded


def flip(data):
    return data[:-3] + bytes([data[-3] ^ 4]) + data[-2:]


SAE = "sae/seed-1"
DAMAGES = {
    "weights": ("sae_weights.safetensors", flip),
    "checksum": ("sae_weights.safetensors.sha256", lambda data: data.replace(data[:1], bytes([data[0] ^ 1]), 1)),
    "no checksum": ("sae_weights.safetensors.sha256", lambda data: b""),
    "deleted": ("sae_weights.safetensors.sha256", lambda data: None),
    "k": ("cfg.json", lambda data: data.replace(b'"k": 4', b'"k": 6')),
}


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("kind", DAMAGES)
def test_a_stage_verifies_what_it_reads_of_another(early, monkeypatch, kind, large):
    """Also where results are too large to be verified on every start."""
    name, change = DAMAGES[kind]
    place = f"train/{SAE}/{name}"
    shutil.rmtree(early.workdir / "stability")
    (early.workdir / ".records" / "stability.json").unlink()
    put(early, place, change(early.whole[place]))
    if large:
        monkeypatch.setattr(records, "VERIFIED", 0)
    try:
        with pytest.raises((ValueError, OSError)) as caught:
            early.go(only=["stability"])
        message = str(caught.value)
        assert f"{SAE}/{name}" in message and "\n" not in message and "again" in message
        assert not (early.workdir / "stability" / "summary.json").exists()
    finally:
        early.restore()


@pytest.mark.parametrize("layout", ["saelens", "sparsify"])
@pytest.mark.parametrize(
    "kind", [kind for kind in DAMAGES if kind != "deleted"]
)  # without a list of checksums nothing else tells of damage
def test_saes_read_from_elsewhere_are_verified_by_the_checksums_beside_them(early, tmp_path, kind, layout):
    shutil.copytree(early.workdir / "train", tmp_path / "theirs")
    name, change = DAMAGES[kind]
    folder = tmp_path / "theirs" / "sae" if layout == "saelens" else next((tmp_path / "theirs" / "sparsify").iterdir())
    sae = folder / ("seed-1" if layout == "saelens" else "seed1")
    path = sae / (name if layout == "saelens" else name.replace("sae_weights", "sae"))
    whole = path.read_bytes()
    path.write_bytes(change(whole))
    assert path.read_bytes() != whole
    says = re.escape(str(sae)) + r"/\S+ (does not match its sha256|is damaged)"
    c = compare.get_config()
    c.saes = str(folder)
    with pytest.raises(ValueError, match=says):
        runner.run(c, registry.validated(c), epath.Path(tmp_path / "compared"), [], "", False)
    if layout == "saelens":
        c = default.get_config()
        c.stages, c.source.activations = ("stability",), early.config.source.activations
        c.stability.dictionaries = str(tmp_path / "theirs" / "dictionaries.json")
        with pytest.raises(ValueError, match=says):
            runner.run(c, registry.validated(c), epath.Path(tmp_path / "measured"), [], "", False)
    path.write_bytes(whole)
    assert len([found.identity() for found in sae_paths.find(str(folder))]) == 3


def test_every_flip_of_a_list_of_ours_is_refused_and_one_written_by_hand_is_read(tmp_path):
    path = epath.Path(tmp_path / "dictionaries.json")
    dictionary_list.write(path, {"path": "m"}, {"k": 4}, [{"seed": 0, "path": "a", "format": "saelens"}], [])
    whole, listing = path.read_bytes(), dictionary_list.read(path)
    assert "sha256" not in listing and listing["training"] == {"k": 4}
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :])
        try:
            assert dictionary_list.read(path) == listing  # a blank for another
        except ValueError as error:
            assert "dictionaries.json" in str(error) and "\n" not in str(error)
    path.write_bytes(whole.replace(b'"k": 4', b'"k": 6'))
    with pytest.raises(
        ValueError, match="dictionaries.json is damaged: it does not match its own checksum: put it back .* remove its line 'sha256'"
    ):
        dictionary_list.read(path)
    path.write_text(json.dumps(listing | {"training": {"k": 6}}))
    assert dictionary_list.read(path)["training"] == {"k": 6}
