"""Explanations without a language model: the simplest rule about the token's own characters. What surface form alone explains.

A second `Completer`, which reads nothing but the prompts of `interpret.explanations` and answers as a model must. It knows no context: a feature
that needs one is beyond it, which is what makes it the baseline of explanations by a model.
"""

import json
import keyword
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from interpret.completion import Answer, CompletionError, Meter, Usage, usage_of
from interpret.explanations import CLASSIFY, DETECT, EXPLAIN, UNTOLD, data, escaped

LEAST_F1 = 0.75  # a rule worse than that is none: calling every token marked has 2/3
LONGEST_SUBSTRING = 4  # characters
LONGEST_QUOTED = 200  # characters of a token that is quoted whole: an explanation has at most 300
MOST_READ = 1000  # characters of a token in which substrings are looked for
# Splits text about as a byte-level BPE does before it merges: words and numbers with their space, other characters, whitespace.
PIECES = re.compile(r" ?[^\W\d_]+| ?\d+| ?(?:[^\w\s]|_)+|\s+(?!\S)|\s+")

EXACT, WORD, CLASS = "the token is exactly", "the token is the word", "the token is"  # a word: whether a space is before it or not
BEGINS, ENDS, CONTAINS = "the token begins with", "the token ends with", "the token contains"
FORMS = (EXACT, WORD, CLASS, BEGINS, ENDS, CONTAINS)  # the simplest first
_matches = lambda pattern: lambda token: re.fullmatch(pattern, token) is not None
CLASSES: dict[str, Callable[[str], bool]] = {  # the narrowest first
    "a newline, with or without indentation": _matches(r"\s*\n\s*"),
    "whitespace": str.isspace,
    "a Python keyword": lambda token: keyword.iskeyword(token.strip()),
    "a dunder name": _matches(r"\s?__\w+__"),
    "digits": _matches(r"\s?\d+"),
    "a bracket": _matches(r"\s?[()\[\]{}]+"),
    "an operator": _matches(r"\s?[-+*/%=<>!&|^~@]+"),
    "punctuation": _matches(r"\s?(?:[^\w\s]|_)+"),
    "a word in capitals": _matches(r"\s?(?=.*[^\W\d_])(?=..)[^a-z\W]+"),
    "a capitalised word": lambda token: (word := token.strip()).isalpha() and word.istitle(),
    "a lower-case word": lambda token: (word := token.strip()).isalpha() and word.islower(),
    "an identifier": lambda token: token.strip().isidentifier(),
    "written in characters beyond ASCII": lambda token: not token.isascii(),
}
# The kind of an explanation by the first line of which a word occurs outside of quotes; what names nothing of these is taken as meaning.
WORDINGS = (
    ("unclear", r"could not tell|unclear|nothing in common|no pattern"),
    ("punctuation or whitespace", r"punctuation|whitespace|newlines?|indentation|spaces?|brackets?|parenthes[ei]s|operators?|commas?|quotes?|quotation"),
    ("way of writing", r"digits?|capital(s|ised|ized)?|lower-?case|upper-?case|dunder|identifiers?|ascii"),
    ("substring", r"contain(s|ing)?|beg[ia]n(s|ning)? with|start(s|ing)? with|end(s|ing)? (with|in)|prefix|suffix|characters?|letters?"),
    ("syntax or position", r"keywords?|syntax|noun|verb|pronoun|argument|definition|statement|position|begin(ning)?|start|end|first|last|after|before|follow(s|ing)?|preced(es|ing)"),
    ("token", r"exactly|the (token|word)"),
)  # fmt: skip


class Predicate(NamedTuple):
    """Something that is true of a token or not.

    Attributes:
      form: one of `FORMS`.
      value: the characters, or a name in `CLASSES`.
    """

    form: str
    value: str

    def __str__(self) -> str:
        return f"{self.form} {self.value if self.form == CLASS else _quoted(self.value)}"


class RuleBased:
    """Deterministic, offline, free. A `Completer` for the prompts of `interpret.explanations` alone; threads may share it."""

    name = "rules, version 2"

    def __init__(self) -> None:
        self._meter = Meter()

    @property
    def usage(self) -> Usage:
        """Tokens are estimated: there is no tokenizer here, and no bill."""
        return self._meter.sum

    def complete(self, prompts: Sequence[str]) -> list[str]:
        """Raises CompletionError at a prompt of another kind."""
        answers = [json.dumps(_answer(prompt)) for prompt in prompts]
        for prompt, answer in zip(prompts, answers, strict=True):
            self._meter.add(usage_of(prompt, Answer(answer)))
        return answers


