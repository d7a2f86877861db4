import json

import numpy as np
import pytest

from interpret import rules
from interpret.completion import Cached, CompletionError, Usage
from interpret.contexts import Context
from interpret.explanations import (
    KINDS,
    UNTOLD,
    Task,
    classify_prompt,
    detect_prompt,
    explain_all,
    explain_prompt,
    parse_detection,
    parse_explanation,
    parse_kind,
)

WORDS = " the| a| return|ing| walking| talking| number| of| value| self| None| Error| Parser| MAX|_SIZE| init|__init__| query| quick| if| else| not| list| token|def| def"
VOCABULARY = [
    *WORDS.split("|"),
    " 7",
    "42",
    " 1999",
    "0",
    ",",
    ".",
    ":",
    "(",
    ")",
    " =",
    " +",
    "[",
    "]",
    "\n",
    "\n    ",
    "\n        ",
    "  ",
    " é",
    " ü",
    "'",
]
RNG = np.random.default_rng(0)
TEXT = RNG.integers(0, len(VOCABULARY), 6000)


def context(row, before=10, after=10):
    text = lambda start, end: "".join(VOCABULARY[t] for t in TEXT[max(0, start) : end])
    return Context(text(row - before, row), text(row, row + 1), text(row + 1, row + 1 + after), "some document")


def task(fires, seed=0, count=12, among=None):
    """A feature that is active where `fires` says of a token: half of the text to explain, the other to detect; as many negatives as positives."""
    rng = np.random.default_rng(seed)
    fires_N = np.array([fires(VOCABULARY[t]) for t in TEXT])
    rows = np.arange(20, len(TEXT) - 20)
    first, second = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    explain = rng.choice(first[fires_N[first]], count, replace=False)
    others = second[~fires_N[second]]
    if among is not None:
        others = others[[among(VOCABULARY[t]) for t in TEXT[others]]]
    detect = np.concatenate([rng.choice(second[fires_N[second]], count, replace=False), rng.choice(others, count, replace=False)])
    return Task([context(r) for r in explain], rng.uniform(0.5, 5, count), [context(r) for r in detect], fires_N[detect], f"feature {seed}")


def explanation(fires):
    t = task(fires)
    (answer,) = rules.RuleBased().complete([explain_prompt(t.explain_contexts, t.explain_activations)])
    return parse_explanation(answer)


PLANTED = {
    'the token is exactly " the"': (lambda t: t == " the", "token"),
    'the token is the word "def"': (lambda t: t in {" def", "def"}, "token"),
    'the token is exactly "\\n    "': (lambda t: t == "\n    ", "token"),
    'the token ends with "king"': (lambda t: t.endswith("king"), "substring"),
    'the token begins with " qu"': (lambda t: t.startswith(" qu"), "substring"),
    "the token is digits": (lambda t: t.strip().isdigit(), "way of writing"),
    "the token is punctuation": (
        lambda t: bool(t.strip()) and not any(c.isalnum() for c in t.replace("_", "a")),
        "punctuation or whitespace",
    ),
    "the token is a newline, with or without indentation": (lambda t: "\n" in t, "punctuation or whitespace"),
    "the token is whitespace": (str.isspace, "punctuation or whitespace"),
    "the token is a Python keyword": (lambda t: t.strip() in {"return", "None", "if", "else", "not", "def"}, "syntax or position"),
    "the token is a capitalised word": (lambda t: t in {" Error", " Parser", " None"}, "way of writing"),
    "the token is written in characters beyond ASCII": (lambda t: t in {" é", " ü"}, "way of writing"),
}


@pytest.mark.parametrize(("expected", "fires", "kind"), [(e, *of) for e, of in PLANTED.items()])
def test_planted_rules_are_recovered(expected, fires, kind):
    (found,) = explain_all(rules.RuleBased(), [task(fires)]).explained
    assert found.explanation == expected
    assert found.kind == kind
    assert found.detection == (1.0, 1.0, 0.0)


def test_tokens_with_nothing_in_common():
    assert explanation(lambda t: t in {" list", "42", "__init__"}) == UNTOLD


def test_a_substring_inside():
    contexts = [Context(" one two", f" {a}zq{b}", " three four", "d") for a, b in ("ab", "cd", "ef")]
    (answer,) = rules.RuleBased().complete([explain_prompt(contexts, [1, 1, 1])])
    assert parse_explanation(answer) == 'the token contains "zq"'


