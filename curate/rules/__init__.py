"""Rules: what makes a row unfit on its own, and what a person should look at.

A row's verdict is the first rejecting rule that matches, in the order of `list_rules`; `flags` names all flags that
match, also of rejected rows: an empty list where there are none, null where the row was not judged.
"""

from collections.abc import Iterator

import polars as pl

from curate.rules.general import general_rules
from curate.rules.rule import Rule, facts
from curate.stage import Output, Progress, ShardOutput, Stage
from schemas.config import RulesConfig
from schemas.dataset import Dataset, Shard
from schemas.errors import ConfigError

__all__ = ["STAGE", "Rule", "list_rules"]


def list_rules(config: RulesConfig | None = None) -> list[Rule]:
    """Give the rules in the order in which they judge, without the disabled ones.

    Raises ConfigError that names the known rules when `disable` holds a name that is none of them.
    """
    config = config or RulesConfig()
    rules = general_rules(config)
    known = [rule.name for rule in rules]
    unknown = [name for name in config.disable if name not in known]
    if unknown:
        raise ConfigError("rules, disable", f"no rule is named {', '.join(unknown)}", f"one of {', '.join(known)}")
    return [rule for rule in rules if rule.name not in config.disable]


def judge(rows: pl.LazyFrame, rules: list[Rule]) -> pl.LazyFrame:
    """Judge rows by rules.

    Reads: messages, context, kept. Adds: verdict, detail, flags; gives these alone.
    """
    kept = pl.col("kept")
    rejecting = [rule for rule in rules if rule.severity == "reject"]
    flagging = [rule for rule in rules if rule.severity == "flag"]
    hit = {rule.name: kept & rule.matches.fill_null(value=False) for rule in rules}
    nothing = pl.lit(None, dtype=pl.String)
    verdict = pl.coalesce([pl.when(hit[r.name]).then(pl.lit(r.name)) for r in rejecting] or [nothing])
    detail = pl.coalesce(
        [pl.when(pl.col("verdict") == r.name).then(r.evidence.fill_null("")) for r in rejecting] or [nothing]
    )
    named = [pl.when(hit[r.name]).then(pl.lit(r.name)) for r in flagging] or [nothing]
    flags = pl.when(kept).then(pl.concat_list(named).list.drop_nulls())
    return facts(rows).with_columns(verdict=verdict, flags=flags).select("verdict", detail.alias("detail"), "flags")


def judge_shard(shard: Shard, rules: list[Rule]) -> pl.DataFrame:
    """Give the annotation of one shard. Reads: messages, context, kept. Adds: verdict, detail, flags."""
    return judge(shard.view(["messages", "context", "kept"], before_stage="rules"), rules).collect()


def run(dataset: Dataset, config: RulesConfig, progress: Progress) -> Iterator[Output]:
    """Judge every row that is kept so far, by itself."""
    rules = list_rules(config)
    for shard in dataset.shards:
        yield ShardOutput(shard, judge_shard(shard, rules))
        progress(shard.rows)


STAGE = Stage("rules", 1, RulesConfig, run)
