"""What will be asked is told before."""

from interpret.bill import bill
from interpret.completion import Cached, Usage, about
from interpret.explanations import explain_all, explain_prompt
from tests.interpret.test_explanations import Scripted, tasks_of


def test_the_bill_is_of_what_is_not_answered_yet(tmp_path):
    tasks = tasks_of(3, "w")
    cached = Cached(Scripted(), tmp_path)
    paid, ahead = bill(cached.stored_answers, tasks)
    first = [explain_prompt(t.explain_contexts, t.explain_activations) for t in tasks]
    assert paid == Usage(0, 0, 0) and ahead.requests == 9 and ahead.prompt_tokens > sum(map(about, first))
    explain_all(cached, tasks)
    paid, ahead = bill(Cached(Scripted(), tmp_path).stored_answers, tasks)
    assert paid == cached.usage and ahead == Usage(0, 0, 0) and paid.requests == 7  # one kind prompt: the explanations are the same
    # Killed before the kinds and the detections were answered.
    early = Cached(Scripted(), tmp_path / "early")
    early.complete(first)
    paid, ahead = bill(early.stored_answers, tasks)
    assert paid == early.usage and ahead.requests == 4
    assert ahead.prompt_tokens == cached.usage.prompt_tokens - paid.prompt_tokens
