"""How the sandbox is told to misbehave: which requests, in which way, or with which probability.

A rule waits for requests that match it, the oldest rule first, each for as many requests as it
says; its steps are taken in order, those before processing and then those after. Where no rule
matches, chances decide, drawn from a seed, the company and the number of its request, so that a run
repeats itself however its tenants interleave. Decides which steps; `conduct` takes them. No I/O.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from broker.sandbox.oauth import Answer, RefusedError, json_answer, refusal

When = Literal["before", "after"]
"""Before or after the server has acted upon the request."""

Cut = Literal["reset", "close"]
"""How a connection ends: with RST, or with FIN."""

Endpoint = Literal["token", "introspect", "api"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """Wait this long."""

    seconds: float
    when: When = "before"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Wait until a `release`, so that tests can order events without sleeping."""

    when: When = "before"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hang:
    """Never answer: wait until released or until the client has gone, and end the connection."""

    when: When = "after"


@dataclass(frozen=True, slots=True, kw_only=True)
class Substitute:
    """Answer this instead: before processing, so that nothing happened, or after it."""

    answer: Answer
    when: When = "before"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """End the connection without any answer."""

    when: When = "before"
    cut: Cut = "reset"


@dataclass(frozen=True, slots=True, kw_only=True)
class Half:
    """Answer the head and half of the body, then end the connection."""

    cut: Cut = "reset"
    when: Literal["after"] = "after"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alter:
    """Leave fields of a good answer out, or give them other values. Errors stay as they are."""

    omit: tuple[str, ...] = ()
    replace: Mapping[str, object] = field(default_factory=dict)
    when: Literal["after"] = "after"


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoke:
    """The company disconnects at this very moment."""

    when: When = "before"


Step = Delay | Hold | Hang | Substitute | Drop | Half | Alter | Revoke


def refuse(error: str, *, status: int = 400, when: When = "before") -> Substitute:
    """Answer with an OAuth error that the sandbox itself would not give."""
    refused = RefusedError(error, "The sandbox was told to refuse", status=status)
    return Substitute(answer=refusal(refused), when=when)


def rate_limit(*, retry_after: str | None = "1", when: When = "before") -> Substitute:
    """Answer 429; `retry_after` is the header as it stands: seconds, a date, or rubbish."""
    headers = (("Retry-After", retry_after),) if retry_after is not None else ()
    return Substitute(
        answer=json_answer(429, {"error": "rate_limited"}, headers=headers), when=when
    )


def fail(status: int = 503, *, when: When = "before") -> Substitute:
    """Answer as a gateway does whose server is ill."""
    body = b"<html><body><h1>The sandbox was told to fail</h1></body></html>"
    return Substitute(answer=Answer(status=status, body=body, content_type="text/html"), when=when)


def rubbish(status: int = 200, *, when: When = "after") -> Substitute:
    """Answer what nobody can read."""
    body = b'{"access_token": "\xff\xfe'
    return Substitute(answer=Answer(status=status, body=body), when=when)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request is, as far as rules look at it."""

    endpoint: Endpoint = "token"
    grant_type: str | None = None
    company: str | None = None


@dataclass(slots=True, kw_only=True)
class Rule:
    """Steps for the requests that match."""

    number: int
    steps: tuple[Step, ...]
    remaining: int | None
    """For how many more requests; none: for all of them, until cleared."""
    endpoint: Endpoint
    grant_type: str | None
    company: str | None

    def matches(self, asked: Asked) -> bool:
        """Tell whether it is for this request."""
        return (
            self.remaining != 0
            and self.endpoint == asked.endpoint
            and self.grant_type in (None, asked.grant_type)
            and self.company in (None, asked.company)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Chance:
    """Steps that a token request meets with this probability."""

    probability: float
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dice:
    """Chances, at most one of which befalls a request, and the seed that decides."""

    seed: int
    chances: tuple[Chance, ...]

    def __post_init__(self) -> None:
        """Refuse probabilities that add up to more than one.

        Raises:
            ValueError: they do.
        """
        # A hair more is the rounding of decimal fractions.
        if sum(chance.probability for chance in self.chances) > 1 + 1e-9:
            raise ValueError("the probabilities add up to more than 1")

    def roll(self, company: str | None, count: int) -> tuple[Step, ...]:
        """Decide about the `count`-th token request of a company."""
        # Not security: a run has to repeat itself.
        drawn = random.Random(f"{self.seed}/{company}/{count}").random()  # noqa: S311
        for chance in self.chances:
            drawn -= chance.probability
            if drawn < 0:
                return chance.steps
        return ()


NO_DICE: Final = Dice(seed=0, chances=())


class Faults:
    """The rules in force."""

    def __init__(self) -> None:
        """Start with none: the sandbox behaves."""
        self.rules: list[Rule] = []
        self.dice = NO_DICE
        self._rolled: Counter[str | None] = Counter()
        self._numbers = 0

    def add(
        self,
        *steps: Step,
        times: int | None = 1,
        endpoint: Endpoint = "token",
        grant_type: str | None = None,
        company: str | None = None,
    ) -> Rule:
        """Let the next `times` matching requests take these steps; for ever: None."""
        self._numbers += 1
        rule = Rule(
            number=self._numbers,
            steps=steps,
            remaining=times,
            endpoint=endpoint,
            grant_type=grant_type,
            company=company,
        )
        self.rules.append(rule)
        return rule

    def throw(self, dice: Dice) -> None:
        """Let chance decide about token requests that no rule matches, counting from here."""
        self.dice = dice
        self._rolled.clear()

    def clear(self) -> None:
        """Behave again."""
        self.rules.clear()
        self.throw(NO_DICE)

    def take(self, asked: Asked) -> tuple[Step, ...]:
        """Decide which steps this request takes, and count it."""
        rule = next((rule for rule in self.rules if rule.matches(asked)), None)
        if rule is None:
            return self._roll(asked)
        if rule.remaining is not None:
            rule.remaining -= 1
        return rule.steps

    def _roll(self, asked: Asked) -> tuple[Step, ...]:
        if asked.endpoint != "token":
            return ()
        self._rolled[asked.company] += 1
        return self.dice.roll(asked.company, self._rolled[asked.company])


def name_of(step: Step) -> str:
    """Name a step for the record, as `reset before`."""
    match step:
        case Substitute(answer=answer):
            return f"answer {answer.status} {step.when}"
        case _:
            return f"{type(step).__name__.lower()} {step.when}"
