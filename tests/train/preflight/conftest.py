"""Splits made of texts, and a report on them."""

from collections.abc import Callable
from typing import Any

import pytest

from schemas.train_config import TrainConfig
from tests.train.world import record
from train.model.trainee import Trainee
from train.plan import Plan, make_plan
from train.preflight.report import Preflight, preflight
from train.text.template import Encoded, Template, encode
from train.text.tokens import Tokens

CONFIG: dict[str, Any] = {"model": "small", "device": "cpu", "max_tokens": 256, "batch": 4, "sample_tokens": 4}


def config_of(**settings: Any) -> TrainConfig:
    return TrainConfig(**{**CONFIG, **settings})


def plan_of(tokens: Tokens, **settings: Any) -> Plan:
    return make_plan(
        tokens, **{"max_tokens": 256, "batch": 4, "max_epochs": 2, "max_steps": None, "seed": 1, **settings}
    )


def nothing(template: Template) -> Encoded:
    return encode([], template, max_tokens=256)


@pytest.fixture
def checked(template: Template) -> Callable[..., Preflight]:
    """Make the report on a trainee and its splits."""

    def check(trainee: Trainee, train: Encoded, val: Encoded | None = None, **settings: Any) -> Preflight:
        clusters = settings.pop("clusters", ())
        config = config_of(method="full", **settings)
        return preflight(
            trainee,
            template,
            config,
            train=train,
            val=val if val is not None else nothing(template),
            plan=plan_of(Tokens.of(train.examples)),
            evaluations=2,
            clusters=clusters,
        )

    return check


@pytest.fixture
def split_of(template: Template) -> Callable[..., Tokens]:
    """Make a split of (prompt, answer) pairs; ids count from `first`."""

    def make(*pairs: tuple[str, str], first: int = 0, source: str = "a") -> Tokens:
        records = [
            record(first + i, ("user", asked), ("assistant", said), source=source)
            for i, (asked, said) in enumerate(pairs)
        ]
        return Tokens.of(encode(records, template, max_tokens=512).examples)

    return make
