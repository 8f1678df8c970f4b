"""A language model behind an OpenAI-compatible endpoint, through the standard library."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from isometry.errors import InputError

_AGAIN = {408, 409, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class OpenAIEndpoint:
    """Prompt to text through ``POST <url>/chat/completions``, as OpenAI, vLLM, llama.cpp and Ollama understand it.

    Parameters
    ----------
    url
        Up to and with ``/v1``.
    model
        Its name there.
    api_key
        Sent as a bearer token where one is given; never shown or kept in a row's provenance.
    temperature, max_tokens, seed
        Passed on; not every server obeys a seed.
    timeout
        Seconds to wait for one answer.
    retries
        How often a busy or broken server is asked again, after 1, 2, 4 ... seconds.
    sleep
        Called with the seconds to wait.

    Raises
    ------
    InputError
        If the address is not http(s), the server cannot be reached in time, refuses, or answers something else.
    """

    url: str
    model: str
    api_key: str = field(default="", repr=False)
    temperature: float = 0.7
    max_tokens: int = 512
    seed: int = 0
    timeout: float = 60.0
    retries: int = 2
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise InputError(f"The endpoint's address must begin with http:// or https://, got {self.url!r}.")
        if not self.timeout > 0 or self.retries < 0:
            raise InputError(f"timeout must be > 0 and retries >= 0, got {self.timeout} and {self.retries}.")

    def __call__(self, prompt: str) -> str:
        """Return the model's answer to one prompt."""
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
        }
        answer = self._post(json.dumps(body).encode())
        try:
            return str(answer["choices"][0]["message"]["content"] or "")
        except (KeyError, IndexError, TypeError) as error:
            raise InputError(f"The endpoint {self.url} answered without a message: {str(answer)[:200]}.") from error

    def _post(self, body: bytes) -> Any:
        headers = {"Content-Type": "application/json"} | (
            {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        )
        request = urllib.request.Request(self.url.rstrip("/") + "/chat/completions", data=body, headers=headers)
        for attempt in range(self.retries + 1):
            last = attempt == self.retries
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    return json.loads(response.read())
            except urllib.error.HTTPError as error:
                if last or error.code not in _AGAIN:
                    said = error.read(300).decode(errors="replace").strip()
                    raise InputError(
                        f"The endpoint {self.url} refused ({error.code} {error.reason}): {said}"
                    ) from error
            except TimeoutError as error:
                if last:
                    raise InputError(f"The endpoint {self.url} gave no answer within {self.timeout:g} s.") from error
            except (urllib.error.URLError, OSError) as error:
                if last:
                    reason = getattr(error, "reason", error)
                    raise InputError(f"The endpoint {self.url} cannot be reached ({reason}).") from error
            except ValueError as error:
                raise InputError(f"The endpoint {self.url} did not answer with JSON ({error}).") from error
            self.sleep(2.0**attempt)
        raise AssertionError("the last attempt returns or raises")
