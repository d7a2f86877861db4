"""The stage that finds SAEs: what it writes, what it notices, what it refuses."""

import json

import jax
import numpy as np
import pytest
from etils import epath

from activations.store import Rows, StoreWriter
from configs import compare
from experiments.data import collect as collecting
from experiments.data import dictionary_list, sae_paths, sources
from experiments.data.own_arrays import OwnRows
from runtime import records
from saes.formats import saelens, stacked
from storage import files
from tests.experiments.tasks import run_stage, task
from tests.saes.dictionaries import change_config, make

STACKED = make("topk")
OF = {"model_name": "m", "hook_name": "blocks.1.hook_resid_post"}


@pytest.fixture
def folder(tmp_path):
    for i in range(2):
        saelens.save(tmp_path / "sae" / f"seed-{i}", jax.tree.map(lambda a, i=i: a[i], STACKED), OF | {"seed": i})
    return tmp_path


def config(saes, **changes):
    c = compare.get_config()
    c.saes = str(saes)
    c.update_from_flattened_dict({field.replace("__", "."): value for field, value in changes.items()})
    return c


def inputs(saes, **changes):
    return task("collect", config(saes, **changes)).inputs()


def collect(workdir, saes, **changes):
    return run_stage("collect", config(saes, **changes), workdir)


def store(folder, **hook):
    width = STACKED.w_dec_FD.shape[2]
    writer = StoreWriter(folder, {"width": width, "dtype": "float32", "hook": {"path": "m", "layer": 1} | hook, "documents": []})
    place = np.arange(20, dtype=np.int32)
    writer.write(0, Rows(np.ones((20, width), np.float32), place, place, place))
    writer.finish(1)
    return str(folder)


def test_the_list_names_every_sae_with_its_checksums(folder):
    path, *_ = collect(folder, folder / "sae")
    listing = dictionary_list.read(path)
    assert listing["hook"] == {"path": "m", "layer": 1, "site": "blocks.1.hook_resid_post"}
    assert [e["seed"] for e in listing["dictionaries"]] == [0, 1] and all(saelens.WEIGHTS in e["sha256"] for e in listing["dictionaries"])
    assert (dictionary_list.load(path).w_dec_SFD == STACKED.w_dec_FD[:2]).all()


def test_other_weights_under_an_old_name_are_noticed(folder):
    before = inputs(folder / "sae")
    saelens.save(folder / "sae" / "seed-1", jax.tree.map(lambda a: a[2], STACKED), OF | {"seed": 1})
    assert inputs(folder / "sae") != before


def test_the_same_saes_at_another_place_are_the_same(folder):
    before = inputs(folder / "sae")
    (folder / "elsewhere").mkdir()
    (folder / "sae").rename(folder / "elsewhere" / "sae")
    assert inputs(folder / "elsewhere" / "sae") == before


def test_a_list_of_ours_keeps_its_course_of_training_and_what_it_names_is_watched(folder):
    entries = [{"seed": i, "path": f"sae/seed-{i}", "format": "saelens"} for i in range(2)]
    stacked.save(folder / "start", jax.tree.map(lambda a: a[:2], STACKED))
    snapshots = [{"tokens": 0, "paths": ["start"]}, {"tokens": 9, "paths": ["gone"]}]
    dictionary_list.write(
        epath.Path(folder / dictionary_list.NAME), {"path": "m", "layer": 1, "site": "resid_post"}, {"k": 4}, entries, snapshots
    )
    before = inputs(folder)
    path, *_ = collect(folder / "w", folder)
    listing = dictionary_list.read(path)
    assert listing["training"] == {"k": 4} and [s["tokens"] for s in listing["snapshots"]] == [0]  # the other is not there any more
    stacked.save(folder / "start", jax.tree.map(lambda a: a[1:3], STACKED))
    assert inputs(folder) != before


