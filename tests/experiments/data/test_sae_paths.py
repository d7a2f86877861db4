"""SAEs named by path: found, told apart, refused."""

import dataclasses

import jax
import numpy as np
import pytest
from etils import epath

from experiments.data import dictionary_list, sae_paths
from saes.formats import saelens, sparsify
from saes.formats.provenance import Provenance
from tests.saes.dictionaries import change_config, make

STACKED = make("topk")


def one(i=0):
    return jax.tree.map(lambda a: a[i], STACKED)


def of_saelens(folder, i=0, **metadata):
    saelens.save(folder, one(i), metadata)
    return str(folder)


def test_formats_are_known_by_their_files(tmp_path):
    of_saelens(tmp_path / "a", seed=7, model_name="m", hook_name="blocks.3.hook_resid_post")
    sparsify.save(tmp_path / "layers.3" / "seed2", one())
    (tmp_path / "gemma-scope-2b-pt-res" / "layer_20" / "width_16k").mkdir(parents=True)
    (tmp_path / "gemma-scope-2b-pt-res" / "layer_20" / "width_16k" / "params.npz").write_bytes(b"")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "ae.pt").write_bytes(b"")
    found = [sae_paths.find(str(tmp_path / p))[0] for p in ("a", "layers.3", "gemma-scope-2b-pt-res/layer_20", "d")]
    assert [f.format for f in found] == ["saelens", "sparsify", "gemma_scope", "dictionary_learning"]
    assert [(f.provenance.seed, f.provenance.model, f.provenance.site, f.provenance.layer) for f in found] == [
        (7, "m", "resid_post", 3), (2, "", "resid_post", 3), (None, "google/gemma-2-2b", "resid_post", 20), (None, "", "", None)
    ]  # fmt: skip


def test_a_folder_of_saes_is_all_of_them_in_the_order_of_their_numbers(tmp_path):
    for seed in (10, 9, 1):
        of_saelens(tmp_path / f"seed-{seed}", seed=seed)
    (tmp_path / "other").mkdir()
    assert [f.provenance.seed for f in sae_paths.find(str(tmp_path))] == [1, 9, 10]


def test_seeds_are_their_own_or_places(tmp_path):
    same = [sae_paths.find(of_saelens(tmp_path / n, i, seed=3))[0] for i, n in enumerate("ab")]
    assert sae_paths.seeds(same) == [0, 1]
    own = [sae_paths.find(of_saelens(tmp_path / n, i, seed=5 - i))[0] for i, n in enumerate("cd")]
    assert sae_paths.seeds(own) == [5, 4]


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"model_name": "other"}, "model 'm'.*of 'other'"),
        ({"hook_name": "blocks.4.hook_resid_post"}, "layer 3.*of 4"),
        ({"hook_name": "blocks.3.hook_mlp_out"}, "site 'resid_post'.*of 'mlp_out'"),
    ],
)
def test_strangers_are_refused_with_the_reason(tmp_path, metadata, says):
    usual = {"model_name": "m", "hook_name": "blocks.3.hook_resid_post"}
    saes = [sae_paths.find(of_saelens(tmp_path / n, i, **m))[0] for i, (n, m) in enumerate((("a", usual), ("b", usual | metadata)))]
    with pytest.raises(ValueError, match=says):
        sae_paths.refuse_strangers(saes, ignore_names=False)
    sae_paths.refuse_strangers(saes, ignore_names=True)


def test_what_files_do_not_tell_is_said_and_layers_are_compared_between_formats(tmp_path):
    a = sae_paths.find(of_saelens(tmp_path / "a", model_name="m", hook_name="blocks.3.hook_resid_post"))
    sparsify.save(tmp_path / "layers.3", one(1))
    b = sae_paths.find(of_saelens(tmp_path / "c", 2))
    saes = a + sae_paths.find(str(tmp_path / "layers.3")) + b
    assert [(s.provenance.model, s.provenance.site, s.provenance.layer) for s in saes] == [
        ("m", "resid_post", 3),
        ("", "resid_post", 3),
        ("", "", None),
    ]
    sae_paths.refuse_strangers(saes, ignore_names=False)  # raises nothing
    assert sae_paths.remarks(saes) == [
        f"{what} for {n} of 3 SAEs" for what, n in (("model unknown", 2), ("layer unknown", 1), ("site unknown", 1))
    ]
    sparsify.save(tmp_path / "other" / "layers.4", one(1))
    with pytest.raises(ValueError, match="layer 3.*of 4"):
        sae_paths.refuse_strangers([*saes, *sae_paths.find(str(tmp_path / "other"))], ignore_names=False)


