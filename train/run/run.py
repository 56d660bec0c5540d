"""A run from records to weights: load, encode, plan, check, train, score, save.

`prepare` does everything up to step 0 and writes nothing but what explains a refusal; `run` does the rest. The dataset
comes in as `Data`: plain records and the digests that name them, so that nothing here knows of stores.
"""

import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, PreTrainedModel

from schemas.errors import CheckFailedError, ConfigError, InputError
from schemas.train_config import RESUMABLE, TINY, TrainConfig
from train.evaluation.samples import Sample, choose_prompts
from train.model import tiny
from train.model.adapt import adapt
from train.model.base import Base
from train.model.device import PRECISIONS
from train.model.load import load_base, located
from train.model.trainee import Trainee
from train.plan import Plan, make_plan
from train.plan.curriculum import scores_of
from train.preflight.rehearsal import memory_told, settle_checkpointing
from train.preflight.report import Preflight, count_refused, preflight
from train.run import card, checkpoint
from train.run.before import measure_before
from train.run.budget import Clock, budget_of
from train.run.checkpoint import Identity
from train.run.data import Data
from train.run.folder import RunFolder
from train.run.forgetting import General, draw_general
from train.run.loop import EVALUATIONS, train
from train.run.outcome import Result, save
from train.run.parts import Listener, Run
from train.run.track import check as check_trackers
from train.run.track import trackers
from train.step import attention, processes, sharding
from train.step.compiled import wants_compile
from train.step.optimizer import make_optimizer
from train.text.cache import TokenCache
from train.text.template import Encoded, Encoder, Template
from train.text.tokens import Tokens, record_id
from train.verdict.verdict import judge_folder, kinds


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
    if note := _make_generation_sound(trainee.network):
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


def run(
    config: TrainConfig, data: Data, out: Path, listener: Listener, *, resume: bool = False, resume_with: str = ""
) -> Result:
    """Train in a folder. Raises what `prepare` and `train` raise, and ConfigError for the folder.

    `resume_with` is the command that an interrupted run tells people to go on with. Of several processes (see
    train/step/processes.py) all must call it with the same arguments; the leader writes the folder.
    """
    clock = Clock()
    folder = RunFolder(out, writes=processes.leads())
    config = config.model_copy(update={"model": located(config.model)})
    with processes.leader_first():
        if resume:
            check_resumable(folder, config)
        else:
            folder.claim()
    prepared = prepare(config, data, listener, folder)
    this = Run(
        config,
        prepared.trainee,
        prepared.plan,
        prepared.train.examples,
        prepared.val.examples,
        prepared.identity,
        folder,
        listener,
        resume_with or f"sft train --resume --out {out}",
    )
    _check_time(this, clock)
    facts = _open(this, prepared, data, resume=resume)
    _set_stop_tokens(prepared)
    records, encoded = (data.val, prepared.val) if len(prepared.val.examples) else (data.train, prepared.train)
    this = replace(
        this,
        clock=clock,
        read=prepared.read,
        template=prepared.template,
        prompts=choose_prompts(
            records,
            encoded.examples,
            prepared.template,
            count=config.samples,
            new_tokens=config.sample_tokens,
            max_tokens=prepared.plan.max_tokens,
        ),
        trackers=(
            trackers(config.track, folder, facts["run_id"], folder.read_json("config.json")["train"])
            if folder.writes
            else ()
        ),
    )
    try:
        with memory_told(this.trainee, config):
            before, first = measure_before(this, prepared.general)
            this = replace(this, reserve=processes.of_leader(before.seconds))
            _check_time(this, clock)
            cursor, last = train(this, resume=resume)
            ending = save(this, cursor, before=before, first=first, last=last, general=prepared.general)
    finally:
        for tracker in this.trackers:
            tracker.close()
    if not folder.writes:
        return Result(folder.path, facts["run_id"], prepared.report, ending, (), ending.seconds, facts)
    samples = tuple(Sample(**line) for line in folder.lines("samples.jsonl") if line["step"] == cursor.step)
    ended = {**facts, "ended": datetime.now(UTC).isoformat(timespec="seconds"), **ending.facts()}
    ended = card.leave(folder, ended)
    folder.write_json("run.json", ended)
    ended = {**ended, "verdict": kinds(judge_folder(folder.path))}
    folder.write_json("run.json", ended)
    this.say(f"finished after {cursor.step} steps; weights in {folder.path / 'final'}")
    return Result(folder.path, facts["run_id"], prepared.report, ending, samples, ending.seconds, ended)


