import json

import ml_collections
import pytest

from configs import (
    common,
    compare,
    default,
    gemma2_2b,
    paper_gpt2,
    predict,
    pretrain_stdlib,
    pythia_160m,
    quickstart,
    qwen3_0p6b,
    saved,
    seed_factorial,
    synthetic,
    synthetic_causes,
    synthetic_controls,
    synthetic_known_answer,
    synthetic_phase,
)
from experiments import registry
from experiments.data.collect import Compared
from experiments.data.seeds import Seeds
from experiments.ground_truth.cells import Grid
from experiments.training.population import Sweep
from storage import files


@pytest.mark.parametrize(
    "made",
    [
        default.get_config,
        quickstart.get_config,
        lambda: quickstart.get_config("tiny"),
        synthetic.get_config,
        lambda: synthetic.get_config("tiny"),
        synthetic_controls.get_config,
        lambda: synthetic_controls.get_config("tiny"),
        synthetic_phase.get_config,
        lambda: synthetic_phase.get_config("tiny"),
        synthetic_causes.get_config,
        lambda: synthetic_causes.get_config("tiny"),
        synthetic_known_answer.get_config,
        lambda: synthetic_known_answer.get_config("l1"),
        lambda: synthetic_known_answer.get_config("topk-tiny"),
        seed_factorial.get_config,
        lambda: seed_factorial.get_config("tiny"),
        paper_gpt2.get_config,
        lambda: paper_gpt2.get_config("layer=3,features=4096,variant=jumprelu"),
        pythia_160m.get_config,
        gemma2_2b.get_config,
        qwen3_0p6b.get_config,
        pretrain_stdlib.get_config,
        lambda: pretrain_stdlib.get_config("tiny"),
    ],
)
def test_shipped_configs_are_valid(made):
    settings = registry.validated(made())
    made_of = {*registry.house().stages, *settings.runs, *(run.split("/")[0] for run in settings.runs)}
    assert settings.stages and set(settings.stages) <= made_of


@pytest.mark.parametrize(
    "module",
    [
        default,
        quickstart,
        synthetic,
        synthetic_controls,
        synthetic_phase,
        synthetic_causes,
        synthetic_known_answer,
        compare,
        predict,
        seed_factorial,
        pretrain_stdlib,
        paper_gpt2,
        pythia_160m,
        gemma2_2b,
        qwen3_0p6b,
    ],
)
def test_unknown_arguments_are_refused(module):
    with pytest.raises(ValueError, match="nonsense"):
        module.get_config("nonsense")


CASES = [
    ("train.lr", float("nan"), "train.lr.*finite"),
    ("train.lr", -1.0, "train.lr"),
    ("train.tokens", 0, "train.tokens"),
    ("train.clip_norm", float("inf"), "train.clip_norm.*finite"),
    ("train.lanes", -2, "train.lanes"),
    ("sae.k", 513, "config.sae.k=513: exceeds config.sae.n_features=512"),
    ("sae.variant", "nonsense", "sae.variant='nonsense': one of"),
    ("source.layer", -1, "source.layer"),
    ("source.site", "mlp", "source.site"),
    ("source.dtype", "float64", "source.dtype"),
    ("source.batch_size", 33, "source.shard_contexts.*batch_size"),
    ("stability.theta", 1.5, "stability.theta"),
    ("stability.epsilon", 0.7, "stability.epsilon"),
    ("stability.confidence", 1.0, "stability.confidence"),
    ("stability.null_seeds", 1, "stability.null_seeds=1: at least 2"),
    ("stability.thetas", (), "stability.thetas"),
    ("stability.thetas", (0.7, 1.2), "stability.thetas"),
    ("stability.epsilons", (0.5,), "stability.epsilons"),
    ("sensitivity.pairs", -1, "sensitivity.pairs"),
    ("sensitivity.candidates", 0, "sensitivity.candidates"),
    ("runs.gaussian.seeds", (1,), r"config.runs.gaussian: config.seeds=\(1,\): .*at least 2"),
    ("subspace.headline_rank", 17, "subspace.headline_rank"),
    ("subspace.ranks", (0, 16), "subspace.ranks"),
    ("atlas.seeds", 3, "atlas.seeds=3: at least 4"),
    ("atlas.min_rank", 1, "atlas.min_rank=1: at least 2"),
    ("atlas.max_rank", 3, "atlas.max_rank=3: 0 .* or at least min_rank=4"),
    ("atlas.capture", 0.4, r"atlas.capture=0.4: in \[0.5, 1\)"),
    ("atlas.density", 1.0, "atlas.density=1.0: above 1"),
    ("atlas.draws", 10, "atlas.draws=10: no p-value is below 0.0909"),
    ("diagnosis.explained", 1.5, r"diagnosis.explained=1.5: in \(0, 1\)"),
    ("transfer.seeds", 3, "transfer.seeds=3: at least 4"),
    ("seeds", (1,), "at least 2 seeds"),
    ("seeds", (3, 3), "distinct"),
    ("seeds", (-1, 2), "distinct seeds from 0"),
    ("seeds", (0, 2**32), "distinct seeds from 0"),
    ("data_seed", -2, "data_seed"),
    ("init_seed", -2, "init_seed"),
    ("sweep.lr", (0.0,), "sweep.lr.*above 0"),
    ("sweep.k", (4, 4), "sweep.k.*distinct"),
    ("sweep.k", (4, 17), "sweep.k.*at most sae.k=16"),
    ("sweep.sparsity", (1.0,), "sweep.sparsity.*'topk' has no penalty"),
    ("sweep.lr", (1e-3,), "config.stages=.*a sweep only trains"),
    ("train.data", "noise", "train.data='noise'"),
    ("train.eval_at_tokens", (10**9,), "train.eval_at_tokens"),
    ("sae.prefix_fractions", (0.5, 0.4), "sae.prefix_fractions"),
    ("sae.jump_bandwidth", 0.0, "sae.jump_bandwidth"),
    ("report.contexts", 0, "report.contexts"),
    ("stages", ("nonsense",), "config.stages='nonsense': one of 'activations'"),
    ("stages", (), r"config.stages=\(\): holds nothing"),
    ("stages", ("tokenizer",), "config.pretrain.*is missing: 'tokenizer' in config.stages reads it"),
]


