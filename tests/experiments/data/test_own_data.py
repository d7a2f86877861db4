"""A study on a user's own text and one on a user's own arrays, as a user starts them; their bad input."""

import json

import numpy as np
import pytest
import safetensors.numpy

from activations.harvest import Harvest
from activations.store import ActivationStore
from configs import quickstart
from experiments.data import sources
from tests.activations.language_model import small_models
from tests.experiments.tasks import run_stage, task
from tests.launch.test_end_to_end import launch

EARLY = ('--config.stages=("activations","train","stability")', "--config.source.tokens=3000", "--config.source.eval_tokens=1000")
WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "saw",
    "that",
    "it",
    "was",
    "good",
    "to",
    "be",
    "there",
    "for",
    "some",
    "time",
    "with",
    "nothing",
    "else",
    "to",
    "do",
]


def texts(count=200):
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, 30)) + f" {i}." for i in range(count)]


def jsonl(path, lines):
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in lines))
    return path


def test_a_local_jsonl(tmp_path):
    path = jsonl(tmp_path / "mine.jsonl", texts(400))
    done = launch(tmp_path / "run", *EARLY, f"--config.source.text={path}", "--config.source.batch_size=8")
    assert done.returncode == 0, done.stderr
    assert "nats a token (chance 8.32)" in done.stdout and "of this device's matrix products" in done.stdout
    train, held_out = (ActivationStore(tmp_path / "run" / "activations" / part) for part in ("train", "eval"))
    assert train.manifest["text"] == "mine.jsonl" and train.rows >= 3000 and held_out.rows >= 1000
    assert set(train.manifest["documents"]).isdisjoint(held_out.manifest["documents"])
    config = json.loads((tmp_path / "run" / "train" / "sae" / "seed-0" / "cfg.json").read_text())
    assert config["metadata"]["dataset_path"] == str(path)
    # The same text again: done; other text in the same file: refused.
    assert (
        "activations: done already, skipped"
        in launch(tmp_path / "run", *EARLY, f"--config.source.text={path}", "--config.source.batch_size=8").stdout
    )
    jsonl(path, [*texts(400), "one more"])
    changed = launch(tmp_path / "run", *EARLY, f"--config.source.text={path}", "--config.source.batch_size=8")
    assert changed.returncode == 1 and "was made from other inputs (corpus changed)" in changed.stderr


def test_arrays_of_any_modality_and_the_report(tmp_path):
    """Everything that needs no language model works, contexts too where tokens and their texts are given."""
    rng = np.random.default_rng(0)
    atoms = rng.standard_normal((40, 24))
    codes = np.maximum(rng.standard_normal((600, 10, 40)) - 1.5, 0)
    np.save(tmp_path / "x.npy", (codes @ atoms).astype(np.float16))
    np.save(tmp_path / "x.tokens.npy", rng.integers(0, len(WORDS), (600, 10)))
    (tmp_path / "vocabulary.json").write_text(json.dumps([f" {w}" for w in WORDS]))
    flags = (
        f"--config.source.activations={tmp_path / 'x.npy'}",
        "--config.source.activations_of=a retina",
        "--config.source.eval_tokens=600",
    )
    done = launch(tmp_path / "run", *flags)
    assert done.returncode == 0, done.stderr
    train, held_out = (ActivationStore(tmp_path / "run" / "activations" / part) for part in ("train", "eval"))
    assert (train.rows, held_out.rows) == (5400, 600)
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    assert "a retina" in page and "cat" in page
    metadata = json.loads((tmp_path / "run" / "train" / "sae" / "seed-0" / "cfg.json").read_text())["metadata"]
    assert (metadata["model_name"], metadata["hook_name"]) == ("a retina", "activations")
    again = launch(tmp_path / "run", *flags)
    assert "activations: done already, skipped" in again.stdout and "report: done already" in again.stdout
    # Changed in place: refused, by name.
    x = np.load(tmp_path / "x.npy")
    x[5, 5] += 1
    np.save(tmp_path / "x.npy", x)
    changed = launch(tmp_path / "run", *flags)
    assert changed.returncode == 1 and "x.npy changed" in changed.stderr


