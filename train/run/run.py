"""A run from records to weights: prepare, measure, train, score, save.

The dataset comes in as `Data`: plain records and the digests that name them, so that nothing here knows of stores.
"""

import platform
from dataclasses import asdict, replace
from datetime import UTC, datetime
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from schemas.errors import ConfigError
from schemas.train_config import RESUMABLE, TrainConfig
from train.evaluation.samples import Sample, choose_prompts
from train.model.load import located
from train.preflight.rehearsal import memory_told
from train.run import card, checkpoint
from train.run.before import measure_before
from train.run.budget import Clock, budget_of
from train.run.checkpoint import Identity
from train.run.data import Data
from train.run.folder import RunFolder
from train.run.loop import train
from train.run.outcome import Result, save
from train.run.parts import Listener, Run
from train.run.prepare import Prepared, prepare
from train.run.track import trackers
from train.step import processes
from train.verdict.verdict import judge_folder, kinds


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
    _check_time(config, folder, clock)
    facts = _open(folder, prepared, data, listener, resume=resume)
    _set_stop_tokens(prepared)
    records, encoded = (data.val, prepared.val) if len(prepared.val.examples) else (data.train, prepared.train)
    prompts = choose_prompts(
        records,
        encoded.examples,
        prepared.template,
        count=config.samples,
        new_tokens=config.sample_tokens,
        max_tokens=prepared.plan.max_tokens,
    )
    tracked = config.track if folder.writes else ()
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
        read=prepared.read,
        template=prepared.template,
        prompts=prompts,
        trackers=trackers(tracked, folder, facts["run_id"], folder.read_json("config.json")["train"])
        if tracked
        else (),
        clock=clock,
    )
    try:
        with memory_told(this.trainee, config):
            before, first = measure_before(this, prepared.general)
            this = replace(this, reserve=processes.of_leader(before.seconds))
            _check_time(config, folder, clock, reserve=this.reserve)
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


def _check_time(config: TrainConfig, folder: RunFolder, clock: Clock, reserve: float = 0.0) -> None:
    """Raise ConfigError where no time is left for a first step. The folder is then free for a start with more, unless
    it holds weights: those of a run that ended, and whose checkpoints are gone."""
    if checkpoint.latest(folder.checkpoints) is not None:
        return
    try:
        budget_of(config, reserve=reserve).check(processes.of_leader(clock.seconds()))
    except ConfigError:
        if not (folder.path / "final").is_dir():
            folder.release()
        raise


def _open(folder: RunFolder, prepared: Prepared, data: Data, listener: Listener, *, resume: bool) -> dict[str, Any]:
    """Write config.json and run.json, which claims the folder; on resume check them instead."""
    versions = {name: _version(name) for name in ("sft-toolkit", "torch", "transformers", "peft")}
    if resume:
        facts = folder.facts()
        checkpoint.check_identity(folder.path, Identity(**facts["identity"]), prepared.identity)
        for name, now in versions.items():
            if (was := facts["versions"].get(name)) != now and name != "sft-toolkit":
                line = f"warning: {name} was {was} and is {now} now: weights may differ from those of a whole run"
                folder.log(line)
                listener.note(line)
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