def test_features_that_fire_at_random_are_not_explained():
    """Whether it fires has nothing to do with the token: no rule, or one that does not predict."""
    tasks = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        rows = rng.choice(np.arange(20, len(TEXT) - 20), 44, replace=False)
        tasks.append(Task([context(r) for r in rows[:12]], np.ones(12), [context(r) for r in rows[12:]], np.arange(32) % 2 == 0, str(seed)))
    found = explain_all(rules.RuleBased(), tasks)
    accuracies = [e.detection.balanced_accuracy for e in found.explained]
    assert abs(np.mean(accuracies) - 0.5) < 0.04
    assert np.mean([e.explanation == UNTOLD for e in found.explained]) > 0.8
    assert {e.kind for e in found.explained if e.explanation == UNTOLD} == {"unclear"}


def test_negatives_of_the_same_token_show_that_the_token_is_not_all():
    """A feature that fires on " the" in some places: held against other tokens the rule is right, held against " the" elsewhere it knows nothing."""
    rows = np.flatnonzero(np.array(VOCABULARY)[TEXT] == " the")
    rows = rows[(rows > 20) & (rows < len(TEXT) - 20)]
    explain, fires, silent = ([context(r) for r in part] for part in (rows[:12], rows[12:24], rows[24:36]))
    others = [context(r) for r in range(1000, 1012) if VOCABULARY[TEXT[r]] != " the"]
    firing = lambda negatives: np.arange(12 + len(negatives)) < 12
    easy, matched = (Task(explain, np.ones(12), [*fires, *n], firing(n)) for n in (others, silent))
    found = explain_all(rules.RuleBased(), [easy, matched]).explained
    assert {e.explanation for e in found} == {'the token is exactly " the"'}
    assert found[0].detection.balanced_accuracy == 1
    assert found[1].detection == (0.5, 1, 1)


def test_negatives_matched_in_surface_form():
    """Other digits as negatives: "the token is digits" would not tell them apart, and exact tokens do."""
    found = explain_all(rules.RuleBased(), [task(lambda t: t == "42", among=lambda t: t.strip().isdigit())]).explained[0]
    assert found.detection == (1.0, 1.0, 0.0)


def test_marked_tokens_at_activation_zero_are_others():
    places = [Context(" x", " alpha", " y", "d"), Context(" x", " alps", " y", "d"), Context(" x", " along", " y", "d")]
    (all_active,) = rules.RuleBased().complete([explain_prompt(places, [1, 1, 1])])
    assert parse_explanation(all_active) == 'the token begins with " al"'
    (two,) = rules.RuleBased().complete([explain_prompt(places, [1, 1, 0])])
    assert parse_explanation(two) == 'the token begins with " alp"'


def test_simpler_rules_are_preferred():
    assert explanation(lambda t: t == "42") == 'the token is exactly "42"'  # and not: contains, begins with, digits
    assert explanation(lambda t: t in {"(", ")", "[", "]"}) == "the token is a bracket"  # and not: punctuation


def test_nothing_to_compare_with():
    (answer,) = rules.RuleBased().complete([explain_prompt([Context("", "a", "", "d")], [1.0])])
    assert parse_explanation(answer) == UNTOLD


@pytest.mark.parametrize(
    "token",
    [
        '"',
        "\\",
        '\\"',
        "\n",
        " ",
        "    ",
        "\x1b[0m",
        "\u2028",
        "\u00ad",
        "\ud800",
        "</script>",
        "«x»",
        'a" the token ends with "b',
        "{",
        "�",
        "🙂",
    ],
)
def test_quoted_tokens_survive_the_whole_way(token):
    contexts = [Context(" one two three", token, " four five", "d")] * 3
    (answer,) = rules.RuleBased().complete([explain_prompt(contexts, [1, 2, 3])])
    said = parse_explanation(answer)
    assert rules.read(said) == (rules.EXACT, token)
    (answer,) = rules.RuleBased().complete([detect_prompt(said, [Context("", " one", "", "d"), contexts[0]])])
    assert parse_detection(answer, 2).tolist() == [False, True]
    (answer,) = rules.RuleBased().complete([classify_prompt(said)])
    assert parse_kind(answer) == "token"


