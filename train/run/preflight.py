"""What must hold before step 0: shown alone with `--dry-run`, and a run starts only where it does.

The heart of it is the self-test: two records in one packed row must get the logits that they get alone, from
transformers' own attention and the model's own head. It finds a leak between records, a layer that ignores the bounds,
a head that does more than ours, whatever the cause.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from schemas.errors import CheckFailedError, SftError
from train.model.load import Trainee
from train.plan import Plan
from train.step.batch import PackedBatch, make_batch
from train.text.template import Encoded, Refusal, Template
from train.text.tokens import Example

TOLERANCE = {None: 1e-3, torch.float16: 1e-1, torch.bfloat16: 1e-1}
"""Largest difference of logits, in standard deviations of the logits. fp32 kernels differ by 1e-6 and bf16 ones by a
few hundredths; a leak between records measured 0.5 and more."""

SELF_TEST_TOKENS = 256
"""Tokens per record of the self-test, at most, so that it takes no time. A leak shows at a record's first token."""


@dataclass(frozen=True, slots=True)
class Refused:
    """How many records of a split were refused for a reason, per source."""

    split: str
    reason: str
    by_source: dict[str, int]

    def __str__(self) -> str:
        sources = ", ".join(f"{n} of {source}" for source, n in self.by_source.items())
        return f"{sum(self.by_source.values())} {self.split} records not used ({self.reason}): {sources}"


@dataclass(frozen=True, slots=True)
class Preflight:
    """What a run will do. Token counts are of the whole run, all epochs together."""

    train_records: int
    val_records: int
    refused: tuple[Refused, ...]
    trimmed: int
    steps: int
    epochs: int
    records_per_step: float
    rows_per_step: int
    tokens: int
    targets: int
    packing_efficiency: float
    weights: int
    trainable_weights: int
    logit_difference: float
    warnings: tuple[str, ...]

    def lines(self) -> list[str]:
        """Say it in lines for a person."""
        held = f"{self.records_per_step:.1f} records in {_many(self.rows_per_step, 'packed row')}"
        return [
            f"{self.train_records} records to train on, {self.val_records} to validate",
            *(str(refused) for refused in self.refused),
            *([f"{self.trimmed} records lose outer whitespace to the template"] if self.trimmed else []),
            f"{_many(self.steps, 'step')} over {_many(self.epochs, 'epoch')}, each of about {held}",
            f"{self.tokens:,} tokens in the whole run, {self.targets / max(1, self.tokens):.0%} of them targets; "
            f"packed rows are {self.packing_efficiency:.1%} full",
            f"{self.trainable_weights:,} of {self.weights:,} weights are trained",
            f"self-test: packed and alone differ by {self.logit_difference:.1e} standard deviations of the logits",
            *(f"warning: {warning}" for warning in self.warnings),
        ]


def preflight(trainee: Trainee, template: Template, *, train: Encoded, val: Encoded, plan: Plan) -> Preflight:
    """Check a run and describe it. Raises CheckFailedError for what must not be trained."""
    told: list[str] = []
    _check_stops(train.examples, template)
    if note := _check_bos(train.examples, template):
        told.append(note)
    if not val.examples:
        told.append("no validation records: no early stopping, and best/ is final/")
    difference = self_test(trainee, train.examples)
    used = [i for step in plan.steps for row in step.rows for i in row]
    model = list(trainee.model.parameters())
    return Preflight(
        train_records=len(train.examples),
        val_records=len(val.examples),
        refused=(*count_refused("train", train.refusals), *count_refused("val", val.refusals)),
        trimmed=train.trimmed + val.trimmed,
        steps=len(plan.steps),
        epochs=plan.epochs,
        records_per_step=len(used) / len(plan.steps),
        rows_per_step=plan.rows_per_step,
        tokens=plan.tokens,
        targets=sum(train.examples[i].targets for i in used),
        packing_efficiency=plan.packing_efficiency,
        weights=sum(p.numel() for p in model),
        trainable_weights=sum(p.numel() for _, p in trainee.trainable()),
        logit_difference=difference,
        warnings=tuple(told),
    )


def _many(count: int, word: str) -> str:
    return f"{count:,} {word}" + ("" if count == 1 else "s")


