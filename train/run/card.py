"""The model card and the provenance of weights: what was trained, on what, with what result, and how to load it.

Made from the files of the run folder alone, so that merged weights get the same. What is not known is said to be
unknown, never made up. Names and sources come from datasets and people: in the card they are text, never markup, and
the YAML above it is written by a YAML library.
"""

import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import yaml

from schemas.errors import CheckFailedError, ConfigError, ModelError
from schemas.objects import file_sha256
from schemas.train_config import ADAPTER_SETTINGS
from train.run.folder import RunFolder, whole_file

README, PROVENANCE = "README.md", "provenance.json"

SETTINGS = (
    "method", "unfreeze", "lora_r", "lora_alpha", "lora_dropout", "lora_targets", "dora", "rslora", "add_tokens",
    "max_tokens", "overlong", "batch", "max_epochs", "max_steps", "replay", "curriculum", "optimizer", "lr",
    "warmup_ratio", "weight_decay", "beta1", "beta2", "clip", "neftune", "precision", "seed",
)  # fmt: skip
"""The settings that decide what comes out, in the card's order; those that say nothing (None, empty) are left out."""

PARTS = {"base": "base model", "template": "chat template", "tokenizer": "tokenizer"}
"""What a run is made with, by its name in run.json's identity."""

ASK = """
prompt = tokenizer.apply_chat_template(
    [{{"role": "user", "content": "Hello"}}], add_generation_prompt=True, return_tensors="pt", return_dict=True
)
answer = model.generate(**prompt, max_new_tokens=64)
print(tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))
"""


@dataclass(frozen=True, slots=True)
class MergedFacts:
    """What merging found: the difference of logits in fp32, and what the cast to `dtype` changed."""

    dtype: str
    difference: float
    cast_difference: float
    agreement: float
    positions: int


