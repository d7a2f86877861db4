"""A language model behind an OpenAI-compatible endpoint: a paid service, or a server of one's own (vLLM, llama.cpp, Ollama, …)."""

import json
import math
import os
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import SplitResult, urlsplit

from interpret.completion import Answer, CompletionError, Meter, Usage, usage_of

URL, KEY = "OPENAI_BASE_URL", "OPENAI_API_KEY"  # names in the environment
DEFAULT_URL = "https://api.openai.com/v1"
NO_KEY = "none"  # servers of one's own want no key, the library wants one
BACKOFF, LONGEST = (
    0.5,
    8.0,
)  # seconds before the first retry of an unusable body, doubling up to the longest: as the library's own of errors
MOST_QUOTED = 200  # characters of what an endpoint said
ADVICE = {
    400: "it does not take this request: check the model, max_tokens and temperature (None leaves either out)",
    401: f"check {KEY}",
    403: f"check {KEY} and what it is allowed to use",
    404: f"check the model's name and {URL}",
    429: "too many requests or no quota left: try later or with fewer at once",
}


class Endpoint:
    """A model that `POST …/chat/completions` answers for. A `Completer`; threads may share it. Close it after use.

    Reads OPENAI_BASE_URL and OPENAI_API_KEY once. A request that fails by 408, 409, 429, 5xx, time-out or connection is repeated (waiting as
    the answer's Retry-After says, else longer each time), and so is an answer that is not whole JSON or has no text: together at most `retries`
    times a prompt. Anything else is an error at once. The key is in no error, name, or answer, even if the endpoint echoes it.

    Args:
      model: its name at the endpoint.
      timeout: seconds without a sign of life after which a request is given up.
      retries: after the first attempt.
      max_tokens: of an answer; None leaves it to the endpoint. A model that thinks before it answers needs more.
      temperature: 0 and up; None leaves it to the endpoint, which some models demand.

    Raises:
      CompletionError: the library `openai` is missing, neither variable is set, or one cannot be used.
      ValueError: a setting out of range.
    """

    def __init__(
        self, model: str, timeout: float = 60.0, retries: int = 5, max_tokens: int | None = 400, temperature: float | None = 0.0
    ) -> None:
        if not model or not (0 < timeout < math.inf) or retries < 0 or (max_tokens is not None and max_tokens < 1):
            raise ValueError(f"endpoint: model={model!r}, timeout={timeout}, retries={retries}, max_tokens={max_tokens}: out of range")
        if temperature is not None and not 0 <= temperature < math.inf:
            raise ValueError(f"endpoint: temperature={temperature}: must be finite, 0 or more")
        given, key = os.environ.get(URL, "").strip(), os.environ.get(KEY, "").strip()
        if not given and not key:
            raise CompletionError(
                f"no endpoint to ask: set {URL} (of a server of your own, such as http://localhost:8000/v1) or {KEY} (of {DEFAULT_URL}), or both"
            )
        if not (key.isascii() and key.isprintable()):  # the library would quote it in its own error
            raise CompletionError(f"{KEY} holds characters that no key has: set it again")
        url = _split(given or DEFAULT_URL)
        self._secrets = sorted({s for s in (key, url.password) if s}, key=len, reverse=True)
        self._shown = f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}".rstrip("/")
        try:
            import openai
        except ImportError:
            raise CompletionError(
                f"{self._shown} cannot be asked: the library openai is not installed: `pip install openai`, or the extra `explain`"
            ) from None
        self._openai = openai
        self._client = openai.OpenAI(api_key=key or NO_KEY, base_url=given or DEFAULT_URL, timeout=timeout, max_retries=0)
        self._model, self._timeout, self._retries = model, timeout, retries
        # Servers in general know `max_tokens`, of which OpenAI's newer models want to hear no more.
        limit = "max_completion_tokens" if self._shown == DEFAULT_URL else "max_tokens"
        settings: dict[str, Any] = {limit: max_tokens, "temperature": temperature}
        self._settings = {name: value for name, value in settings.items() if value is not None}
        self._meter = Meter()
        # Other servers may serve another model under the same name, hence the address.
        self.name = ", ".join([f"{model} at {self._shown}", *(f"{name} {value}" for name, value in self._settings.items())])

    @property
    def usage(self) -> Usage:
        """Of the requests that were answered, unusable answers too."""
        return self._meter.sum

    def complete(self, prompts: Sequence[str]) -> list[str]:
        """One after the other. Raises CompletionError."""
        return [self.ask(prompt).text for prompt in prompts]

    def ask(self, prompt: str) -> Answer:
        """An answer with its cost. Raises CompletionError."""
        left = self._retries
        while True:
            response = self._sent(prompt, left)
            left -= response.retries_taken
            answer, trouble = self._read(response.http_response.content)
            self._meter.add(usage_of(prompt, answer))
            if trouble is None:
                return answer
            if left <= 0:
                raise self._error(trouble, "ask another model, or allow it more max_tokens")
            time.sleep(min(BACKOFF * 2.0 ** (self._retries - left), LONGEST))
            left -= 1

    def close(self) -> None:
        """Lets its connections go."""
        self._client.close()

    def _sent(self, prompt: str, retries: int) -> Any:
        """The raw response, of which nothing is believed yet: the library passes on bodies that lack what its types promise."""
        try:
            create = self._client.with_options(max_retries=retries).chat.completions.with_raw_response.create
            return create(model=self._model, messages=[{"role": "user", "content": prompt}], **self._settings)
        except self._openai.APIStatusError as error:
            detail = error.body.get("message") if isinstance(error.body, dict) else None
            said = f"{error.status_code}: {detail if isinstance(detail, str) else error.response.text}"
            failure = self._error(said, ADVICE.get(error.status_code, "see what it says, or try later"))
        except self._openai.APITimeoutError:
            failure = self._error(f"nothing for {self._timeout:g} s, {retries + 1} times", "allow a longer timeout or ask fewer at once")
        except self._openai.APIConnectionError as error:
            failure = self._error(f"no connection ({error.__cause__ or error})", f"check that it runs and {URL}")
        except self._openai.OpenAIError as error:
            failure = self._error(str(error), f"check {URL} and {KEY}")
        # Raised here and not above, since the library's exception would stay with it as its context, and that may hold the key.
        raise failure

    def _read(self, content: bytes) -> tuple[Answer, str | None]:
        """What a body of status 200 says, and what is wrong with it, None if nothing."""
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            return Answer(""), f"a body that is not whole JSON ({content.decode(errors='replace')})"
        usage = _get(body, "usage")
        counts = [
            count if type(count) is int and count >= 0 else None
            for count in (_get(usage, "prompt_tokens"), _get(usage, "completion_tokens"))
        ]
        message = _get(_get(body, "choices", 0), "message")
        # A refusal is an answer: asked again it would come again, and the study could never end.
        text = next((t for t in (_get(message, "content"), _get(message, "refusal")) if isinstance(t, str) and t.strip()), None)
        if text is None:
            return Answer("", *counts), f"a body without choices[0].message.content ({content.decode(errors='replace')})"
        return Answer(self._without_secrets(text), *counts), None

    def _error(self, said: str, advice: str) -> CompletionError:
        """One printable line. Secrets go before anything is cut, so that no part of one stays."""
        said = " ".join("".join(c if c.isprintable() else " " for c in self._without_secrets(said)).split())
        return CompletionError(f"{self._shown}, model {self._model}: {said[:MOST_QUOTED]}{'…' * (len(said) > MOST_QUOTED)}: {advice}")

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _split(url: str) -> SplitResult:
    """Raises CompletionError, which does not quote it: an address may hold a password."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or not url.isprintable():
        raise CompletionError(f"{URL} is no address: it begins with http:// or https:// and a host, such as http://localhost:8000/v1")
    return parts


def _get(value: Any, *path: str | int) -> Any:
    """Of nested JSON, None where there is nothing of that kind."""
    for step in path:
        if isinstance(step, str) and isinstance(value, dict):
            value = value.get(step)
        elif isinstance(step, int) and isinstance(value, list) and step < len(value):
            value = value[step]
        else:
            return None
    return value
