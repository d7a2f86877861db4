import jax
import numpy as np
import pytest
from etils import epath

from configs import quickstart
from experiments.data import dictionary_list
from saes.formats import saelens, sparsify, stacked
from storage import files
from tests.experiments.tasks import task
from tests.saes.dictionaries import change_config, make

DICTIONARIES = make("topk")
HOOK = {"model": "m", "layer": 1, "site": "resid_post"}


def write(folder, frozen=()):
    entries = []
    for i, seed in enumerate((4, 7, 9)):
        saelens.save(folder / f"seed-{seed}", jax.tree.map(lambda a, i=i: a[i], DICTIONARIES), {})
        entries.append({"seed": seed, "path": f"seed-{seed}", "format": "saelens", "frozen_at_step": 5 if seed in frozen else None})
    stacked.save(folder / "start.safetensors", DICTIONARIES)
    path = epath.Path(folder) / "dictionaries.json"
    dictionary_list.write(path, HOOK, {"variant": "topk", "k": 4}, entries, [{"tokens": 0, "paths": ["start.safetensors"]}])
    return path


def test_all_come_back_in_order(tmp_path):
    listed = dictionary_list.load(write(tmp_path))
    assert listed.seeds == (4, 7, 9) and listed.frozen == () and listed.hook == HOOK and listed.training["variant"] == "topk"
    assert (listed.w_dec_SFD == DICTIONARIES.w_dec_FD).all()


def test_a_frozen_seed_is_left_out_also_of_the_snapshots(tmp_path, capsys):
    listed = dictionary_list.load(write(tmp_path, frozen=(7,)))
    assert listed.seeds == (4, 9) and listed.frozen == (7,)
    assert "seed 7 left out: not finite at step 5" in capsys.readouterr().out
    (tokens, paths), *_ = listed.snapshots
    assert tokens == 0 and (listed.snapshot(paths).w_dec_FD == DICTIONARIES.w_dec_FD[[0, 2]]).all()


def test_snapshots_of_several_rounds_lie_one_behind_the_other(tmp_path):
    path = write(tmp_path)
    for name, seeds in (("a", slice(0, 2)), ("b", slice(2, 3))):
        stacked.save(tmp_path / name, jax.tree.map(lambda a, s=seeds: a[s], DICTIONARIES))
    listing = dictionary_list.read(path)
    listing["snapshots"] = [{"tokens": 0, "paths": ["a", "b"]}]
    files.write_json(path, listing)
    listed = dictionary_list.load(path)
    assert (listed.snapshot(listed.snapshots[0][1]).w_dec_FD == DICTIONARIES.w_dec_FD).all()


@pytest.mark.parametrize("architecture", ["standard", "gated"])
def test_other_architectures_come_back_and_stand_side_by_side(tmp_path, architecture):
    path = write(tmp_path)
    for i, seed in enumerate((4, 7, 9)):
        saelens.save(tmp_path / f"seed-{seed}", jax.tree.map(lambda a, i=i: a[i], make(architecture)), {})
    assert [d.architecture for d in dictionary_list.load(path).dictionaries] == [architecture] * 3
    saelens.save(tmp_path / "seed-9", jax.tree.map(lambda a: a[2], DICTIONARIES), {})
    listed = dictionary_list.load(path)
    assert listed.dictionaries[2].architecture == "topk" and listed.snapshots == []  # a stack of what differs is no stack


def test_sparsify_is_read_beside_saelens(tmp_path):
    path = write(tmp_path)
    sparsify.save(tmp_path / "seed-9", jax.tree.map(lambda a: a[2], DICTIONARIES))
    listing = dictionary_list.read(path)
    listing["dictionaries"][2]["format"] = "sparsify"
    files.write_json(path, listing)
    assert (dictionary_list.load(path).dictionaries[2].w_enc_DF == DICTIONARIES.w_enc_DF[2]).all()
    assert any("sae.safetensors" in name for name in dictionary_list.digest(str(path)))


def test_the_same_weights_twice_are_refused_but_where_nothing_is_compared(tmp_path):
    path = write(tmp_path)
    sparsify.save(tmp_path / "seed-9", jax.tree.map(lambda a: a[0], DICTIONARIES))
    listing = dictionary_list.read(path)
    listing["dictionaries"][2]["format"] = "sparsify"
    files.write_json(path, listing)
    with pytest.raises(ValueError, match="dictionaries.json: seed 9 holds the same weights as .*seed 4: leave one out"):
        dictionary_list.load(path)
    assert dictionary_list.load(path, distinct=False).seeds == (4, 7, 9)


def test_a_transcoder_of_a_list_is_read_for_its_decoder_and_refused_in_a_study(tmp_path):
    path = write(tmp_path)
    for seed in (4, 7, 9):
        change_config(tmp_path / f"seed-{seed}" / "cfg.json", architecture="transcoder", d_out=7)
    with pytest.raises(ValueError, match="seed-4 is a transcoder"):
        dictionary_list.load(path)
    listing = dictionary_list.read(path)
    for entry in listing["dictionaries"]:
        entry["transcoder"] = True
    files.write_json(path, listing)
    assert (dictionary_list.load(path).w_dec_SFD == DICTIONARIES.w_dec_FD).all()
    c = quickstart.get_config()
    c.stability.dictionaries, c.stages = str(path), ("activations", "stability")
    with pytest.raises(ValueError, match="config.stability.dictionaries: seed 4 of .* is a transcoder"):
        dictionary_list.place(task("stability", c, tmp_path))