@pytest.mark.parametrize("how", ["copy", "sparsify", "float16", "bfloat16"])
def test_the_same_weights_under_two_names_are_one_sae(tmp_path, how):
    first = sae_paths.find(of_saelens(tmp_path / "a"))
    if how in ("copy", "sparsify"):
        (saelens.save if how == "copy" else sparsify.save)(tmp_path / "b", one(), *([{}] if how == "copy" else []))
    else:
        rounded = jax.tree.map(lambda x: np.asarray(jax.numpy.asarray(x, how), np.float32), one())
        saelens.save(tmp_path / "b", rounded, {})
    second = sae_paths.find(str(tmp_path / "b"))
    for ignore_names in (True, False):
        with pytest.raises(ValueError, match="/b holds the same weights as .*/a: leave one out"):
            sae_paths.refuse_strangers(first + second, ignore_names)
    others = [sae_paths.find(of_saelens(tmp_path / f"o{i}", i))[0] for i in (1, 2)]
    references = [*first, *others, others[0]._replace(path=epath.Path(tmp_path / "o1" / ".." / "o1"))]
    with pytest.raises(ValueError, match="config.query_saes: .*/b holds the same weights as the reference SAE .*/a: leave"):
        sae_paths.refuse_query_saes(references, second, ignore_names=True)
    with pytest.raises(ValueError, match="o1 holds the same weights as"):  # among the reference SAEs, too
        sae_paths.refuse_query_saes(references, [], ignore_names=True)


def test_a_decoder_with_another_encoder_is_said(tmp_path):
    saelens.save(tmp_path / "b", dataclasses.replace(one(), w_enc_DF=one(1).w_enc_DF), {})
    saes = sae_paths.find(of_saelens(tmp_path / "a")) + sae_paths.find(str(tmp_path / "b"))
    sae_paths.refuse_strangers(saes, ignore_names=False)
    assert sae_paths.remarks(saes)[-1] == f"{tmp_path}/b has the decoder rows of {tmp_path}/a, with another encoder"


def test_transcoders_are_refused_where_there_are_activations(tmp_path):
    sparsify.save(tmp_path / "layers.3.mlp", one())
    sparsify.save(tmp_path / "more" / "layers.3.mlp", one(1))
    for config in tmp_path.rglob("cfg.json"):
        change_config(config, transcode=True)
    saes = [sae_paths.find(str(tmp_path / folder / "layers.3.mlp"))[0] for folder in (".", "more")]
    sae_paths.refuse_strangers(saes, ignore_names=False)  # decoders alone
    with pytest.raises(
        ValueError, match="config.source.activations: .*a transcoder: reads the input of layers.3.mlp, reconstructs mlp_out"
    ):
        sae_paths.refuse_transcoders(saes)
    other = sae_paths.find(of_saelens(tmp_path / "sae", 2))
    with pytest.raises(ValueError, match="kind 'transcoder'.*of 'SAE'"):
        sae_paths.refuse_strangers(saes + other, ignore_names=False)


def test_too_few_and_twice_the_same(tmp_path):
    a = sae_paths.find(of_saelens(tmp_path / "a"))
    with pytest.raises(ValueError, match="holds 1 SAE"):
        sae_paths.refuse_strangers(a, ignore_names=True)
    with pytest.raises(ValueError, match="given twice"):
        sae_paths.refuse_strangers(a + sae_paths.find(f"{tmp_path}/../{tmp_path.name}/a"), ignore_names=True)


def test_folder_names_that_are_no_hookpoints_tell_nothing(tmp_path):
    for i, name in enumerate(("sae_0", "sae_1", "a")):
        sparsify.save(tmp_path / name, one(i))
    found = [sae_paths.find(str(tmp_path / name))[0] for name in ("sae_0", "sae_1", "a")]
    assert [(f.provenance.input, f.provenance.layer, f.provenance.site) for f in found] == [("", None, "")] * 3
    sae_paths.refuse_strangers(found, ignore_names=False)


def test_sites_without_a_common_name_are_compared_within_a_format_and_said_between_them(tmp_path):
    sparsify.save(tmp_path / "layers.3.own", one(2))
    (own,) = sae_paths.find(str(tmp_path / "layers.3.own"))
    told = {name: {"model_name": "m", "hook_name": f"blocks.3.hook_{name}"} for name in ("q_in", "k_in")}
    a, b = (sae_paths.find(of_saelens(tmp_path / name, i, **metadata))[0] for i, (name, metadata) in enumerate(told.items()))
    with pytest.raises(ValueError, match="site 'hook_q_in'.*'hook_k_in'"):
        sae_paths.refuse_strangers([own, a, b], ignore_names=False)
    sae_paths.refuse_strangers([own, a], ignore_names=False)
    said = "site could not be compared between formats, no common name is known for 'hook_q_in', 'own'"
    assert sae_paths.remarks([own, a])[-1] == said


