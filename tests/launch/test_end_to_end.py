"""The whole study at toy size, as a user starts it: finished, skipped, refused, stopped, resumed."""

import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from configs.default import MEASURING
from reports.results import Results
from saes.dictionary import first_features
from saes.formats import saelens, sparsify
from saes.variants import VARIANTS

ROOT = pathlib.Path(__file__).parents[2]
STAGES = ("activations", "train", *MEASURING, "splice", "report")


def command(workdir, *flags, config="configs/quickstart.py:tiny"):
    return [sys.executable, "-m", "launch.main", f"--config={config}", f"--workdir={workdir}", *flags]


def launch(workdir, *flags, config="configs/quickstart.py:tiny", **variables):
    env = os.environ | {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"} | variables
    return subprocess.run(command(workdir, *flags, config=config), cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def sums(workdir, stages=("activations", "train")):
    """Checksums of every result of the stages, as their records hold them."""
    return {s: json.loads((workdir / s / "stage.json").read_text())["outputs"] for s in stages}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("study")
    done = launch(workdir)
    assert done.returncode == 0, done.stderr
    return workdir, done


def test_it_ends_with_figures_and_the_path_of_the_page(finished):
    workdir, done = finished
    assert "mean p̂, live features" in done.stdout and f"report: {workdir / 'report' / 'index.html'}" in done.stdout
    assert "tok/s" in done.stderr  # progress with a rate
    summary = json.loads((workdir / "summary.json").read_text())
    for figure in ("mean_p_live", "stable_share_live", "mmcs", "explained_variance"):
        assert set(summary["stability"][figure]) == {"value", "low", "high", "null", "n", "unit", "replicates"}
        assert len(summary["stability"][figure]["replicates"]["without_seed"]) == len(summary["stability"]["seeds"])
    rates = summary["stability"]["firing_rate_unstable"]
    assert rates["low"] is None or len(rates["replicates"]["without_document"]) > 1
    assert set(summary["report"]["claims"]) == {"C1", "C2", "C3a", "C3b", "C3c", "C4", "C5", "C6", "C7"}
    assert json.loads((workdir / "config.json").read_text())["sae"]["n_features"] == 64


def test_tables_are_consistent(finished):
    workdir, _ = finished
    rows = pq.read_table(workdir / "stability" / "features.parquet").to_pylist()
    assert len(rows) == 3 * 64
    for row in rows:
        hits = [c >= 0.7 for c in row["best_cosine"] if c == c]
        assert len(hits) == row["comparisons"] == 2 and sum(hits) == row["reappearances"]
        assert row["p_low"] <= row["p"] <= row["p_high"] and row["best_partner"][row["seed"]] == -1
    results = Results(workdir, STAGES)
    mean = sum(r["p"] for r in rows) / len(rows)
    assert abs(results.figure("stability.mean_p_all")["value"] - mean) < 1e-9
    curve = results.table("stability/tokens_curve.parquet")
    assert curve[0]["tokens"] == 0 and abs(curve[-1]["p"] - mean) < 1e-9


def test_every_result_has_the_checksum_in_its_record(finished):
    workdir, _ = finished
    for stage, outputs in sums(workdir, STAGES).items():
        assert outputs
        for name, entry in outputs.items():
            assert hashlib.sha256((workdir / stage / name).read_bytes()).hexdigest() == entry["sha256"], name


def test_run_again_finds_everything_done(finished):
    workdir, _ = finished
    before = sums(workdir, STAGES)
    started = time.perf_counter()
    again = launch(workdir)
    assert again.returncode == 0 and again.stdout.count("done already, skipped") == len(STAGES)
    assert time.perf_counter() - started < 20  # 10 on a quiet machine
    assert sums(workdir, STAGES) == before


def test_from_a_stage_on(finished):
    workdir, _ = finished
    again = launch(workdir, "--from=statistics")
    skipped = [line.split(":")[0] for line in again.stdout.splitlines() if line.endswith("done already, skipped")]
    assert again.returncode == 0 and {"statistics", "explanations", "report"} <= set(skipped), again.stderr
    assert not {"activations", "train", "stability"} & set(skipped)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_our_letters_gets_question_marks(finished, encoding):
    workdir, _ = finished
    done = launch(workdir, PYTHONIOENCODING=encoding)
    assert done.returncode == 0 and "mean p?" in done.stdout, done.stderr


def test_the_checkout_is_no_workdir():
    before = {p: p.stat().st_mtime_ns for p in ROOT.iterdir() if not p.name.startswith(".")}
    refused = launch(".")
    assert refused.returncode == 1 and refused.stderr.startswith("error: --workdir=. holds ") and refused.stderr.count("\n") == 1
    assert {p: p.stat().st_mtime_ns for p in ROOT.iterdir() if not p.name.startswith(".")} == before


@pytest.mark.parametrize("stages", [STAGES[:3], pytest.param(STAGES, marks=pytest.mark.slow)], ids=["to stability", "all"])
def test_two_processes_give_the_same_bits(finished, tmp_path, monkeypatch, stages):
    workdir, _ = finished
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "false")  # compiled anew too
    assert launch(tmp_path, f"--stages={','.join(stages)}").returncode == 0
    assert sums(tmp_path, stages) == sums(workdir, stages)


def test_stopped_by_a_signal_and_started_again_is_the_unbroken_run(finished, tmp_path):
    workdir, _ = finished
    env = os.environ | {"JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(
        command(tmp_path, "--stages=activations,train"), cwd=ROOT, env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    metrics = tmp_path / "train" / "round-0" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline and not (metrics.exists() and metrics.read_text().count("\n") >= 2):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "run the same command again" in err
    resumed = launch(tmp_path, "--stages=activations,train")
    assert resumed.returncode == 0, resumed.stderr
    assert sums(tmp_path) == sums(workdir)


def test_other_fields_are_refused_and_nothing_is_lost(finished):
    workdir, _ = finished
    before = sums(workdir, STAGES)
    for flag, field in (
        ("--config.sae.k=5", "sae.k=4, now 5"),
        ("--config.source.layer=2", "source.layer=1, now 2"),
        ("--config.data_seed=4", "data_seed=0, now 4"),
    ):
        refused = launch(workdir, flag)
        assert refused.returncode == 1 and f"config.{field}" in refused.stderr
        assert refused.stderr.strip().count("\n") == 0
    assert sums(workdir, STAGES) == before


@pytest.mark.slow
def test_changed_report_fields_run_the_report_alone(finished):
    workdir, _ = finished
    changed = launch(workdir, "--config.report.examples=2")
    assert changed.returncode == 0 and changed.stdout.count("done already, skipped") == len(STAGES) - 1 and "report: done" in changed.stdout
    assert launch(workdir).returncode == 0  # and back


def test_the_page_needs_nothing_from_elsewhere(finished):
    workdir, _ = finished
    page = (workdir / "report" / "index.html").read_text()
    markup = page.split("<script>")[0]
    assert "http" not in markup and "<link" not in markup and " src=" not in markup
    assert 'class="context"' in page  # features with the text on which they fire
    for name in (
        "p_histogram",
        "p_against_rate",
        "match_distribution",
        "theta_curve",
        "labels",
        "criteria",
        "pairs",
        "tokens_curve",
        "masking",
        "keeping",
        "parts",
        "deciles",
        "spliced",
        "surface",
        "training",
    ):
        assert f'id="{name}"' in page
        assert (workdir / "report" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--config=configs/nowhere.py"], "no config file configs/nowhere.py"),
        (["--nonsense=1"], "Unknown command line flag 'nonsense'"),
        (["--config.nonsense=1"], "nonsense"),
        (["--config.train.tokens=many"], "tokens"),
        (["--config.train.lr=nan"], "config.train.lr=nan: must be a finite number"),
        (["--config.sae.k=3", "--config.sae.k=4"], "--config.sae.k is given more than once"),
        (["stray"], "'stray' is no flag"),
        (["--stages=nonsense"], "--stages: 'nonsense' is not among"),
        (["--config.source.layer=9"], "config.source.layer=9: the model has layers 0 to 3"),
        (["--config.lm.path=/nowhere"], "config.lm.path: nothing at /nowhere"),
    ],
)
def test_wrong_input_gets_one_clear_line(tmp_path, flags, says):
    done = launch(tmp_path / "w", *flags)
    assert done.returncode == 1 and says in done.stderr
    assert "Traceback" not in done.stderr


def test_damaged_files_are_named(finished, tmp_path):
    workdir, _ = finished
    path = workdir / "activations" / "eval" / "shard-00000.safetensors"
    data = path.read_bytes()
    try:
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        done = launch(workdir, "--config.report.examples=3")
        assert done.returncode == 1 and "shard-00000.safetensors does not match its sha256" in done.stderr
        assert "Traceback" in (workdir / "error.log").read_text()
        mended = launch(workdir, "--stages=activations", "--overwrite")  # what the message says helps
        assert mended.returncode == 0 and path.read_bytes() == data
    finally:
        path.write_bytes(data)


def test_a_list_of_dictionaries_that_is_not_there_is_named(tmp_path):
    stages = "--config.stages=('stability', 'subspace', 'report')"
    assert launch(tmp_path / "none", stages, "--config.stability.dictionaries=/nowhere.json").stderr.startswith(
        "error: no list of dictionaries at"
    )
    assert "is a folder: name the list" in launch(tmp_path / "none", stages, f"--config.stability.dictionaries={tmp_path}").stderr


COMPARE = "configs/compare.py"


def test_saes_read_back_from_another_format_have_the_same_p_to_the_last_digit(finished, tmp_path):
    workdir, _ = finished
    for seed in range(3):
        one, _ = saelens.load(workdir / "train" / "sae" / f"seed-{seed}")
        sparsify.save(tmp_path / "layers.1" / f"seed{seed}", one)
    flags = [f"--config.saes={tmp_path / 'layers.1'}", f"--config.source.activations={workdir / 'activations' / 'eval'}"]
    small = ["--config.stability.rare_firings=5", "--config.stability.null_draws=1", "--config.sensitivity.rows=1024"]
    done = launch(tmp_path / "w", *flags, *small, config=COMPARE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("(sparsify)") == 3
    here, there = (pq.read_table(w / "stability" / "features.parquet") for w in (tmp_path / "w", workdir))
    for column in ("seed", "feature", "reappearances", "p", "p_low", "p_high", "label", "stratum", "best_partner", "firing_rate"):
        assert here[column].equals(there[column]), column
    assert 'class="context"' in (tmp_path / "w" / "report" / "index.html").read_text()  # the text beside the store is found
    again = launch(tmp_path / "w", *flags, *small, config=COMPARE)
    assert again.stdout.count("done already, skipped") == len(MEASURING) + 2


def test_saes_of_different_size_are_compared_with_a_direction(finished, tmp_path):
    workdir, _ = finished
    one, about = saelens.load(workdir / "train" / "sae" / "seed-0")
    saelens.save(tmp_path / "part", first_features(one, 20), about)
    folders = [workdir / "train" / "sae" / "seed-0", tmp_path / "part", workdir / "train" / "sae" / "seed-2"]
    done = launch(tmp_path / "w", f"--config.saes={','.join(map(str, folders))}", config=COMPARE)
    assert done.returncode == 0, done.stderr
    assert "Dictionaries differ in size: p̂ has a direction" in done.stdout and "No activations were given" in done.stdout
    pairs = {(r["anchor"], r["other"]): r for r in Results(tmp_path / "w", STAGES).table("stability/pairs.parquet")}
    assert pairs[1, 0]["p"] == 1.0 and pairs[0, 1]["p"] < 0.5 and pairs[1, 0]["features"] == 20 and pairs[1, 0]["features_other"] == 64
    assert pq.read_table(tmp_path / "w" / "stability" / "features.parquet").num_rows == 64 + 20 + 64
    assert "F = 20 to 64" in (tmp_path / "w" / "report" / "index.html").read_text()
    stranger = launch(tmp_path / "x", f"--config.saes={folders[0]},{workdir / 'activations'}", config=COMPARE)
    assert stranger.returncode == 1 and "no SAE there nor in the folders in it" in stranger.stderr and "Traceback" not in stranger.stderr


@pytest.mark.slow
def test_a_cell_of_a_sweep_is_measured_in_the_workdir_that_trained_it(tmp_path):
    trained = launch(tmp_path, "--config.stages=('activations', 'train')", "--config.sweep.k=2,4", "--config.train.tokens=6000")
    assert trained.returncode == 0 and "k=2" in trained.stdout, trained.stderr
    cell = f"--config.stability.dictionaries={tmp_path / 'train' / 'cells' / 'k=2' / 'dictionaries.json'}"
    done = launch(tmp_path, "--config.stages=('stability', 'subspace', 'report')", cell)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report" / "index.html").read_text()
    assert "3 topk SAEs, F = 64, K = 2, on models/stdlib-neox-4x128 after layer 1 (resid_post); they differ in initialisation" in page
    assert 'id="training"' not in page and "3 topk SAEs, F=64" in (tmp_path / "report" / "claims.md").read_text()


def test_the_typo_of_a_first_run_does_not_lock_the_workdir(tmp_path):
    assert launch(tmp_path, "--stages=activations", "--config.source.layer=9").returncode == 1
    assert launch(tmp_path, "--stages=activations").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "topk"])