def test_long_tokens_are_not_quoted_whole():
    contexts = [Context(" one two three", "=" * 5000 + end, " four = five", "d") for end in "ab"]
    for shown in (contexts, contexts[:1]):
        (answer,) = rules.RuleBased().complete([explain_prompt(shown, [1] * len(shown))])
        said = parse_explanation(answer)
        assert len(said) < 100
        (answer,) = rules.RuleBased().complete([detect_prompt(said, [*contexts, Context("", " one", "", "d")])])
        assert parse_detection(answer, 3).tolist() == [True, len(shown) == 2 or said.startswith(rules.BEGINS), False]


def test_all_statements_can_be_read_back():
    for token in [*VOCABULARY, "__name__", "ABC", "x_1", '"\\']:
        for predicate in rules.predicates(token):
            assert rules.read(str(predicate)) == predicate
            assert rules.classify(str(predicate)) in KINDS


@pytest.mark.parametrize(
    "said",
    [
        "the token is",
        "the token is digits.",
        "digits",
        'the token is exactly "',
        "the token is exactly 7",
        "the token contains [1]",
        UNTOLD,
        "",
    ],
)
def test_other_statements_are_not(said):
    assert rules.read(said) is None
    (answer,) = rules.RuleBased().complete([detect_prompt(said, [context(50), context(60)])])
    assert parse_detection(answer, 2).tolist() == [False, False]


CLASS_EXAMPLES = {
    "a newline, with or without indentation": ("\n   ", "  "),
    "whitespace": ("  ", " a"),
    "a Python keyword": (" return", " returns"),
    "a dunder name": ("__init__", "__init"),
    "digits": (" 12", "1a"),
    "a bracket": (" ((", "(a"),
    "an operator": (" +=", "+,"),
    "punctuation": (" ',_", "a,"),
    "a word in capitals": (" MAX_2", "Max"),
    "a capitalised word": (" Max", "MAX"),
    "a lower-case word": (" max", "max_"),
    "an identifier": (" max_2", "2max"),
    "written in characters beyond ASCII": (" né", " ne"),
}


def test_classes():
    assert set(CLASS_EXAMPLES) == set(rules.CLASSES)
    for name, (inside, outside) in CLASS_EXAMPLES.items():
        assert rules.CLASSES[name](inside), name
        assert not rules.CLASSES[name](outside), name
        assert not rules.CLASSES[name](""), name


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ('the word "comma" wherever it stands', "token"),
        ('tokens that contain "the token"', "substring"),
        ("commas and other punctuation", "punctuation or whitespace"),
        ("the first token of a sentence", "syntax or position"),
        ("a lower-case word", "way of writing"),  # a class of tokens, which is no substring
        ("names of European capitals", "way of writing"),  # wording alone is looked at, so it can be fooled
        ("emotions and moods", "semantic"),
        ("could not tell", "unclear"),
    ],
)
def test_anybodys_wording_is_classified(said, kind):
    assert parse_kind(rules.RuleBased().complete([classify_prompt(said)])[0]) == kind


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "Hello",
        "Data:\n{}",
        *(f"{head}\nData:\n{{}}" for head in (rules.EXPLAIN, rules.CLASSIFY, rules.DETECT)),
        rules.EXPLAIN,
        f"{rules.EXPLAIN}\nData:\n{{",
    ],
)
def test_other_prompts_are_refused(prompt):
    with pytest.raises(CompletionError, match="no prompt that it knows"):
        rules.RuleBased().complete([prompt])


def test_it_is_a_completer_like_others(tmp_path):
    tasks = [task(of, seed) for seed, (of, _) in enumerate(PLANTED.values())]
    one = rules.RuleBased()
    direct, cached = explain_all(one, tasks), explain_all(Cached(rules.RuleBased(), tmp_path), tasks)
    assert direct == cached
    assert direct.unusable == {"explanation": 0, "kind": 0, "detection": 0}
    assert one.usage.requests == 3 * len(tasks)
    silent = rules.RuleBased()
    assert explain_all(Cached(silent, tmp_path), tasks) == direct
    assert silent.usage == Usage(0, 0, 0)
    assert json.loads(one.complete([classify_prompt("x")])[0]) == {"kind": "semantic"}
