"""Statistics and explanations of features of which it is known what they respond to, through files and the runner."""

import json
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from activations.store import Rows
from activations.text.contexts import row_contexts
from configs import compare, quickstart
from experiments.data import dictionary_list, row_texts
from experiments.interpretation import explanations, statistics
from experiments.registry import validated
from interpret.contexts import Context
from interpret.rules import RuleBased
from launch import run as runner
from saes.dictionary import Dictionary, encode
from saes.formats import saelens
from storage.tables import read_records, read_table
from tests.experiments.tasks import task
from tests.interpret.test_endpoint import Server, answer, ok

D, S, N, LENGTH = 24, 4, 4000, 40
WORDS = [
    "self",
    "ing",
    "running",
    "0",
    "42",
    "(",
    "):",
    " ",
    "\n",
    "Class",
    "<script>alert(1)</script>",
    "é",
    *(f"w{i}" for i in range(20)),
]
V = len(WORDS)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """SAEs of which features 0 to 9 fire on one token each and are shared, and 10 to 19 anywhere, on directions of each seed's own."""
    folder, rng = tmp_path_factory.mktemp("features"), np.random.default_rng(0)
    token_N = rng.integers(0, V, N).astype(np.int32)
    frame = np.linalg.qr(rng.normal(size=(D, D)))[0]
    acts = np.zeros((N, D), np.float32)
    for f in range(10):
        acts[token_N == f] += frame[f]
    acts += 0.5 * rng.normal(size=(N, 10)) @ frame[10:20]
    np.save(folder / "acts.npy", acts)
    np.save(folder / "acts.tokens.npy", token_N)
    np.save(folder / "acts.documents.npy", (np.arange(N) // LENGTH).astype(np.int32))
    np.save(folder / "acts.positions.npy", (np.arange(N) % LENGTH).astype(np.int32))
    (folder / "vocabulary.json").write_text(json.dumps(WORDS))
    for seed in range(S):
        turned = np.linalg.qr(rng.normal(size=(10, 10)))[0] @ frame[10:20]
        rows = np.concatenate([frame[:10], turned]).astype(np.float32)
        bias = np.repeat([-0.6, -0.9], 10).astype(np.float32)
        saelens.save(epath.Path(folder) / f"seed-{seed}", Dictionary(rows.T.copy(), bias, rows, np.zeros(D, np.float32), architecture="standard"), {"model_name": "m", "seed": seed})  # fmt: skip
    c = compare.get_config()
    c.saes = ",".join(str(folder / f"seed-{seed}") for seed in range(S))
    c.source.activations, c.source.eval_tokens = str(folder / "acts.npy"), N
    c.stages = ("collect", "stability", "function", "statistics", "explanations", "report")
    c.stability.rare_firings, c.stability.null_draws = 20, 1
    c.function.ratio, c.function.bins, c.explanations.pairs, c.explanations.contexts, c.explanations.candidates = 1, 2, 8, 5, 6
    workdir = epath.Path(folder / "run")
    run(c, workdir)
    return c, workdir


def run(config, workdir, *only):
    runner.run(config, validated(config), workdir, list(only), start="", overwrite=False)


def summary_of(workdir, stage):
    return json.loads((workdir / stage / "summary.json").read_text())


def test_features_of_one_token_are_surface_form_and_those_anywhere_are_not(study):
    _, workdir = study
    table = read_table(workdir / "statistics" / "features.parquet")
    shared = table["feature"] < 10
    assert (table["top_token_share"][shared] > 0.99).all() and (table["f1"][shared] > 0.99).all() and np.isnan(table["fall"]).all()
    assert (table["predictor"][table["feature"] == 0] == "is «self»").all() and (table["token_entropy"][shared] < 1e-6).all()
    assert (table["f1"][~shared] < 0.25).all() and (table["top_token_share"][~shared] < 0.25).all()
    assert (table["f1"] < table["f1_fit"])[~shared].mean() > 0.8  # judged where the rule was not chosen
    ratio = table["token_entropy"][~shared] / table["token_entropy_null"][~shared]
    assert (np.abs(ratio - 1) < 0.1).all() and (np.abs(table["dispersion"] - 1) < 0.75).all()
    s = summary_of(workdir, "statistics")
    assert s["surface_stable"]["value"] == 1.0 and s["surface_unstable"]["value"] == 0.0 == s["surface_stable"]["null"]
    assert s["surface_difference"]["high"] == -1.0 and s["sign_flip_p"]["surface_auroc"] == 2 / 2**S
    assert (
        s["surface_auroc"]["value"] == 0.0 and s["surface_scored_unstable"]["value"] == 1.0
    )  # no unstable feature scores above a stable one
    cut = read_table(workdir / "statistics" / "cutoffs.parquet")
    assert cut["value"][(cut["features"] == "unstable less stable") & (cut["cutoff"] == 0.5)] == [-1.0]
    assert s["f1_unstable"]["value"] < s["f1_unstable"]["null"] + 0.1 and s["fall_known"] is False


def test_rules_explain_the_former_and_not_the_latter(study):
    _, workdir = study
    s = summary_of(workdir, "explanations")
    assert s["by"] == RuleBased().name and s["features"] == 16 and s["unusable"] == {"explanation": 0, "kind": 0, "detection": 0}
    assert s["detection_stable"]["value"] == 1.0 and abs(s["detection_unstable"]["value"] - 0.5) < 0.2
    rows = [r for r in read_records(workdir / "explanations" / "features.parquet") if r["label"] == "stable"]
    assert all(
        WORDS[r["feature"]].strip() in json.loads(r["explanation"][r["explanation"].index('"') :])
        for r in rows
        if WORDS[r["feature"]].strip()
    )


def test_features_are_explained_from_one_half_and_detected_in_the_other(study, monkeypatch):
    c, workdir = study
    of_stage = task("explanations", c, workdir)

    class Reader:
        def __init__(self, *of):
            del of

        def context(self, row, before, after):
            return Context(str(row), "", "", "")

    monkeypatch.setattr(explanations, "ContextReader", Reader)
    listed, text = dictionary_list.saes(of_stage), row_texts.read(of_stage)
    chosen = [explanations.FeatureChoice(s, f, "", pair) for s in range(2) for f, pair in ((0, s), (12, s), (3, 2 + s), (4, 2 + s))]
    for f, made in zip(chosen, explanations._tasks(of_stage, listed, chosen, text), strict=True):
        z_N = np.asarray(encode(jax.device_put(listed.dictionaries[f.seed]), jnp.asarray(text.rows.acts_ND)))[:, f.feature]
        shown, asked = ([int(c.before) for c in of] for of in (made.explain_contexts, made.detect_contexts))
        assert (text.context_N[shown] % 2 == 0).all() and (text.context_N[asked] % 2 == 1).all()
        assert len(set(asked)) == len(asked) == 6 and made.detect_fires.sum() == 3
        np.testing.assert_array_equal(z_N[asked] > 0, made.detect_fires)
        np.testing.assert_allclose(z_N[shown], made.explain_activations, rtol=1e-5)
        # Feature 0 fires wherever its token stands, 12 anywhere; held against places of other tokens alike.
        tokens = text.rows.token_N[asked]
        assert not np.isin(tokens[3:], tokens[:3]).any()


def test_pairs_fire_about_equally_often_and_no_feature_twice(study):
    c, workdir = study
    table = read_table(workdir / "stability" / "features.parquet", ("seed", "feature", "firing_rate"))
    rate = {(s, f): r for s, f, r in zip(table["seed"].tolist(), table["feature"].tolist(), table["firing_rate"], strict=True)}
    rows = read_records(workdir / "explanations" / "features.parquet")
    assert len({(r["seed"], r["feature"]) for r in rows}) == len(rows)
    for stable, unstable in zip(rows[::2], rows[1::2], strict=True):
        assert (stable["label"], unstable["label"]) == ("stable", "unstable") and stable["seed"] == unstable["seed"]
        assert abs(np.log(rate[stable["seed"], stable["feature"]] / rate[unstable["seed"], unstable["feature"]])) <= np.log(1.5)


def test_the_page_escapes_what_features_fire_on(study):
    _, workdir = study
    page = (workdir / "report" / "index.html").read_text()
    assert "<script>alert(1)" not in page and "\\u003cscript>alert(1)\\u003c/script>" in page
    assert "is \\u00abself\\u00bb" in page  # the table of features, as JSON
    assert all((workdir / "report" / f"{name}.png").exists() for name in ("surface", "explanations", "masking", "parts"))


class ByRules(Server):
    """A loopback endpoint that answers as the rules do, or with an error."""

    def __init__(self, fails=False):
        super().__init__()
        self.fails, self.script, self.says = fails, self, None

    def get(self, prompt, default):
        del default
        return [(500, b"oops", {})] if self.fails else [ok(answer(self.says or RuleBased().complete([prompt])[0]))]


@pytest.fixture
def asked(study, monkeypatch):
    """(config, workdir, server) of the stage by an endpoint."""
    c, workdir = study
    with ByRules() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_address[1]}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
        c = c.copy_and_resolve_references()
        c.explanations.model, c.explanations.pairs, c.explanations.retries = "m", 2, 0
        c.explanations.price_in, c.explanations.price_out = 1000.0, 1000.0
        yield c, workdir, server
        server.shutdown()
        thread.join()


def test_an_endpoint_is_asked_once_whatever_is_run_again(asked, capsys):
    c, workdir, server = asked
    run(c, workdir, "explanations")
    said = capsys.readouterr()
    assert "questions to m at" in said.out and "cost" in said.out and "sk-secret" not in said.out + said.err
    questions = sum(server.counts.values())
    assert len(server.counts) == questions == summary_of(workdir, "explanations")["usage"]["requests"]
    assert 8 < questions <= 12  # equal ones are asked once
    assert not any(word in prompt for prompt in server.counts for word in ("stable", "seed", "p̂"))
    c.explanations.timeout = 30.0  # how it is asked changes no answer
    run(c, workdir, "explanations")
    assert "explanations: done already, skipped" in capsys.readouterr().out
    c.explanations.pairs = 1  # another config: the stage runs again, and asks nothing
    run(c, workdir, "explanations")
    assert summary_of(workdir, "explanations")["features"] == 2
    c.explanations.pairs, c.explanations.most_cost = 2, 1e-6  # what is kept costs nothing
    run(c, workdir, "explanations")
    assert summary_of(workdir, "explanations")["features"] == 4
    assert sum(server.counts.values()) == questions


def test_a_document_that_nobody_cut_is_cut_into_contexts(study, tmp_path):
    """Else one document would be one half of the tokens, and nothing could be judged on the other."""
    c, _ = study
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(600, D)).astype(np.float32))
    np.save(tmp_path / "x.tokens.npy", np.arange(600, dtype=np.int32) % V)
    (tmp_path / "vocabulary.json").write_text(json.dumps(WORDS))
    c = c.copy_and_resolve_references()
    c.source.activations, c.stages = str(tmp_path / "x.npy"), ("collect",)
    run(c, epath.Path(tmp_path / "w"))
    found = row_texts.read(task("statistics", c, tmp_path / "w"))
    assert found.context_N.tolist() == (np.arange(600) // 256).tolist() and found.position_N.max() == 255


def test_what_would_cost_too_much_is_not_asked(asked):
    c, workdir, server = asked
    c.explanations.most_cost, c.explanations.contexts = 1e-3, 4
    with pytest.raises(ValueError, match="explanations.most_cost=0.001: the questions are expected to cost"):
        run(c, workdir, "explanations")
    assert not server.requests


def test_answers_that_cannot_be_used_are_said(asked, capsys):
    c, workdir, server = asked
    server.says = "I would rather not."
    c.explanations.contexts = 7
    run(c, workdir, "explanations")
    assert "answers that could not be used: 4 of 4 to the explanation" in capsys.readouterr().out


def test_a_missing_endpoint_is_found_out_at_once(asked, monkeypatch):
    c, workdir, server = asked
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(explanations, "_tasks", lambda *args: pytest.fail("too late"))
    c.explanations.contexts = 6
    with pytest.raises(ValueError, match="no endpoint to ask: set OPENAI_BASE_URL"):
        run(c, workdir, "explanations")


def test_an_endpoint_that_fails_gets_one_line(asked):
    c, workdir, server = asked
    c.explanations.contexts = 3
    server.fails = True
    with pytest.raises(ValueError, match="500"):
        run(c, workdir, "explanations")


def test_silent_places_of_the_same_tokens_are_as_many_for_both_of_a_pair():
    rng = np.random.default_rng(0)
    token = np.array([1, 1, 1, 2, 3, 3, 4, 5])
    silent = np.array([False, True, False, True, False, False, True, True])
    assert explanations._alike(rng, token, [0], silent) == [1]
    assert explanations._alike(rng, token, [0, 2], silent) == [1]  # the second has none left of its own
    assert explanations._alike(rng, token, [4], silent & False) == []
    some = explanations.Candidates([0, 4], [1], silent)
    fires, without = explanations._held_against(rng, token, some, 2, 1)
    assert fires == [0, 4] and without[0] == 1 and without[1] in (3, 6, 7)
    fires, without = explanations._held_against(rng, token, some, 2, 0)
    assert len(without) == 2 and not set(without) & {1}  # others of other tokens alone
    assert explanations._held_against(rng, token, some._replace(silent_N=silent & False), 2, 0) == ([], [])


def harvested(tokens=8, documents=3, length=150):
    """Rows of documents whose activations say which token they are."""
    rng = np.random.default_rng(0)
    token_N = rng.integers(0, tokens, documents * length).astype(np.int32)
    document_N, position_N = np.repeat(np.arange(documents), length), np.tile(np.arange(length), documents)
    context_N, _ = row_contexts(document_N, position_N, 64)
    return row_texts.Texts(
        Rows(np.eye(tokens, dtype=np.float32)[token_N], document_N, position_N, token_N), context_N, position_N % 63, [], []
    )


def test_every_row_is_found_again_in_its_shuffled_context(monkeypatch):
    """A model whose activations are the token alone: nothing changes where rows are followed to their new places."""
    of_stage, text = task("statistics", quickstart.get_config("tiny")), harvested()
    seen = []

    class OfTokens:
        def __init__(self, *of, **more):
            del of, more

        def acts(self, contexts):
            seen.append(contexts)
            real_NT = (np.arange(64) > 0) & (np.arange(64) < contexts.length_N[:, None])
            return np.eye(8, dtype=np.float32)[contexts.tokens_NT[real_NT]]

    monkeypatch.setattr(statistics, "Harvest", OfTokens)
    found = statistics._shuffled(of_stage, text)
    np.testing.assert_array_equal(found.original_ND, text.rows.acts_ND)
    np.testing.assert_array_equal(found.shuffled_ND, text.rows.acts_ND)
    before = np.concatenate([text.rows.token_N[text.context_N == c] for c in np.unique(text.context_N)])
    after = np.concatenate([c[1:n] for c, n in zip(seen[0].tokens_NT, seen[0].length_N, strict=True)])
    assert 0.05 < (before == after).mean() < 0.3  # eight tokens: one in eight by chance


def test_the_fall_is_of_the_tokens_on_which_a_feature_fired():
    sae = Dictionary(
        np.eye(3, dtype=np.float32), np.zeros(3, np.float32), np.eye(3, dtype=np.float32), np.zeros(3, np.float32), architecture="standard"
    )
    original = np.array([[2, 0, 0], [0, 4, 0], [0, 0, 0]], np.float32)
    shuffled = np.array([[1, 5, 0], [7, 4, 0], [9, 9, 9]], np.float32)  # what fires where it did not before counts for nothing
    falls = statistics._fall(sae, statistics.Shuffled(original, shuffled), 1, seed=0)
    np.testing.assert_allclose(falls.every_F, [0.5, 0.0, np.nan])
    np.testing.assert_allclose(falls.some_F, [0.5, 0.0, np.nan])
    # Of three rows the first two lie in the first and the second of five parts; without its part a feature has no firing left.
    np.testing.assert_array_equal(np.isnan(falls.without_FP), [[p == 0 for p in range(5)], [p == 1 for p in range(5)], [True] * 5])
    two = statistics._fall(sae, statistics.Shuffled(original, shuffled), 2, seed=0)
    assert np.isnan(two.some_F).all() and np.isnan(two.without_FP).all()  # fewer than two firings
    assert all(np.isnan(values).all() for values in statistics._fall(sae, None, 1, seed=0))


def test_the_fall_of_equally_many_firings_is_of_some_drawn_at_random():
    """A feature that fires on 3,000 rows, first where nothing falls and then where all does."""
    sae = Dictionary(*(np.eye(1, dtype=np.float32), np.zeros(1, np.float32)) * 2, architecture="standard")
    original, shuffled = np.ones((3000, 1), np.float32), (np.arange(3000) < 1500).astype(np.float32)[:, None]
    falls = statistics._fall(sae, statistics.Shuffled(original, shuffled), 200, seed=0)
    assert falls.every_F == pytest.approx([0.5]) and abs(falls.some_F[0] - 0.5) < 0.1
    # Without a fifth of the rows, of which none or all fall.
    np.testing.assert_allclose(falls.without_FP[0], [0.625, 0.625, 0.5, 0.375, 0.375], atol=0.1)
