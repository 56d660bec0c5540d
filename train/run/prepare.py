"""What comes before step 0: load, encode, plan, check. Nothing is written but what explains a refusal."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from schemas.errors import CheckFailedError, InputError
from schemas.train_config import TINY, TrainConfig
from train.model import tiny
from train.model.adapt import adapt
from train.model.base import Base
from train.model.device import PRECISIONS
from train.model.generation import mend
from train.model.load import load_base
from train.model.trainee import Trainee
from train.plan import Plan, make_plan
from train.plan.curriculum import scores_of
from train.preflight.rehearsal import settle_checkpointing
from train.preflight.report import Preflight, count_refused, preflight
from train.run.checkpoint import Identity
from train.run.data import Data
from train.run.folder import RunFolder
from train.run.forgetting import General, draw_general
from train.run.loop import EVALUATIONS
from train.run.parts import Listener
from train.run.track import check as check_trackers
from train.step import attention, processes, sharding
from train.step.compiled import wants_compile
from train.step.optimizer import make_optimizer
from train.text.cache import TokenCache
from train.text.template import Encoded, Encoder, Template
from train.text.tokens import Tokens, record_id


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A run that passed its preflight. `settled`: what each setting that was left open, or lowered, is."""

    config: TrainConfig
    trainee: Trainee
    base: Base
    template: Template
    train: Encoded
    val: Encoded
    replay: Encoded | None
    read: Tokens
    plan: Plan
    identity: Identity
    report: Preflight
    settled: dict[str, Any]
    general: General | None = None

    def not_used(self) -> Iterator[dict[str, Any]]:
        """Yield a line for each record that is not used as it stands, as rejected.jsonl has them."""
        return _not_used(self.train, self.val, self.replay)