@pytest.mark.parametrize(("field", "value", "says"), CASES, ids=[c[0] + "=" + str(c[1]) for c in CASES])
def test_bad_values_name_the_field(field, value, says):
    c = common.study()
    with c.unlocked():
        c.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match=says):
        registry.validated(c)


def test_a_field_too_many_or_too_few_is_named():
    c = common.study()
    c.train.nonsense = 1
    with pytest.raises(ValueError, match="config.train.nonsense is no field"):
        registry.validated(c)
    c = common.study()
    del c.train.lr
    with pytest.raises(ValueError, match="config.train.lr is missing"):
        registry.validated(c)


def test_what_only_some_variants_can_is_refused_for_the_others():
    c = common.study()
    c.train.export_sparsify, c.sae.variant = True, "gated"
    with pytest.raises(ValueError, match="train.export_sparsify=True: sparsify's format holds topk"):
        registry.validated(c)
    c = common.study()
    c.sae.variant, c.sweep.sparsity, c.stages = "l1", (1.0, 2.0), ("activations", "train")
    with pytest.raises(ValueError, match=r"sweep.sparsity=.*sae.control_rate=0"):
        registry.validated(c)
    c.sae.control_rate = c.sae.control_gain = 0.0
    assert registry.validated(c)[Sweep].sparsity == (1.0, 2.0)


def test_wrong_types_are_named():
    for field, value in (("train.tokens", 1.5), ("train.tokens", True), ("lm.path", 3), ("seeds", 8)):
        c = common.study().to_dict()
        section, _, name = field.partition(".")
        if name:
            c[section][name] = value
        else:
            c[section] = value
        with pytest.raises(ValueError, match=f"config.{field}.*must be"):
            registry.validated(ml_collections.ConfigDict(c))


def test_seeds_as_count_or_list():
    c = common.study()
    c.seeds = (3,)
    assert registry.validated(c)[Seeds].list == (0, 1, 2)
    c.seeds = (5, 2)
    assert registry.validated(c)[Seeds].list == (5, 2)


def test_a_comparison_wants_saes_and_takes_no_list():
    c = compare.get_config()
    with pytest.raises(ValueError, match="config.saes='': --config.saes=path1,path2"):
        registry.validated(c)
    c.saes = "a, b,"
    assert registry.validated(c)[Compared].paths == ("a", "b")
    c.stability.dictionaries = "list.json"
    with pytest.raises(ValueError, match="config.saes takes its place"):
        registry.validated(c)


@pytest.mark.parametrize("module", [quickstart, synthetic_causes, seed_factorial])
def test_a_config_that_a_run_wrote_is_the_config(module, tmp_path):
    c = module.get_config()
    path = tmp_path / "config.json"
    files.write_json(path, json.loads(c.to_json_best_effort()))
    one, two = registry.validated(c), registry.validated(saved.get_config(str(path)))
    assert (list(one), one.stages, one.runs) == (list(two), two.stages, two.runs) and list(one.runs) == list(two.runs)
    if Grid in one:
        assert list(one[Grid].cells) == list(two[Grid].cells)
    path.write_text("[]")
    with pytest.raises(ValueError, match=f"--config={path}: no config of a run"):
        saved.get_config(str(path))


@pytest.mark.parametrize("data", [b"\xff{}", b'{"stages": ', b'{"stages": ' + b"1" * 5000 + b"}", b"[]"])
def test_a_config_that_no_run_wrote_is_named_in_our_words(tmp_path, data):
    path = tmp_path / "config.json"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"--config={path}: no config of a run") as refused:
        saved.get_config(str(path))
    assert not any(word in str(refused.value) for word in ("codec", "Expecting", "Exceeds the limit"))
    with pytest.raises(ValueError, match="no config of a run can be read there: No such file"):
        saved.get_config(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("count", ["two", [2], 0, -1, True, 1.5])
def test_new_seeds_are_a_count(count):
    c = quickstart.get_config("tiny")
    c.runs.mine = ml_collections.ConfigDict({"new_seeds": count})
    with pytest.raises(ValueError, match=r"config.runs.mine.new_seeds=.*a whole number from 1"):
        registry.validated(c)


def test_new_seeds_begin_behind_those_of_the_study():
    c = compare.get_config()
    c.saes, c.runs = "a,b", ml_collections.ConfigDict({"mine": {"new_seeds": 2}})
    with pytest.raises(ValueError, match=r"config.runs.mine.new_seeds=2: .*config.seeds"):
        registry.validated(c)