def test_one_flag_switches_the_variant(tmp_path, variant):
    done = launch(tmp_path, f"--config.sae.variant={variant}")
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "train" / "sae" / "seed-2" / "cfg.json").read_text())
    assert config["metadata"]["training_architecture"] == variant
    assert config["architecture"] == {"gated": "gated", "l1": "standard"}.get(variant, "jumprelu")
    assert (tmp_path / "report" / "index.html").exists() and "mean p̂, live features" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--config.sae.variant=batchtopk", "--config.train.seeds_at_once=2"]], ids=["topk", "rounds"])
def test_killed_at_random_moments_it_ends_with_the_same_bytes(tmp_path, flags):
    """kill −9 at 20 moments of train, each time started again; the second in two rounds, with thresholds carried along."""
    import random

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert launch(whole, "--stages=activations,train", *flags).returncode == 0
    assert launch(broken, "--stages=activations").returncode == 0
    rng = random.Random(0)
    env = os.environ | {"JAX_PLATFORMS": "cpu"}
    kills = 0
    while kills < 20:
        process = subprocess.Popen(
            command(broken, "--stages=train", *flags), cwd=ROOT, env=env, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        time.sleep(rng.uniform(1.5, 7.0))
        if process.poll() is None:
            process.kill()
        else:  # it was done before: from the beginning, so that every one of the 20 hits a running process
            shutil.rmtree(broken / "train")
            kills -= 1
        process.wait()
        kills += 1
    assert launch(broken, "--stages=train", *flags).returncode == 0
    assert sums(broken) == sums(whole)