def prepare(config: TrainConfig, data: Data, listener: Listener, folder: RunFolder | None = None) -> Prepared:
    """Do everything that comes before step 0. With a folder: log there, and list the records that are not used.

    Raises InputError without train records, ModelError for model, tokenizer or template, CheckFailedError where the
    preflight finds something.
    """

    def say(line: str) -> None:
        listener.note(line)
        if folder:
            folder.log(line)

    check_trackers(config.track)
    if processes.ranks() > 1:
        sharding.check(config)
        say(f"{processes.ranks()} processes: weights, gradients and moments are shared out among them")
    if not data.train:
        raise InputError(
            f"dataset {data.name}@{data.seq}", "no kept rows in split train", "at least one", "run sft curate split"
        )
    for warning in data.warnings:
        say(f"warning: {warning}")
    with processes.leader_first():  # it builds `tiny`, or reads the files into the system's cache
        base = _base(config, data, listener, folder)
    template = Template(base.tokenizer, base.name)
    trainee = adapt(base, config)
    make_optimizer(trainee.trainable(), config)  # raises now what it would raise after the records were scored
    say(f"model {base.name} on {base.device}, method {config.method}")
    for note in (*trainee.notes, *template.notes):
        say(note)
    settled = settle_checkpointing(trainee, config)
    if settled.checkpointing != "none":
        say(f"activations are recomputed in the backward pass: {settled.checkpointing}")
    max_tokens = _context(config, trainee, say)
    if note := mend(trainee.network):
        say(note)
    with Encoder(template, workers=config.workers, cache=TokenCache(say=say)) as encoder:
        fit: Any = {"max_tokens": max_tokens, "overlong": config.overlong}
        trained = encoder.encode(data.train, **fit, progress=listener.work("tokenising", len(data.train)))
        validated = encoder.encode(data.val, **fit, progress=listener.work("tokenising val", len(data.val)))
        replayed = _replay(config, data, encoder, max_tokens, say)
    read = Tokens.joined([trained.examples, *([replayed.examples] if replayed else [])])
    if folder:
        folder.write_jsonl("rejected.jsonl", _not_used(trained, validated, replayed))
    if not trained.examples:
        counts = "; ".join(str(refused) for refused in count_refused("train", trained.refusals))
        raise CheckFailedError(f"dataset {data.name}@{data.seq}", f"no record can be trained on: {counts}", "some")
    plan = _plan(config, trained, replayed, max_tokens, data)
    general = _general(config, data, template, max_tokens)
    identity = Identity(
        data.manifest,
        data.train_visible,
        template.digest,
        plan.digest,
        base.digest,
        template.tokenizer_digest,
        replay=data.replay_digest if replayed else "",
        general=general.digest if general else "",
    )
    every = config.eval_every or max(1, len(plan) // EVALUATIONS)
    report = preflight(
        trainee,
        template,
        settled.model_copy(update={"max_tokens": max_tokens}),
        train=trained,
        val=validated,
        plan=plan,
        read=read,
        evaluations=-(-len(plan) // every) if validated.examples else 0,
        clusters=data.clusters,
        work=listener.work,
    )
    if folder:  # without one the caller shows the report
        for line in report.lines():
            say(line)
        for record in report.shown:
            folder.log(f"{record.title()}\n{record.marked()}")
    return Prepared(
        config,
        trainee,
        base,
        template,
        trained,
        validated,
        replayed,
        read,
        plan,
        identity,
        report,
        settled={
            "max_tokens": max_tokens,
            "checkpointing": settled.checkpointing,
            "compile": "on" if wants_compile(config, base.device.device) else "off",
            "device": base.device.device.type,
            "precision": PRECISIONS[base.device.autocast],
            "eval_every": every,
            "lr": config.resolved_lr(),
        },
        general=general,
    )


def _not_used(train: Encoded, val: Encoded, replay: Encoded | None) -> Iterator[dict[str, Any]]:
    for split, encoded in (("train", train), ("val", val), ("replay", replay)):
        for refusal in (*encoded.refusals, *encoded.cut) if encoded else ():
            yield {"split": split, **asdict(refusal)}


def _base(config: TrainConfig, data: Data, listener: Listener, folder: RunFolder | None) -> Base:
    if config.model != TINY:
        return load_base(config, data.train)
    done = listener.work("building tiny", tiny.PRETRAIN_STEPS)
    return load_base(config, data.train, tiny_base=folder.base if folder else None, on_step=lambda _: done(1))


def _context(config: TrainConfig, trainee: Trainee, say: Any) -> int:
    """Give the tokens per row: what was asked for, and never more than the model was made for."""
    limit, what = attention.context(trainee.network.config)
    if limit is None or limit >= config.max_tokens:
        return config.max_tokens
    say(f"max_tokens {config.max_tokens} lowered to {limit}, {what}")
    return limit


def _replay(config: TrainConfig, data: Data, encoder: Encoder, max_tokens: int, say: Any) -> Encoded | None:
    """Encode the records to replay, without those that stand in train or val too."""
    replayed = config.replayed()
    if data.replay is None or replayed is None:
        return None
    encoded = encoder.encode(data.replay, max_tokens=max_tokens, overlong=config.overlong)
    tokens = encoded.examples
    own = np.asarray([record_id(name) not in data.replay_known for name in tokens.ids.to_pylist()], np.bool_)
    known = [f"{len(data.replay_known):,} left out that train or val hold too"] if data.replay_known else []
    told = [*known, *(str(refused) for refused in count_refused("replay", encoded.refusals))]
    if not own.any():
        raise CheckFailedError(f"--replay {config.replay}", f"no record can be replayed: {'; '.join(told)}", "some")
    reference, share = replayed
    say("; ".join([f"{share:.1%} of each epoch's records are drawn from the {own.sum():,} of {reference}", *told]))
    return replace(encoded, examples=tokens.chosen(own))


def _plan(config: TrainConfig, trained: Encoded, replayed: Encoded | None, max_tokens: int, data: Data) -> Plan:
    share = config.replayed()
    try:
        return make_plan(
            trained.examples,
            max_tokens=max_tokens,
            batch=config.batch,
            max_epochs=config.max_epochs,
            max_steps=config.max_steps,
            seed=config.seed,
            replay=replayed.examples if replayed else None,
            replay_share=share[1] if replayed and share else 0.0,
            scores=scores_of(config.curriculum, trained.examples, data.scores) if config.curriculum else None,
        )
    except ValueError as error:
        raise CheckFailedError(
            f"dataset {data.name}@{data.seq}", str(error), "records with a weight above 0"
        ) from error


def _general(config: TrainConfig, data: Data, template: Template, max_tokens: int) -> General | None:
    """Draw the set that forgetting is measured on: that of --general, else of the dataset that --replay names."""
    if data.general is None:
        return None
    reference = config.general or (config.replay or "").rpartition(":")[0]
    return draw_general(data.general, reference, template, max_tokens=max_tokens, seed=config.seed)