@pytest.mark.parametrize(
    ("hook", "says"),
    [
        ({"layer": 2}, "holds layer 2, .*seed-0 is of layer 1"),
        ({"path": "n"}, "holds model 'n'"),
        ({"site": "mlp_out"}, "holds site 'mlp_out'"),
    ],
)
def test_activations_of_another_place_are_refused(folder, hook, says):
    other = store(folder / "store", **hook)
    with pytest.raises(ValueError, match=f"config.source.activations: .*{says}"):
        collect(folder, folder / "sae", source__activations=other)
    collect(folder, folder / "sae", source__activations=other, ignore_names=True)
    collect(folder, folder / "sae", source__activations=store(folder / "right"))


def test_what_could_not_be_compared_is_said_and_kept(folder, capsys):
    saelens.save(folder / "sae" / "seed-1", jax.tree.map(lambda a: a[1], STACKED), {"model_name": "m"})
    _, summary, *_ = collect(folder, folder / "sae", source__activations=store(folder / "store"))
    said = ["layer unknown for 1 of 2 SAEs", "site unknown for 1 of 2 SAEs", "site of the activations unknown"]
    assert json.loads(summary.read_text()) == {"not_compared": said}
    printed = capsys.readouterr().out
    assert all(f"collect: {sentence}\n" in printed for sentence in said)


def test_transcoders_are_compared_without_activations_alone(folder):
    for path in (folder / "sae").rglob("cfg.json"):
        change_config(path, architecture="transcoder", d_out=STACKED.w_dec_FD.shape[2])
    path, *_ = collect(folder, folder / "sae")
    assert [e["transcoder"] for e in dictionary_list.read(path)["dictionaries"]] == [True, True]
    assert (dictionary_list.load(path).w_dec_SFD == STACKED.w_dec_FD[:2]).all()
    with pytest.raises(ValueError, match="config.source.activations: .*seed-0 is a transcoder: reads blocks.1.hook_resid_post"):
        collect(folder, folder / "sae", source__activations=store(folder / "store"))


def test_a_list_of_collect_keeps_what_each_sae_tells(folder):
    saelens.save(folder / "sae" / "seed-1", jax.tree.map(lambda a: a[1], STACKED), {"model_name": "m"})
    collect(folder, folder / "sae")
    again = sae_paths.find(str(folder / "collect"))
    assert [(sae.provenance.layer, sae.provenance.site) for sae in again] == [(1, "resid_post"), (None, "")]  # not the hook of the first


def test_a_store_that_is_not_there_is_named(folder):
    with pytest.raises(FileNotFoundError, match="config.source.activations: nothing at"):
        inputs(folder / "sae", source__activations=str(folder / "none"))


def test_saes_of_another_width_are_called_as_the_user_called_them(folder):
    one = jax.tree.map(lambda a: a[0], STACKED)
    cut = one.replace(w_enc_DF=one.w_enc_DF[:4], w_dec_FD=one.w_dec_FD[:, :4], b_dec_D=one.b_dec_D[:4])
    saelens.save(folder / "narrow", cut, OF)
    with pytest.raises(ValueError, match=f"{folder}/narrow is of width 4, {folder}/sae/seed-0 of 7"):
        collect(folder, f"{folder}/sae,{folder}/narrow")


def test_plain_arrays_tell_nothing_of_where_they_are_from():
    said = collecting._unknown_of_activations(OwnRows(activations="x.npy"), None)
    assert said == [f"{what} of the activations unknown" for what in ("model", "layer", "site")]
    assert collecting._unknown_of_activations(OwnRows(), None) == []


def test_the_texts_of_tokens_beside_a_store_are_among_what_is_read_and_must_be_what_their_record_says(tmp_path):
    folder = epath.Path(tmp_path)
    assert sources._vocabulary_digest(folder) == {}
    (tmp_path / "vocabulary.json").write_text('["a"]')
    first = sources._vocabulary_digest(folder)
    files.write_record(folder / records.NAME, {"outputs": records.outputs(folder, [folder / "vocabulary.json"])})
    assert sources._vocabulary_digest(folder) == first != {}
    (tmp_path / "vocabulary.json").write_text('["b"]')
    with pytest.raises(ValueError, match="config.source.activations: .*vocabulary.json does not match the sha256 in"):
        sources._vocabulary_digest(folder)