def test_the_hook_of_a_list_of_others_saes_keeps_its_name():
    assert dictionary_list.hook_name({"path": "m", "layer": 3, "site": "blocks.3.hook_resid_post"}) == "blocks.3.hook_resid_post"
    assert dictionary_list.hook_name({"path": "m", "layer": 3, "site": "mlp_act"}) == "blocks.3.mlp.hook_post"


def test_one_usable_dictionary_is_too_few(tmp_path):
    with pytest.raises(ValueError, match="1 usable SAE"):
        dictionary_list.load(write(tmp_path, frozen=(7, 9)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d["hook"].update(site=["resid_post"]), "'site' of 'hook' must be a string or a number"),
        (lambda d: d.update(snapshots=[{"tokens": 0, "paths": [["a"]]}]), "'paths' of an entry of 'snapshots' must be strings"),
        (lambda d: d.pop("hook"), "lacks 'hook'"),
        (lambda d: d.update(format="other"), "no list of dictionaries"),
        (lambda d: d["dictionaries"][1].pop("path"), r"entry 1 of 'dictionaries' lacks \['path'\]"),
        (lambda d: d["dictionaries"][1].update(format="pickle"), "format 'pickle' of seed 7"),
        (lambda d: d["dictionaries"][1].update(seed=4), "a seed is listed twice"),
        (lambda d: d["dictionaries"][1].update(path="nowhere"), "no cfg.json in"),
        (lambda d: d["dictionaries"][1].update(path=3), "path='3' must be of type str"),
        (lambda d: d["dictionaries"][1].update(seed=[4]), "seed=.* must be of type int"),
        (lambda d: d["dictionaries"].append("x"), "entry 3 of 'dictionaries' lacks an object"),
        (lambda d: d.update(dictionaries={}), "dictionaries='{}' must be of type list"),
        (lambda d: d["snapshots"][0].pop("paths"), "an entry of 'snapshots' lacks"),
    ],
)
def test_lists_that_do_not_hold_are_refused(tmp_path, change, says):
    path = write(tmp_path)
    listing = dictionary_list.read(path)
    change(listing)
    files.write_json(path, listing)
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        dictionary_list.load(path)


def smaller(features=20, width=7):
    one = jax.tree.map(lambda a: a[0], DICTIONARIES)
    return one.replace(
        w_enc_DF=one.w_enc_DF[:width, :features], b_enc_F=one.b_enc_F[:features],
        w_dec_FD=one.w_dec_FD[:features, :width], b_dec_D=one.b_dec_D[:width],
    )  # fmt: skip


def test_fewer_features_are_padded_and_known_as_such(tmp_path):
    path = write(tmp_path)
    saelens.save(tmp_path / "seed-9", smaller(features=5), {})
    listed = dictionary_list.load(path)
    assert listed.sizes == (20, 20, 5) and listed.exists_SF.sum(axis=1).tolist() == [20, 20, 5]
    for rows, name in ((listed.w_dec_SFD, "w_dec_FD"), (listed.w_enc_SFD, "w_enc_DF")):
        assert rows.shape == (3, 20, 7) and (rows[2, 5:] == 0).all()
        own = getattr(listed.dictionaries[2], name)
        assert (rows[2, :5] == (own if name == "w_dec_FD" else own.T)).all()


def test_another_width_is_refused(tmp_path):
    path = write(tmp_path)
    saelens.save(tmp_path / "seed-9", smaller(width=6), {})
    with pytest.raises(ValueError, match="dictionaries.json: seed 9 is of width 6, .*seed 4 of 7"):
        dictionary_list.load(path)


def test_the_digest_follows_the_weights(tmp_path):
    path = write(tmp_path)
    before = dictionary_list.digest(str(path))
    changed = jax.tree.map(lambda a: np.asarray(a[0]) + 1, DICTIONARIES)
    saelens.save(tmp_path / "seed-9", changed, {})
    assert dictionary_list.digest(str(path)) != before and dictionary_list.digest("") == {}


@pytest.mark.parametrize(
    ("hook", "second", "says"),
    [
        (
            {},
            {"model_name": "gemma-2-2b", "hook_name": "blocks.4.hook_resid_post"},
            "seed 0 is of model 'pythia-70m', seed 1 of 'gemma-2-2b'",
        ),
        ({}, {"model_name": "pythia-70m", "hook_name": "blocks.4.hook_resid_post"}, "seed 0 is of layer 3, seed 1 of 4"),
        ({"path": "pythia-70m", "layer": 5, "site": "resid_post"}, {}, "its hook is of layer 5, seed 0 of 3"),
    ],
)
def test_a_list_of_strangers_is_refused(tmp_path, hook, second, says):
    first = {"model_name": "pythia-70m", "hook_name": "blocks.3.hook_resid_post"}
    entries = []
    for i, metadata in enumerate((first, second)):
        saelens.save(tmp_path / f"s{i}", jax.tree.map(lambda a, i=i: a[i], make()), metadata)
        entries.append({"seed": i, "path": f"s{i}", "format": "saelens"})
    path = epath.Path(tmp_path / dictionary_list.NAME)
    dictionary_list.write(path, hook, {}, entries, [])
    with pytest.raises(ValueError, match=f"config.stability.dictionaries: .*{says}"):
        dictionary_list.refuse_strangers(path)