def leave(folder: RunFolder, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write card and provenance into final/ and best/, and give the facts of the run with the files of both in them."""
    weights: dict[str, Any] = {}
    for name in ("final", "best"):
        place = folder.path / name
        if place.is_dir():
            weights[name] = hashes(place)
            write(place, folder, facts, which=name)
    return {**facts, "weights": weights}


def hashes(place: Path) -> dict[str, str]:
    """Give the sha256 of each file of a folder of weights, but for card and provenance."""
    files = sorted(p for p in place.iterdir() if p.is_file() and p.name not in (README, PROVENANCE))
    return {p.name: file_sha256(p) for p in files}


def check_files(folder: RunFolder, facts: Mapping[str, Any], which: str) -> dict[str, str]:
    """Give the hashes of final/ or best/. Raises CheckFailedError that names the first file that the run did not leave
    so, ConfigError where it recorded none."""
    where = f"run {folder.path}"
    left: Mapping[str, str] | None = facts.get("weights", {}).get(which)
    if not left:
        raise ConfigError(where, f"it recorded no files of {which}", "a run of this release", "train it again")
    found = hashes(folder.path / which) if (folder.path / which).is_dir() else {}
    for name in sorted(left.keys() | found.keys()):
        if left.get(name) != found.get(name):
            what = "is gone" if name not in found else "was not left by the run" if name not in left else "was changed"
            remedy = "bring it back from a copy, or train again"
            raise CheckFailedError(where, f"{which}/{name} {what}", "the files that the run left", remedy)
    return found


def check_same(folder: RunFolder, facts: Mapping[str, Any], **found: str) -> None:
    """Raise ModelError where a part of a run is another one now, by its digest: `base`, `template` or `tokenizer`."""
    for name, now in found.items():
        was = str(facts["identity"].get(name) or now)  # of a run that did not record it
        if now != was:
            raise ModelError(
                f"run {folder.path}",
                f"its {PARTS[name]} is another one now ({now[:16]}, and {was[:16]} in the run)",
                "the files that the run was made with",
            )


def write(
    place: Path, folder: RunFolder, facts: Mapping[str, Any], *, which: str, merged: MergedFacts | None = None
) -> None:
    """Write README.md and provenance.json into a folder of weights."""
    settings: dict[str, Any] = {**folder.read_json("config.json")["train"], **facts.get("settled", {})}
    provenance = {
        "run_id": facts["run_id"],
        "weights": which,
        "step": facts.get("best_step") if which == "best" else facts.get("steps"),
        "dataset": f"{facts['dataset']}@{facts['seq']}",
        "model": facts["model"],
        "revision": facts.get("revision"),
        "method": facts["method"],
        "identity": facts["identity"],
        "versions": facts["versions"],
        "device": facts["device"],
        "started": facts["started"],
        "ended": facts["ended"],
        "files": hashes(place),
        **({"merged": {name: getattr(merged, name) for name in MergedFacts.__slots__}} if merged else {}),
    }
    with whole_file(place / PROVENANCE) as file:
        file.write_text(json.dumps(provenance, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with whole_file(place / README) as file:
        file.write_text(_card(folder, facts, settings, which=which, merged=merged), encoding="utf-8")


def _card(
    folder: RunFolder, facts: Mapping[str, Any], settings: Mapping[str, Any], *, which: str, merged: MergedFacts | None
) -> str:
    base = _base_name(facts)
    adapter = facts["method"] != "full" and merged is None
    parts = [
        "---",
        yaml.safe_dump(_metadata(facts, adapter=adapter), sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        f"# {text(base)} tuned on {text(facts['dataset'])}",
        _summary(facts, settings, base, which=which, merged=merged),
        "## How to load it\n\n" + _snippet(adapter=adapter),
        "## Data\n\n" + _data(folder, facts),
        "## Results\n\n" + _results(folder, facts),
        "## Training\n\n" + _table(("setting", "value"), _settings(settings)),
        "## Provenance\n\n" + _table(("what", "digest or version"), _provenance(facts)),
        "## Limitations\n\n" + _limitations(facts, merged),
    ]
    return "\n".join(parts[:3]) + "\n\n" + "\n\n".join(parts[3:]) + "\n"


def _base_name(facts: Mapping[str, Any]) -> str:
    """Name the base model: the hub's id, or the last part of a folder's path, which is nobody else's business."""
    return facts["model"] if facts.get("revision") else Path(facts["model"]).name


def _metadata(facts: Mapping[str, Any], *, adapter: bool) -> dict[str, Any]:
    """Give what the hub reads; only what can be looked up there is named as a base model or a dataset."""
    hub = sorted({name for origin in facts.get("origins", ()) for name in _hub_datasets(origin["uris"])})
    found: dict[str, Any] = {"library_name": "peft" if adapter else "transformers", "pipeline_tag": "text-generation"}
    if facts.get("revision"):
        found["base_model"] = facts["model"]
        found["base_model_relation"] = "adapter" if adapter else "finetune"
    found["license"] = facts.get("license") or "unknown"
    if hub:
        found["datasets"] = hub
    how = {"full": (), "lora": ("lora",), "qlora": ("lora", "qlora")}[facts["method"]]
    found["tags"] = ["sft", *(how if adapter else ())]
    return found


def _hub_datasets(uris: Iterable[str]) -> list[str]:
    found = (re.match(r"hf://datasets/([^/@]+/[^/@]+)", uri) for uri in uris)
    return [match[1] for match in found if match]


def _how(facts: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Say which weights were trained."""
    rows = " and the embeddings of the added tokens" if settings.get("add_tokens") else ""
    if facts["method"] == "full":
        last = settings.get("unfreeze")
        if last is None:
            return "All weights were trained."
        layers = "layer" if last == 1 else f"{last} layers"
        kept = " and the embeddings, for the added tokens" if rows else ""
        return f"Only its last {layers}, the final norm, the head where it is a layer of its own{kept} were trained."
    if facts["model"] == "tiny":
        rows = ", and its embeddings and head as a whole"
    over = " over the base model held in 4 bits (QLoRA)" if facts["method"] == "qlora" else ""
    return f"Adapters (LoRA){rows} were trained{over}; the other weights are those of the base model."


def _summary(
    facts: Mapping[str, Any], settings: Mapping[str, Any], base: str, *, which: str, merged: MergedFacts | None
) -> str:
    how = _how(facts, settings)
    at = facts.get("best_step") if which == "best" else facts.get("steps")
    lowest = ", which had the lowest validation loss" if which == "best" and facts.get("best_step") else ""
    said = [
        f"{text(base)}, fine-tuned on version {facts['seq']} of the dataset {text(facts['dataset'])}. {how}",
        f"These are the weights after step {at or facts.get('steps')}{lowest}.",
    ]
    if merged:
        said.append(
            f"The adapters were merged into the base model in fp32, which moved logits by {merged.difference:.1e} of "
            f"their standard deviation, then cast to {merged.dtype}: by {merged.cast_difference:.1e}, and the most "
            f"likely next token stayed the same at {merged.agreement:.1%} of {merged.positions} positions."
        )
        if facts["method"] == "qlora":
            said.append(
                "They were trained over a base in 4 bits and merged into the base as it was before: answers differ "
                "somewhat from those of the adapters over the 4-bit base."
            )
    return " ".join(said)


def _snippet(*, adapter: bool) -> str:
    library, kind = ("peft", "AutoPeftModelForCausalLM") if adapter else ("transformers", "AutoModelForCausalLM")
    imports = (
        f"from {library} import {kind}\nfrom transformers import AutoTokenizer"
        if adapter
        else f"from {library} import {kind}, AutoTokenizer"
    )
    load = f'folder = "."  # this folder, or its id on the hub\nmodel = {kind}.from_pretrained(folder)'
    tokenizer = "tokenizer = AutoTokenizer.from_pretrained(folder)"
    return f"```python\n{imports}\n\n{load}\n{tokenizer}\n{ASK.format()}```"


def _data(folder: RunFolder, facts: Mapping[str, Any]) -> str:
    rows = _rows(folder)
    origins = {origin["name"]: origin for origin in facts.get("origins", ())}
    lines = [
        (source, f"{split['train']:,}", f"{split['val']:,}", origins.get(source, {}).get("license") or "unknown")
        for source, split in sorted(rows.items())
    ]
    return f"Version {facts['seq']} of {text(facts['dataset'])}, manifest `{facts['manifest']}`.\n\n" + _table(
        ("source", "rows trained on", "rows validated on", "licence"), lines
    )


def _rows(folder: RunFolder) -> dict[str, dict[str, int]]:
    """Count the rows of each source that the run trained on, and those it was validated on, from records.arrow."""
    counted: dict[str, dict[str, int]] = {}
    path = folder.path / "records.arrow"
    if path.is_file():
        with pa.memory_map(str(path)) as source:
            table = pyarrow.ipc.open_file(source).read_all().select(["source", "split", "seen"])
        # A run that stops early has not seen every row of train; those that were replayed were trained on.
        for line in table.group_by(["source", "split", "seen"]).aggregate([([], "count_all")]).to_pylist():
            if line["seen"] or line["split"] == "val":
                split = counted.setdefault(line["source"], {"train": 0, "val": 0})
                split["val" if line["split"] == "val" else "train"] += line["count_all"]
    return counted


def _results(folder: RunFolder, facts: Mapping[str, Any]) -> str:
    """Say the losses before and after, per source, and what was forgotten. Losses are nats per target token."""
    found = [line for line in folder.metrics() if "val_loss" in line]
    if not found:
        return "No validation records: nothing was measured."
    first, last = found[0], found[-1]
    lines = [("all", _number(facts.get("val_loss_first")), _number(facts.get("val_loss_last")))]
    before: Mapping[str, float] = first.get("val_loss_by_source", {}) if first["step"] == 0 else {}
    after: Mapping[str, float] = last.get("val_loss_by_source", {})
    if len(after) > 1:
        lines += [(source, _number(before.get(source)), _number(loss)) for source, loss in sorted(after.items())]
    said = "Loss on the validation split, in nats per target token, of the final weights.\n\n"
    said += _table(("source", "before", "after"), lines)
    if (folder.path / "general.json").is_file():
        general: dict[str, Any] = folder.read_json("general.json")
        if general.get("after"):
            said += (
                f"\n\nForgetting: on {general['records']:,} records of {text(general['reference'])} the "
                f"loss was {_number(general['before']['loss'])} before and "
                f"{_number(general['after']['loss'])} after."
            )
    return said


def _settings(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    shown: list[tuple[str, str]] = []
    for name in SETTINGS:
        value = settings.get(name)
        if value in (None, False, [], (), "") or (name in ADAPTER_SETTINGS and settings["method"] == "full"):
            continue
        shown.append((name, " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] # JSON
    return shown


def _provenance(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    identity: Mapping[str, str] = facts["identity"]
    names = {"manifest": "manifest", "train_visible": "rows", "template": "chat template", "plan": "plan"}
    names |= {"base": "base model", "tokenizer": "tokenizer"}
    digests = [(what, identity[name]) for name, what in names.items() if identity.get(name)]
    return [("run", facts["run_id"]), *digests, *((k, str(v)) for k, v in facts["versions"].items())]


def _limitations(facts: Mapping[str, Any], merged: MergedFacts | None) -> str:
    said = [
        "Losses say how well the validation rows are predicted, not whether answers are true or safe: neither was "
        "measured here.",
        "The model has what its base model and its data have, their errors and leanings included.",
    ]
    if not facts.get("license") and facts["model"] != "tiny":
        said.append("The licence of the base model is not stated in its files: find it out before passing this on.")
    if any(not origin.get("license") for origin in facts.get("origins", ())):
        said.append("Some sources of the data state no licence.")
    if facts["model"] == "tiny":
        said.append(
            "The base is a model of under a million weights, built for a smoke test: it is good for nothing else."
        )
    if facts["method"] == "qlora" and merged is None:
        said.append("Loaded as shown, the adapters stand on the base as it is; they were trained over it in 4 bits.")
    return "\n".join(f"- {line}" for line in said)


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"


def _table(names: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    rows += ["| " + " | ".join(text(cell) for cell in line) + " |" for line in lines]
    return "\n".join(rows)


def text(value: str) -> str:
    """Write a value as Markdown that shows it and is no markup: on one line, without tags, links, tables or code."""
    line = " ".join("".join(c if c.isprintable() else " " for c in value).split())
    return re.sub(r"([\\`*_{}\[\]()#+!|~:@])", r"\\\1", html.escape(line, quote=False))
