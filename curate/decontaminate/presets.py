"""Presets: well-known evaluation sets by name, the files on the hub that hold them, and the fields with their prompts.

A name stands for the split that scores are reported on. Files are named by globs, as their number may change.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """Where an evaluation set lies, and which of its fields a model is asked with."""

    paths: tuple[str, ...]
    fields: tuple[str, ...]


def _hub(*paths: str) -> tuple[str, ...]:
    return tuple(f"hf://datasets/{path}" for path in paths)


PRESETS = {
    "alpaca_eval": Preset(_hub("tatsu-lab/alpaca_eval/alpaca_eval.json"), ("instruction",)),
    "arc": Preset(
        _hub("allenai/ai2_arc/ARC-Challenge/test-*.parquet", "allenai/ai2_arc/ARC-Easy/test-*.parquet"),
        ("question", "choices"),
    ),
    "gsm8k": Preset(_hub("openai/gsm8k/main/test-*.parquet"), ("question",)),
    "hellaswag": Preset(_hub("Rowan/hellaswag/data/validation-*.parquet"), ("ctx", "endings")),
    "humaneval": Preset(_hub("openai/openai_humaneval/openai_humaneval/test-*.parquet"), ("prompt",)),
    "ifeval": Preset(_hub("google/IFEval/ifeval_input_data.jsonl"), ("prompt",)),
    "math": Preset(_hub("HuggingFaceH4/MATH-500/test.jsonl"), ("problem",)),
    "mbpp": Preset(_hub("google-research-datasets/mbpp/full/test-*.parquet"), ("text",)),
    "mmlu": Preset(_hub("cais/mmlu/all/test-*.parquet"), ("question", "choices")),
    "mt_bench": Preset(_hub("HuggingFaceH4/mt_bench_prompts/raw/question.jsonl"), ("prompt",)),
    "truthfulqa": Preset(_hub("truthfulqa/truthful_qa/generation/validation-*.parquet"), ("question",)),
}
