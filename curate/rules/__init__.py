"""Rules: what is mended, what makes a row unfit on its own, and what a person should look at.

The fixes come first; their outcome is an overlay. Then the text as it stands after them is judged. A row's verdict is
the first rejecting rule that matches, in the order of `list_rules`, and `detail` its evidence. `flags` names all
reviews that match, also of rejected rows: an empty list where there are none, null where the row was not judged. Where
the row is kept, `detail` holds the evidence of its flags.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import polars as pl

from curate.rules.custom import custom_rules, pinned
from curate.rules.edits import edit
from curate.rules.facts import facts
from curate.rules.packs import built_in
from curate.rules.rule import Rule
from curate.stage import Note, Output, Progress, ShardOutput, Stage
from schemas.config import RulesConfig
from schemas.dataset import Dataset, Shard
from schemas.errors import ConfigError
from schemas.record import VERDICT_SCHEMA

__all__ = ["STAGE", "Rule", "list_rules"]

_OPINION = pl.Schema({**VERDICT_SCHEMA, "flags": pl.List(pl.String)})


def list_rules(config: RulesConfig | None = None) -> list[Rule]:
    """Give the rules in the order in which they fix and judge, without the disabled ones; the dataset's own come last.

    Raises ConfigError that names the known rules when `disable` holds a name that is none of them.
    """
    config = config or RulesConfig()
    known = built_in(config)
    known = [*known, *custom_rules(config.rules, known)]
    names = [rule.name for rule in known]
    unknown = [name for name in config.disable if name not in names]
    if unknown:
        raise ConfigError("rules, disable", f"no rule is named {', '.join(unknown)}", f"one of {', '.join(names)}")
    return [rule for rule in known if rule.name not in config.disable]


def rules_for(source: str, format: str, rules: Sequence[Rule], config: RulesConfig) -> list[Rule]:
    """Choose the rules that judge the rows of a source."""
    packs = {"general", "custom", format, *config.packs}
    return [rule for rule in rules if rule.pack in packs and (not rule.sources or source in rule.sources)]


def find(frame: pl.DataFrame, rules: Sequence[Rule]) -> pl.DataFrame:
    """Say which rule finds which row: one line for each, in the order of rows and rules.

    Reads: row, and the columns of `facts`. Gives: row, order (place of the rule), name, evidence.
    """
    hits = _tested(frame, rules)
    found = [pl.DataFrame(schema={"row": pl.UInt32, "order": pl.UInt32, "name": pl.String, "evidence": pl.String})]
    for order, rule in enumerate(rules):
        if hits.get_column(rule.name).any():
            read = dict.fromkeys(["row", *rule.evidence.meta.root_names()])
            found.append(
                frame.select(list(read))
                .filter(hits.get_column(rule.name))
                .select(
                    pl.col("row").cast(pl.UInt32),
                    order=pl.lit(order, dtype=pl.UInt32),
                    name=pl.lit(rule.name),
                    evidence=rule.evidence.cast(pl.String).fill_null(""),
                )
            )
    return pl.concat(found).sort("row", "order")


def _tested(frame: pl.DataFrame, rules: Sequence[Rule]) -> pl.DataFrame:
    """Say for each row and rule whether the rule finds the row; a column for each rule."""
    asked = {rule: frame.lazy().select(rule.matches.fill_null(value=False).alias(rule.name)) for rule in rules}
    together = pl.collect_all([one for rule, one in asked.items() if not rule.python])
    alone = [one.collect() for rule, one in asked.items() if rule.python]
    return pl.concat([*together, *alone], how="horizontal") if rules else pl.DataFrame()


def judge(frame: pl.DataFrame, rules: Sequence[Rule]) -> pl.DataFrame:
    """Judge rows by rules that reject or flag. Reads: row, and the columns of `facts`.

    Gives: row, verdict, detail, flags, for the rows that a rule finds.
    """
    rejecting = pl.col("name").is_in([rule.name for rule in rules if rule.severity == "reject"])
    evidence = pl.concat_str(["name", "evidence"], separator=": ")
    return (
        find(frame, rules)
        .group_by("row", maintain_order=True)
        .agg(
            verdict=pl.col("name").filter(rejecting).first(),
            detail=pl.coalesce(
                pl.col("evidence").filter(rejecting).first(), evidence.filter(~rejecting).str.join("; ")
            ),
            flags=pl.col("name").filter(~rejecting),
        )
    )


def work(frame: pl.DataFrame, rules: Sequence[Rule]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Fix and judge rows. Reads: row, messages, context, content_hash. Gives: the opinions (`judge`), the overlay."""
    known, overlay = edit(facts(frame.lazy()).collect(), [rule for rule in rules if rule.severity == "fix"])
    return judge(known, [rule for rule in rules if rule.severity != "fix"]), overlay


def judge_shard(shard: Shard, rules: Sequence[Rule]) -> ShardOutput:
    """Give the annotation and the overlay of one shard. Reads: messages, context, content_hash, kept."""
    columns = ["messages", "context", "content_hash", "kept"]
    rows = shard.view(columns, before_stage="rules").with_row_index("row").collect()
    opinions, overlay = work(rows.filter("kept").drop("kept"), rules)
    nothing = pl.when("kept").then(pl.lit([], dtype=pl.List(pl.String)))
    annotation = (
        rows.select("row", "kept")
        .join(opinions, on="row", how="left", maintain_order="left")
        .with_columns(flags=pl.coalesce("flags", nothing))
        .select(pl.col(name).cast(dtype) for name, dtype in _OPINION.items())
    )
    return ShardOutput(shard, annotation, overlay)


def run(dataset: Dataset, config: RulesConfig, progress: Progress) -> Iterator[Output]:
    """Fix and judge every row that is kept so far, by itself."""
    rules = list_rules(config)
    formats = {source.name: source.format for source in dataset.manifest.sources}
    fixed: Counter[str] = Counter()
    flagged: Counter[str] = Counter()
    for shard in dataset.shards:
        output = judge_shard(shard, rules_for(shard.source, formats.get(shard.source, ""), rules, config))
        fixed.update(output.overlay["edits"].explode().drop_nulls() if output.overlay is not None else ())
        kept = output.annotation.filter(pl.col("verdict").is_null())
        flagged.update(kept["flags"].explode().drop_nulls())
        yield output
        progress(shard.rows)
    for what, counts in (("mended", fixed), ("flagged, and kept", flagged)):
        if counts:
            yield Note(f"{what}: " + ", ".join(f"{name} {n:,}" for name, n in counts.most_common()))


STAGE = Stage("rules", 3, RulesConfig, run, features=("overlays",), pin=pinned)