def check_resumable(folder: RunFolder, config: TrainConfig) -> None:
    """Raise ConfigError where there is no run to go on with, or its settings were others."""
    if not folder.holds_run():
        raise ConfigError(
            f"--resume {folder.path}", "no run in this folder", "a run folder", "start it without --resume"
        )
    was = folder.settings()
    for name in TrainConfig.model_fields:
        old, new = getattr(was, name), getattr(config, name)
        if old != new and name not in RESUMABLE:
            raise ConfigError(
                f"--resume {folder.path}",
                f"{name} was {old} and is {new} now",
                "the settings that the run was started with",
                "leave the option out, or start anew with another --out",
            )


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


def _make_generation_sound(network: PreTrainedModel) -> str | None:
    """Mend a generation config that contradicts itself, as published ones do: transformers would not save it. Say so.

    What is unknown to make sense is reset to greedy answers with the model's own special tokens.
    """
    settings = getattr(network, "generation_config", None)
    if settings is None or _is_sound(settings):
        return None
    settings.do_sample = True  # the usual fault: temperature and top_p without it
    if _is_sound(settings):
        return "the model's generation_config has sampling settings without do_sample: set, so that it can be saved"
    ids = {name: getattr(settings, name) for name in TOKENS if _are_ids(getattr(settings, name))}
    network.generation_config = GenerationConfig(**ids)
    return "the model's generation_config contradicts itself: reset, so that it can be saved"


def _is_sound(settings: GenerationConfig) -> bool:
    try:
        settings.validate(strict=True)
    except (ValueError, TypeError):
        return False
    return all(_are_ids(getattr(settings, name)) for name in TOKENS)


TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def _are_ids(found: object) -> bool:
    return found is None or all(isinstance(i, int) for i in (found if isinstance(found, list) else [found]))  # pyright: ignore[reportUnknownVariableType] # somebody's JSON


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


def _check_time(this: Run, clock: Clock) -> None:
    """Raise ConfigError where no time is left for a first step. The folder is then free for a start with more, unless
    it holds weights: those of a run that ended, and whose checkpoints are gone."""
    if checkpoint.latest(this.folder.checkpoints) is not None:
        return
    try:
        budget_of(this.config, reserve=this.reserve).check(processes.of_leader(clock.seconds()))
    except ConfigError:
        if not (this.folder.path / "final").is_dir():
            this.folder.release()
        raise


def _open(this: Run, prepared: Prepared, data: Data, *, resume: bool) -> dict[str, Any]:
    """Write config.json and run.json, which claims the folder; on resume check them instead."""
    folder = this.folder
    versions = {name: _version(name) for name in ("sft-toolkit", "torch", "transformers", "peft")}
    if resume:
        facts = folder.facts()
        checkpoint.check_identity(folder.path, Identity(**facts["identity"]), prepared.identity)
        for name, now in versions.items():
            if (was := facts["versions"].get(name)) != now and name != "sft-toolkit":
                this.say(f"warning: {name} was {was} and is {now} now: weights may differ from those of a whole run")
        if facts["ended"]:
            folder.log("this run had finished: its last files are written anew")
        return facts
    start = datetime.now(UTC)
    facts = {
        "run_id": f"{start:%Y%m%dT%H%M%S}-{_digest(str(folder.path.resolve()) + prepared.plan.digest)[:8]}",
        "dataset": data.name,
        "seq": data.seq,
        "manifest": data.manifest,
        "train_visible": data.train_visible,
        "model": prepared.base.name,
        "revision": prepared.base.source.commit if prepared.base.source else None,
        "license": prepared.base.source.license() if prepared.base.source else None,
        "origins": [asdict(origin) for origin in data.origins],
        "method": prepared.config.method,
        "identity": asdict(prepared.identity),
        "versions": versions,
        "python": platform.python_version(),
        "device": str(prepared.trainee.device),
        "settled": prepared.settled,
        "preflight": prepared.report.json(shown=False),
        "started": start.isoformat(timespec="seconds"),
        "ended": None,
    }
    resolved = {**prepared.config.model_dump(), "lr": prepared.config.resolved_lr()}
    folder.write_json(
        "config.json",
        {
            "train": resolved,
            "dataset": data.reference or f"{data.name}@{data.seq}",
            "store": data.store,
            "manifest": data.manifest,
        },
    )
    folder.write_json("preflight.json", prepared.report.json())
    folder.write_json("run.json", facts)
    return facts


def _set_stop_tokens(prepared: Prepared) -> None:
    """Let the saved model stop where it was taught to stop."""
    network = prepared.trainee.network
    taught = {
        int(e.input_ids[i])
        for e in prepared.train.examples[:1]
        for i in range(len(e))
        if e.supervised[i] and (i + 1 == len(e) or not e.supervised[i + 1])
    }
    settings = getattr(network, "generation_config", None)
    if settings is None:
        return
    known = settings.eos_token_id
    known = set() if known is None else {known} if isinstance(known, int) else set(known)
    settings.eos_token_id = sorted(known | taught)


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _version(package: str) -> str:
    try:
        return torch.__version__ if package == "torch" else version(package)
    except PackageNotFoundError:
        return "unknown"