def count_refused(split: str, refusals: Sequence[Refusal]) -> tuple[Refused, ...]:
    """Count refusals by reason and source."""
    counts: dict[str, dict[str, int]] = {}
    for refusal in refusals:
        by_source = counts.setdefault(refusal.reason, {})
        by_source[refusal.source] = by_source.get(refusal.source, 0) + 1
    return tuple(Refused(split, reason, dict(sorted(found.items()))) for reason, found in sorted(counts.items()))


def self_test(trainee: Trainee, examples: Sequence[Example]) -> float:
    """Compare logits of two records in one packed row with those of each alone, by the model's own forward.

    Gives the largest difference in standard deviations of the logits. Raises CheckFailedError where it is too large, or
    where the model cannot run packed at all.
    """
    pair = [_head_of_record(example) for example in sorted(examples, key=len)[len(examples) // 2 :][:2]]
    pair = pair * 2 if len(pair) == 1 else pair
    was_training = trainee.model.training
    trainee.model.eval()
    try:
        with torch.inference_mode(), trainee.device.compute():
            batch = make_batch(pair, [(0, 1)]).to(trainee.device.device)
            packed_NV = trainee.head(trainee.hidden(batch)[0])
            alone_NV = _alone(trainee, batch)
    except SftError:
        raise
    except (ValueError, TypeError, RuntimeError, KeyError, AttributeError) as error:
        raise CheckFailedError(
            f"self-test of {trainee.name}",
            f"the model does not run on packed rows ({type(error).__name__}: {str(error).strip()[:200]})",
            "a model whose attention goes through transformers' AttentionInterface",
        ) from error
    finally:
        trainee.model.train(was_training)
    if not alone_NV.isfinite().all():
        raise CheckFailedError(
            f"self-test of {trainee.name}",
            f"the model gives {'NaN' if alone_NV.isnan().any() else 'infinite'} logits, packed or not",
            "finite numbers",
            "its weights are broken, or too large for this --precision: choose another model",
        )
    spread = alone_NV.std().clamp_min(1e-12)
    difference = float((packed_NV - alone_NV).abs().max() / spread)
    allowed = TOLERANCE[trainee.device.autocast]
    if not difference <= allowed:
        raise CheckFailedError(
            f"self-test of {trainee.name}",
            f"logits of packed records differ from those alone by {difference:.2g} standard deviations",
            f"at most {allowed:g}: records leak into each other, or the head is not understood",
            "choose another model",
        )
    return difference


def _alone(trainee: Trainee, batch: PackedBatch) -> Tensor:
    """Logits (N, V) of each record by itself: stock attention, the whole model, no packing."""
    bounds: list[int] = batch.cu_seqlens_S.tolist()
    with trainee.stock_attention():
        parts = [
            trainee.network(input_ids=batch.input_ids_1N[:, start:end], use_cache=False).logits[0].float()
            for start, end in pairwise(bounds)
        ]
    return torch.cat(parts)


def _head_of_record(example: Example) -> Example:
    cut = slice(0, SELF_TEST_TOKENS)
    return Example(example.id, example.source, 1.0, example.input_ids[cut], example.supervised[cut])


def _check_stops(examples: Sequence[Example], template: Template) -> None:
    """Check that every run of targets ends in a stop token: a model that never sees one does not learn to stop."""
    stops = np.asarray(sorted(template.stop_ids))
    for example in examples:
        after = np.append(example.supervised[1:], np.False_)
        ends = example.input_ids[example.supervised & ~after]
        if len(ends) == 0 or not np.isin(ends, stops).all():
            raise CheckFailedError(
                f"record {example.id} of {example.source}", "an assistant turn does not end in a stop token", "one each"
            )


def _check_bos(examples: Sequence[Example], template: Template) -> str | None:
    """Check that no text begins with two BOS; warn where the tokenizer would put one and the template does not."""
    bos = template.tokenizer.bos_token_id
    if bos is None:
        return None
    for example in examples:
        if list(example.input_ids[:2]) == [bos, bos]:
            raise CheckFailedError(
                f"record {example.id} of {example.source}",
                f"the text begins with two {template.tokenizer.bos_token!r}",
                "one",
                "remove it from the chat template",
            )
    if template.adds_bos and examples[0].input_ids[0] != bos:
        return f"the tokenizer puts {template.tokenizer.bos_token!r} before plain text, the chat template does not"
    return None
