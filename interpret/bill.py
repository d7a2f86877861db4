"""What explanations have cost and will cost, before anything is asked."""

from collections.abc import Callable, Sequence

from interpret.completion import Answer, Usage, about, total, usage_of
from interpret.explanations import Task, classify_prompt, detection_prompt, first_prompt, parse_explanation

USUAL, USUAL_ANSWER = 80, 40  # characters of an explanation, tokens of an answer that are expected where nothing is known


def bill(stored_answers: Callable[[Sequence[str]], list[Answer | None]], tasks: Sequence[Task]) -> tuple[Usage, Usage]:
    """(what the answers that are there have cost, about what the others will), of all that `explain_all` asks.

    Args:
      kept: prompts → their answers as far as they are there, as `Cached.stored_answers`.
    """
    paid: dict[str, Usage] = {}  # equal prompts are asked once
    ahead: list[str] = []
    explained = stored_answers([first_prompt(task) for task in tasks])
    for task, answer in zip(tasks, explained, strict=True):
        first = first_prompt(task)
        if answer is None:
            explanation: str | None = "x" * USUAL
            ahead.append(first)
        else:
            explanation = parse_explanation(answer.text)
            paid[first] = usage_of(first, answer)
        if explanation is None:
            continue
        follow = [classify_prompt(explanation)] + ([detection_prompt(task, explanation)] if len(task.detect_contexts) else [])
        if answer is None:
            ahead += follow
            continue
        for prompt, found in zip(follow, stored_answers(follow), strict=True):
            if found is not None:
                paid[prompt] = usage_of(prompt, found)
            elif prompt not in ahead:
                ahead.append(prompt)
    return total(paid.values()), Usage(len(ahead), sum(map(about, ahead)), USUAL_ANSWER * len(ahead))