def _answer(prompt: str) -> dict[str, Any]:
    head = prompt.partition("\n")[0]
    try:
        if head == EXPLAIN:
            return {"explanation": explain(data(prompt))}
        if head == CLASSIFY:
            (record,) = data(prompt)
            return {"kind": classify(record["explanation"])}
        if head == DETECT:
            first, *places = data(prompt)
            predicate = read(first["explanation"])
            return {"fires": [place["number"] for place in places if predicate in predicates(place["token"])]}
    except (ValueError, KeyError, TypeError):
        pass
    raise CompletionError(f"{RuleBased.name}: no prompt that it knows ({head[:80]!r}): other prompts need an endpoint")


def explain(places: Sequence[dict[str, Any]]) -> str:
    """The predicate with the best F1 between tokens on which the feature is active and all other tokens of the contexts, if it is good enough.

    The other tokens are pieces of the surrounding text, and marked ones at activation 0. They are weighted to count as much as the active
    ones together, since how many there are is only how much text was shown. Of equally good predicates the simplest: in the order of `FORMS`
    and `CLASSES`; of substrings the longest, which is all that the tokens are known to share.
    """
    active = [place["token"] for place in places if place["activation"] > 0]
    others = [place["token"] for place in places if place["activation"] == 0]
    others += [piece for place in places for text in (place["before"], place["after"]) for piece in PIECES.findall(text)]
    if not active or not others:
        return UNTOLD
    hits, false = _counts(active), _counts(others)
    f1 = {predicate: _f1(hits[predicate] / len(active), false[predicate] / len(others)) for predicate in hits}
    best = min(f1, key=lambda predicate: (-round(f1[predicate], 9), *_simplicity(predicate)))
    return str(best) if f1[best] >= LEAST_F1 else UNTOLD


def classify(explanation: str) -> str:
    """Kind of an explanation by its wording, anybody's; what it quotes is not looked at."""
    wording = re.sub(r'"(?:\\.|[^"\\])*"', '""', explanation).lower()
    return next((kind for kind, words in WORDINGS if re.search(rf"\b(?:{words})\b", wording)), "semantic")


def read(explanation: str) -> Predicate | None:
    """The predicate that an explanation states; None unless it is in the words of `explain`."""
    for form in (EXACT, WORD, BEGINS, ENDS, CONTAINS):
        if explanation.startswith(f"{form} "):
            try:
                value = json.loads(explanation[len(form) :])
            except (ValueError, RecursionError):
                return None
            return Predicate(form, value) if isinstance(value, str) else None
    name = explanation.removeprefix(f"{CLASS} ")
    return Predicate(CLASS, name) if name in CLASSES and name != explanation else None


def predicates(token: str) -> set[Predicate]:
    """All that are true of a token; a long one is not quoted whole, and in a very long one substrings are looked for in the beginning alone."""
    found = {Predicate(CLASS, name) for name, holds in CLASSES.items() if holds(token)}
    if len(_quoted(token)) <= LONGEST_QUOTED:
        found.add(Predicate(EXACT, token))
        if (word := token.removeprefix(" ")).isidentifier():
            found.add(Predicate(WORD, word))
    text = token[:MOST_READ]
    for n in range(1, min(LONGEST_SUBSTRING, len(text)) + 1):
        found |= {Predicate(BEGINS, token[:n]), Predicate(ENDS, token[-n:])}
        found |= {Predicate(CONTAINS, text[i : i + n]) for i in range(len(text) - n + 1)}
    return found


def _counts(tokens: Iterable[str]) -> Counter[Predicate]:
    """Of how many tokens each predicate is true."""
    counts: Counter[Predicate] = Counter()
    for token, times in Counter(tokens).items():
        for predicate in predicates(token):
            counts[predicate] += times
    return counts


def _f1(hit: float, false: float) -> float:
    """Of two classes of equal weight: precision is hit / (hit + false), recall is hit."""
    return 2 * hit / (1 + hit + false)


def _simplicity(predicate: Predicate) -> tuple[int, int, str]:
    within = list(CLASSES).index(predicate.value) if predicate.form == CLASS else -len(predicate.value)
    return FORMS.index(predicate.form), within, predicate.value


def _quoted(text: str) -> str:
    # Escapes what an explanation may not hold, so that it can be read back.
    return escaped(json.dumps(text, ensure_ascii=False))