@pytest.mark.slow
def test_saes_trained_on_arrays_are_compared_on_arrays(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", np.maximum(rng.standard_normal((6000, 40)) - 1.5, 0) @ rng.standard_normal((40, 24)))
    arrays = f"--config.source.activations={tmp_path / 'x.npy'}"
    trained = launch(tmp_path / "run", '--config.stages=("activations","train")', arrays, "--config.source.eval_tokens=600")
    assert trained.returncode == 0, trained.stderr
    compared = launch(tmp_path / "compared", f"--config.saes={tmp_path / 'run' / 'train' / 'sae'}", arrays, config="configs/compare.py")
    assert compared.returncode == 0, compared.stderr
    assert json.loads((tmp_path / "compared" / "summary.json").read_text())["stability"]["explained_variance"]["value"] > 0


@pytest.mark.slow
def test_held_out_arrays_of_their_own(tmp_path):
    x = np.random.default_rng(0).standard_normal((2000, 24)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "y.npz", acts=x[:500] + 1)
    flags = (
        f"--config.source.activations={tmp_path / 'x.npy'}",
        f"--config.source.eval_activations={tmp_path / 'y.npz'}",
        "--stages=activations",
    )
    assert launch(tmp_path / "run", *flags).returncode == 0
    assert ActivationStore(tmp_path / "run" / "activations" / "train").rows == 2000
    assert (ActivationStore(tmp_path / "run" / "activations" / "eval").load().acts_ND == x[:500] + 1).all()
    np.savez(tmp_path / "y.npz", acts=x[:500, :20])
    wrong = launch(tmp_path / "other", *flags)
    assert (
        wrong.returncode == 1
        and "config.source.eval_activations: " in wrong.stderr
        and "has width 20, source.activations 24" in wrong.stderr
    )


def test_a_model_and_a_site_that_a_flag_names(tmp_path):
    """A family that is not the embedded one, in several files, read in bfloat16 at another site."""
    folder = small_models.write(tmp_path / "model", "gemma2", shards=2)
    vocabulary = [chr(ord("a") + i % 26) * (1 + i // 26) for i in range(61)]
    import tokenizers

    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(vocabulary)}, unk_token="a"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    (folder / "tokenizer.json").write_text(words.to_str())
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "a"}))
    rng = np.random.default_rng(0)
    path = jsonl(tmp_path / "mine.jsonl", [" ".join(rng.choice(vocabulary, 60)) for _ in range(100)])
    flags = (
        *EARLY[1:], f"--config.source.text={path}", f"--config.lm.path={folder}", "--config.lm.dtype=bfloat16", "--config.source.site=mlp_act",
        "--config.source.layer=2", "--config.source.dtype=bfloat16", "--config.source.context_length=32", "--stages=activations",
    )  # fmt: skip
    done = launch(tmp_path / "run", *flags)
    assert done.returncode == 0, done.stderr
    assert "worse than chance" in done.stdout  # random weights
    store = ActivationStore(tmp_path / "run" / "activations" / "train")
    assert store.width == 48 and store.manifest["hook"] | {"model": "", "commit": ""} == {
        "model": "", "commit": "", "path": str(folder), "layer": 2, "site": "mlp_act"
    }  # fmt: skip
    assert (store.load().token_N < 61).all() and store.load().position_N.max() == 59


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--config.source.text=nowhere.txt"], "config.source.text: nothing at nowhere.txt"),
        pytest.param(["--config.source.text=README.md"], "README.md is no .txt or .jsonl file", marks=pytest.mark.slow),
        (["--config.source.activations=nowhere.npy"], "config.source.activations: nothing at nowhere.npy"),
        pytest.param(["--config.source.activations=README.md"], "is no .npy, .npz, .safetensors file", marks=pytest.mark.slow),
        pytest.param(["--config.source.site=nowhere"], "config.source.site='nowhere': one of", marks=pytest.mark.slow),
        (["--config.source.site=resid_mid"], "config.source.site='resid_mid': layers of this gpt_neox model have"),
        pytest.param(["--config.source.layer=9"], "config.source.layer=9: the model has layers 0 to 3", marks=pytest.mark.slow),
        pytest.param(
            ["--config.source.start_token=nonsense"], "no token 'nonsense': set config.source.start_token", marks=pytest.mark.slow
        ),
        (
            ["--config.lm.path=owner/none"],
            "config.lm.path: no file or folder owner/none on this machine; taken for a hub id it could not be fetched",
        ),
        pytest.param(["--config.lm.path=./none"], "config.lm.path: nothing at ./none", marks=pytest.mark.slow),
        pytest.param(["--config.lm.dtype=float16"], "config.lm.dtype='float16'", marks=pytest.mark.slow),
        pytest.param(["--config.lm.model_parallel=3"], "config.lm.model_parallel=3: must divide this host's", marks=pytest.mark.slow),
        pytest.param(["--config.source.eval_activations=x.npy"], "speak of source.activations", marks=pytest.mark.slow),
        (["--config.source.batch_size=7"], "must be a multiple of source.batch_size=7"),
    ],
)
def test_wrong_input_gets_one_clear_line(tmp_path, flags, says):
    done = launch(tmp_path / "run", *flags)
    assert done.returncode == 1 and says in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error:")]) == 1 and "Traceback" not in done.stderr