def test_a_list_and_a_folder_of_it_belong_together_and_a_lost_sae_is_named(tmp_path):
    of_saelens(tmp_path / "sae" / "seed-0", model_name="m", hook_name="blocks.1.hook_resid_post")
    of_saelens(tmp_path / "other", 1, model_name="m", hook_name="blocks.1.hook_resid_post")
    entries = [{"seed": 0, "path": "sae/seed-0", "format": "saelens"}, {"seed": 1, "path": "gone", "format": "saelens"}]
    dictionary_list.write(epath.Path(tmp_path / "dictionaries.json"), {"path": "m", "layer": 1, "site": "resid_post"}, {}, entries, [])
    listed = sae_paths.find(str(tmp_path))
    assert listed[0].provenance == Provenance("m", layer=1, site="resid_post", head="all", input="blocks.1.hook_resid_post", seed=0)
    sae_paths.refuse_strangers([listed[0], *sae_paths.find(str(tmp_path / "other"))], ignore_names=False)
    with pytest.raises(FileNotFoundError, match="seed 1 is not in .*gone"):
        listed[1].files()


def test_nothing_there(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no SAE there nor in the folders in it"):
        sae_paths.find(str(tmp_path))
    with pytest.raises(ValueError, match="is a file: name the folder"):
        sae_paths.find(__file__)
    with pytest.raises(FileNotFoundError, match="no hub id"):
        sae_paths.find("/nowhere/at/all")


def test_hub_ids_are_fetched_with_their_folder_and_revision(tmp_path, monkeypatch):
    of_saelens(tmp_path / "below" / "deep", seed=4)
    asked = []

    def fetch(repo, revision, allow_patterns):
        assert {p.rsplit("/", 1)[0] for p in allow_patterns} == {"below/deep", "below/deep/**"}  # not the whole repository
        asked.append((repo, revision))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    (found,) = sae_paths.find("owner/name/below/deep@v1")
    assert asked == [("owner/name", "v1")] and found.path == epath.Path(tmp_path / "below" / "deep")

    def unreachable(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(ValueError, match=r"could not be fetched either \(ConnectionError\): pass the path of a folder"):
        sae_paths.find("owner/name")


def test_files_that_need_not_be_there_and_tell_of_an_sae_count(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "ae.pt").write_bytes(b"x")
    (learned,) = sae_paths.find(str(tmp_path / "d"))
    assert [p.name for p in learned.files()] == ["ae.pt"]
    (tmp_path / "d" / "config.json").write_text('{"trainer": {"k": 8}}')
    assert [p.name for p in learned.files()] == ["ae.pt", "config.json"]
    sparsify.save(tmp_path / "run" / "layers.3", one())
    (trained,) = sae_paths.find(str(tmp_path / "run" / "layers.3"))
    assert trained.told_by() == {}
    sums = []
    for model in ("a", "b"):
        (tmp_path / "run" / "config.json").write_text(f'{{"model": "{model}"}}')
        sums.append(trained.told_by())
    assert sums[0].keys() == {"../config.json"} and sums[0] != sums[1]


def test_the_same_weights_of_real_size_are_one_sae_though_reading_changed_their_last_bits(tmp_path):
    rng = np.random.default_rng(0)
    w_dec = rng.normal(size=(4096, 256)).astype(np.float32)
    w_dec /= np.linalg.norm(w_dec, axis=1, keepdims=True)
    big = dataclasses.replace(
        one(), w_enc_DF=w_dec.T, b_enc_F=np.zeros(4096, np.float32), w_dec_FD=w_dec, b_dec_D=np.zeros(256, np.float32)
    )
    saelens.save(tmp_path / "a", big, {})
    sparsify.save(tmp_path / "b", big)
    change_config(tmp_path / "a" / "cfg.json", rescale_acts_by_decoder_norm=True)
    saes = [sae_paths.find(str(tmp_path / name))[0] for name in "ab"]
    with pytest.raises(ValueError, match="/b holds the same weights as .*/a: leave one out"):
        sae_paths.refuse_strangers(saes, ignore_names=True)
    sparsify.save(tmp_path / "c", dataclasses.replace(big, w_dec_FD=w_dec + 1e-3 * rng.normal(size=w_dec.shape).astype(np.float32)))
    sae_paths.refuse_strangers([saes[0], *sae_paths.find(str(tmp_path / "c"))], ignore_names=True)  # trained on a little further


def test_a_file_of_arrays_is_no_model(tmp_path):
    saes = [sae_paths.find(of_saelens(tmp_path / n, i, model_name="x.npy", hook_name="activations"))[0] for i, n in enumerate("ab")]
    sae_paths.refuse_strangers(saes, ignore_names=False)
    assert "model unknown for 2 of 2 SAEs" in sae_paths.remarks(saes)
    assert dictionary_list.provenance({"path": "x.npy", "layer": None, "site": "activations"}).model == ""


def test_saes_that_differ_in_one_row_are_two(tmp_path):
    for row in (0, 7, 19):
        changed = [np.array(a) for a in (one().w_dec_FD, np.asarray(one().w_enc_DF).T)]
        for matrix in changed:
            matrix[row] += 1e-2
        saelens.save(tmp_path / f"b{row}", dataclasses.replace(one(), w_dec_FD=changed[0], w_enc_DF=changed[1].T.copy()), {})
        saes = sae_paths.find(of_saelens(tmp_path / "a")) + sae_paths.find(str(tmp_path / f"b{row}"))
        sae_paths.refuse_strangers(saes, ignore_names=True)
