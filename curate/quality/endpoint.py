"""An endpoint: a server that speaks the chat-completions protocol of OpenAI, asked politely and within a budget.

    ask ──> hold the most that it can cost ──> wait for the turn (rate, a server's Retry-After) ──> POST
     ^                                                                                               │
     └── wait 1, 2, 4 … s, half of it by chance <── time-out, 408, 409, 425, 429, 5xx, no completion ┘

A request that cannot succeed at all (401, an unknown model, quota used up) raises ModelError and ends the run; one that
failed for itself raises RequestFailedError; one that was not sent, for the budget does not allow it, NotAskedError.
"""

import asyncio
import json
import os
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from schemas.config import ScoreConfig
from schemas.errors import ConfigError, ModelError

FIRST_WAIT_S = 1.0
"""Wait before a request is sent again for the first time; it doubles each time."""

LONGEST_WAIT_S = 60.0
"""Longest wait of our own between two tries."""

LONGEST_PAUSE_S = 600.0
"""Longest Retry-After that is waited for (10 minutes); a server that asks for more ends the run."""

CONNECT_S = 10.0
"""Longest time for a connection to be made: a server that is there answers in less than one."""

MOST_TOKENS = 1_000_000_000
"""Tokens of one request above which a server's count is taken for none: no model reads so many."""

_AGAIN = (408, 409, 425, 429)
_REFUSED = (400, 413, 422)

Turns = Sequence[Mapping[str, str]]
"""Messages of a request: role and content."""


class RequestFailedError(Exception):
    """A request that failed for itself; another one may succeed. `kind` groups failures of one sort."""

    def __init__(self, kind: str, detail: str) -> None:
        self.kind, self.detail = kind, detail
        super().__init__(f"{kind}: {detail}")


class NotAskedError(Exception):
    """A request was not sent: it could have gone beyond the budget, or the run is ending."""


class Clock:
    """The time in seconds, and waiting for it; tests bring their own."""

    def now(self) -> float:
        """Give the seconds since some moment."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait that long."""
        await asyncio.sleep(seconds)


@dataclass(frozen=True)
class Answer:
    """What the model wrote. `cut`: it came to the end of its tokens before it came to the end."""

    text: str
    cut: bool


class Budget:
    """What was spent and what may be. Each request holds the most that it can cost until its cost is known.

    The most: a token for every byte of the request, as no tokenizer makes more of them, and all tokens that the answer
    may have. `input_price`, `output_price`: of a million tokens. `cap`: None where there is none.
    """

    def __init__(self, input_price: float, output_price: float, cap: float | None) -> None:
        self._input_price, self._output_price, self.cap = input_price, output_price, cap
        self.spent, self.input_tokens, self.output_tokens = 0.0, 0, 0
        self.unknown = 0
        """Requests whose tokens the server did not tell: they count at the most they can have cost."""
        self._held, self._holders = 0.0, 0
        self._settled = asyncio.Event()

    @property
    def priced(self) -> bool:
        """Whether a token costs anything."""
        return bool(self._input_price or self._output_price)

    def price(self, input_tokens: int, output_tokens: int) -> float:
        """Give what so many tokens cost."""
        return (input_tokens * self._input_price + output_tokens * self._output_price) / 1e6

    async def hold(self, most: float) -> None:
        """Set aside the most that a request can cost; wait for the cost of others where that may help."""
        while self.cap is not None and self.spent + self._held + most > self.cap:
            if not self._holders:
                raise NotAskedError
            self._settled.clear()
            await self._settled.wait()
        self._held += most
        self._holders += 1

    def settle(self, most: float, cost: float) -> None:
        """Put the cost of a request in the place of what was set aside for it."""
        self._holders -= 1
        self._held = self._held - most if self._holders else 0.0
        self.spent += cost
        self._settled.set()

    def release(self) -> None:
        """Give back what nobody holds any more, and wait in another event loop from now on."""
        self._held, self._holders, self._settled = 0.0, 0, asyncio.Event()