def test_a_row_that_is_not_finite_is_named(tmp_path):
    x = np.random.default_rng(0).standard_normal((3000, 8)).astype(np.float32)
    x[123, 4] = np.nan
    safetensors.numpy.save_file({"acts": x}, tmp_path / "x.safetensors")
    done = launch(tmp_path / "run", f"--config.source.activations={tmp_path / 'x.safetensors'}")
    assert done.returncode == 1 and "x.safetensors: row 123 holds NaN or infinity" in done.stderr
    x[123, 4] = 0  # mended: the workdir is not locked by the failure
    safetensors.numpy.save_file({"acts": x}, tmp_path / "x.safetensors")
    assert launch(tmp_path / "run", f"--config.source.activations={tmp_path / 'x.safetensors'}", "--stages=activations").returncode == 0


def test_arrays_that_were_moved_are_the_same_and_are_read_where_they_are_now(tmp_path):
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((n, 8)).astype(np.float32) for n in (3000, 400))
    (tmp_path / "here").mkdir()
    np.save(tmp_path / "here" / "x.npy", x)
    np.save(tmp_path / "here" / "y.npy", y)

    def config(place):
        c = quickstart.get_config("tiny")
        c.source.activations, c.source.eval_activations = (str(tmp_path / place / name) for name in ("x.npy", "y.npy"))
        c.source.eval_tokens, c.stages = 400, ("activations", "train", "stability")
        return c

    def at(place, stage):
        return task(stage, config(place), tmp_path / "w")

    run_stage("activations", config("here"), tmp_path / "w")
    before, fingerprint = at("here", "activations").inputs(), at("here", "activations").fingerprint()
    (tmp_path / "here").rename(tmp_path / "there")
    assert at("there", "activations").inputs() == before and at("there", "activations").fingerprint() == fingerprint
    assert (sources.evaluation_rows(at("there", "stability")) == y).all()
    stored = sources.source(at("there", "train"))
    sample = stored.sample()
    assert stored.rows == 3000 and (np.sort(sample[:, 0]) == np.sort(x[:, 0])).all()
    with pytest.raises(FileNotFoundError, match="config.source.activations: nothing at .*here/x.npy"):
        at("here", "activations").inputs()


def test_a_tokenizer_of_another_vocabulary(tmp_path):
    folder = small_models.write(tmp_path / "model", "llama")  # 61 embeddings, a tokenizer of 300
    path = jsonl(tmp_path / "mine.jsonl", texts())
    done = launch(tmp_path / "run", f"--config.lm.path={folder}", f"--config.source.text={path}")
    assert done.returncode == 1 and "lm.path holds a tokenizer of another vocabulary" in done.stderr


def test_a_stop_between_the_splits_harvests_nothing_again(tmp_path, monkeypatch):
    """The finished training store stands, though the stage is not done."""
    config = quickstart.get_config("tiny")
    config.source.text = str(jsonl(tmp_path / "mine.jsonl", texts(400)))
    config.source.tokens, config.source.eval_tokens = 3000, 400
    made, original = [], Harvest.run

    def run(self, contexts, writer, progress, before_shard):
        if len(made) == 1:
            made.append(None)
            raise KeyboardInterrupt
        made.append(original(self, contexts, writer, progress, before_shard).rows)
        return original(self, contexts, writer, lambda n: None, before_shard)

    monkeypatch.setattr(Harvest, "run", run)
    with pytest.raises(KeyboardInterrupt):
        run_stage("activations", config, tmp_path / "w")
    run_stage("activations", config, tmp_path / "w")
    first, stopped, again, rest = made
    assert first >= 3000 and stopped is None and again == 0 and rest >= 400