class Endpoint:
    """A chat-completions endpoint and what was learnt about it: whether it answers, which parameters it takes."""

    def __init__(self, config: ScoreConfig, clock: Clock | None = None) -> None:
        self.model = config.judge or ""
        self._url = completions_url(config.judge_url)
        self.where = f"judge at {self._url.partition('?')[0]}"
        """How errors name it: without a query, which may hold a key."""
        self._key = read_key(config.judge_key_env)
        self._temperature, self._max_tokens = config.judge_temperature, config.judge_max_tokens
        self._retries, self._timeout_s = config.judge_retries, config.judge_timeout_s
        self._connections = config.judge_concurrency
        self._clock = clock or Clock()
        self._spacing_s = 60.0 / config.judge_rate if config.judge_rate else 0.0
        self._next_start, self._paused_until = float("-inf"), float("-inf")
        self._tokens_name = "max_tokens"
        self._client: httpx.AsyncClient | None = None
        self.budget = Budget(config.judge_input_price, config.judge_output_price, config.judge_max_cost)
        self.requests = 0
        self.answered = False
        """Whether a completion has come back yet."""
        self.structured = True
        """Whether the server is asked for a JSON schema; not any more after it refused one."""
        self.stopping = False
        """Whether nothing is sent any more."""
        self._resting: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        """Open connections, which belong to the running event loop."""
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(self._timeout_s, connect=min(CONNECT_S, self._timeout_s)),
            limits=httpx.Limits(max_connections=self._connections),
        )
        self.budget.release()

    async def close(self) -> None:
        """Close the connections."""
        if self._client:
            await self._client.aclose()
            self._client = None

    async def ask(self, turns: Turns, schema: Mapping[str, Any]) -> Answer:
        """Send a conversation and give the model's answer, which should follow a JSON schema where the server can.

        Raises RequestFailedError, NotAskedError, ModelError.
        """
        tries = 0
        refusal: _RefusedError | None = None
        while True:
            asked, tokens_name = schema if self.structured and refusal is None else None, self._tokens_name
            try:
                answer = await self._send(self._body(turns, asked, tokens_name))
            except _RefusedError as error:
                if tokens_name == "max_tokens" and "max_completion_tokens" in error.detail:
                    self._tokens_name = "max_completion_tokens"  # what newer OpenAI models take in its place
                elif asked is None:
                    raise refusal or error from None
                else:
                    refusal = error  # perhaps of the schema alone: the same without it will tell
            except _AgainError:
                if tries == self._retries or self.stopping:
                    raise
                wait = min(FIRST_WAIT_S * 2.0**tries, LONGEST_WAIT_S)
                await self._rest(wait * random.uniform(0.5, 1.0))  # noqa: S311 # spreads requests, hides nothing
                tries += 1
            else:
                self.structured = self.structured and refusal is None
                return answer

    def stop(self) -> None:
        """Send nothing again. Requests under way still get their answer; what waits to be sent is cancelled."""
        self.stopping = True
        for task in self._resting:
            task.cancel()

    async def _rest(self, seconds: float) -> None:
        """Wait, and be cancelled by `stop`."""
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("an endpoint is asked by a task")
        self._resting.add(task)
        try:
            await self._clock.sleep(seconds)
        finally:
            self._resting.discard(task)

    def _body(self, turns: Turns, schema: Mapping[str, Any] | None, tokens_name: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [dict(turn) for turn in turns],
            "temperature": self._temperature,
            tokens_name: self._max_tokens,
        }
        if schema is not None:
            named = {"name": "judgement", "strict": True, "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        return body

    async def _send(self, body: dict[str, Any]) -> Answer:
        """Send one request, within budget and rate; give its answer, or raise what became of it."""
        client = self._client
        if client is None:
            raise AssertionError("an endpoint is opened before it is asked")
        content = json.dumps(body, ensure_ascii=False).encode()
        most = self.budget.price(len(content), self._max_tokens)
        await self.budget.hold(most)
        cost = 0.0
        try:
            await self._turn()
            if self.stopping:
                raise NotAskedError
            self.requests += 1
            cost = most  # the server may have begun to write
            async with asyncio.timeout(self._timeout_s):
                response = await client.post(self._url, content=content, headers={"Content-Type": "application/json"})
            if response.status_code != 200:
                cost = 0.0
                self._raise_for(response)
            answer, usage = self._read(response)
            self.answered = True
            cost = self._cost(usage, most)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            cost = 0.0
            raise _AgainError("unreachable", self._shown(str(error)) or "no connection") from error
        except (TimeoutError, httpx.TimeoutException) as error:
            raise _AgainError("time_out", f"no answer in {self._timeout_s:g} s") from error
        except httpx.HTTPError as error:
            raise _AgainError("unreachable", self._shown(str(error)) or type(error).__name__) from error
        else:
            return answer
        finally:
            self.budget.settle(most, cost)

    async def _turn(self) -> None:
        """Wait until the rate and the server's own wish allow the next request, and take that place."""
        while (start := max(self._next_start, self._paused_until)) > (now := self._clock.now()):
            await self._rest(start - now)
        self._next_start = now + self._spacing_s

    def _cost(self, usage: Mapping[str, Any], most: float) -> float:
        read, wrote = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if type(read) is not int or type(wrote) is not int or min(read, wrote) < 0 or max(read, wrote) > MOST_TOKENS:
            self.budget.unknown += 1
            return most
        self.budget.input_tokens += read
        self.budget.output_tokens += wrote
        return self.budget.price(read, wrote)

    def _raise_for(self, response: httpx.Response) -> None:
        """Raise what a status other than 200 means."""
        status, said = response.status_code, self._said(response)
        detail = f"{status} {response.reason_phrase}" + (f" ({said})" if said else "")
        if status in (401, 402) or "insufficient_quota" in said:
            keyed = "check the key that --judge-key-env names, and what the account may do"
            remedy = keyed if self._key else "name the environment variable that holds a key with --judge-key-env"
            raise ModelError(self.where, detail, "an answer", remedy)
        if status in _AGAIN or status >= 500:
            self._pause(response)
            raise _AgainError("busy" if status == 429 else "server_error", detail)
        if status in _REFUSED or self.answered:
            raise _RefusedError("refused", detail)
        remedy = f"check --judge-url, and that the server knows the model {self.model!r}"
        raise ModelError(self.where, detail, "a chat-completions endpoint", remedy)

    def _pause(self, response: httpx.Response) -> None:
        """Let all requests wait for as long as the server asks."""
        seconds = retry_after_s(response.headers.get("Retry-After", ""))
        if seconds > LONGEST_PAUSE_S:
            asks = f"asks to come back in {seconds:,.0f} s ({response.status_code})"
            raise ModelError(self.where, asks, "an answer", "run the same command then: it will go on")
        self._paused_until = max(self._paused_until, self._clock.now() + seconds)

    def _said(self, response: httpx.Response) -> str:
        """Give what the server says about a failure, short, on one line, and without our key."""
        text = _text(response)
        with suppress(ValueError, AttributeError, RecursionError):
            error: Any = response.json()
            found = error.get("error", error.get("message", error.get("detail")))
            code = found.get("code") if isinstance(found, dict) else None
            said = found.get("message") if isinstance(found, dict) else found
            text = text if said is None else str(said)
            text += f" [{code}]" if code and str(code) not in text else ""
        line = self._shown(text)
        return line if len(line) <= 300 else f"{line[:300]}…"

    def _shown(self, text: str) -> str:
        """Give what a server or library says as one line."""
        return " ".join(self._hidden(text).split())

    def _hidden(self, text: str) -> str:
        """Give a text of the server without our key, should it say it, also as JSON writes it."""
        for key in (self._key, json.dumps(self._key)[1:-1]) if self._key else ():
            text = text.replace(key, "…")
        return well_formed(text)

    def _read(self, response: httpx.Response) -> tuple[Answer, Mapping[str, Any]]:
        """Read a completion: the answer, and how many tokens it took."""
        try:
            body: Any = response.json()
            choice = body["choices"][0]
            text, finish = choice["message"].get("content"), choice.get("finish_reason")
            usage = body.get("usage")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            start = self._shown(_text(response))[:80]
            raise _AgainError("no_completion", f"the server's answer is no chat completion: {start!r}") from error
        answer = Answer(self._hidden(text) if isinstance(text, str) else "", finish == "length")
        return answer, usage if isinstance(usage, dict) else {}


class _AgainError(RequestFailedError):
    """A failure that may heal when the request is sent again."""


class _RefusedError(RequestFailedError):
    """The server understood the request and does not want it."""


def _text(response: httpx.Response) -> str:
    """Give the text of a response: JSON is UTF-8, whatever charset its header names."""
    return response.content.decode("utf-8", "replace")


def well_formed(text: str) -> str:
    """Give a text that UTF-8 can hold: JSON may name halves of surrogate pairs."""
    return text.encode("utf-8", "replace").decode()


def retry_after_s(header: str) -> float:
    """Give the seconds of a Retry-After header, which holds seconds or a date (RFC 9110, 10.2.3); 0 for any other."""
    with suppress(ValueError):
        seconds = float(header)
        return seconds if 0.0 < seconds < float("inf") else 0.0
    with suppress(ValueError, TypeError):
        date = parsedate_to_datetime(header)
        return max((date - datetime.now(UTC)).total_seconds(), 0.0)
    return 0.0


def completions_url(url: str | None) -> str:
    """Give the address that takes requests; raise ConfigError for what is no address, or holds a password."""
    example = "an address such as http://localhost:8000/v1"
    if url is None:
        raise ConfigError("--judge-url", "not given, and the judge is asked there", example)
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigError("--judge-url", str(error), example) from error
    if parsed.userinfo:
        remedy = "put the key into an environment variable and name that with --judge-key-env"
        raise ConfigError("--judge-url", "a user or password inside", example, remedy)
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError(f"--judge-url {url.partition('?')[0]}", "not a web address", example)
    path = parsed.path.rstrip("/")
    return str(parsed.copy_with(path=path if path.endswith("/chat/completions") else f"{path}/chat/completions"))


def read_key(name: str | None) -> str | None:
    """Give the key that an environment variable holds; None where no variable is named."""
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        found = "holds no key: other characters than a header may have" if key else "not set, or empty"
        raise ConfigError(f"--judge-key-env {name}", found, "an environment variable with the key", f"export {name}=…")
    return key
