"""`sft curate review push --run` and `pull --run`: people compare a model's answers with its base and the dataset's.

The trainer answers, curate shuffles and counts; this file puts the two together.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.extras import needs_torch, quiet_transformers
from cli.options import DEFAULT_STORE
from cli.render import next_commands, number, out, print_json, progress, say, table
from curate.review.connection import WORKSPACE
from schemas.errors import ConfigError, UnknownReferenceError

if TYPE_CHECKING:
    import polars as pl

    from curate.review.agreement import Alpha
    from curate.review.client import Server
    from curate.review.compare import Run
    from curate.review.outcome import Outcome, Pulled, Tally
    from curate.store import Store
    from schemas.dataset import Dataset
    from schemas.record import Record
    from schemas.review_config import AnswerConfig, PullConfig, PushConfig

RECORDS = 100
"""Records that are compared where no number is asked for: a win rate of one half is then known to a tenth."""
SHOWN = 10
"""Regressions that are printed; `--json` has all of them."""
ROWS_ONLY = ("select", "source", "again", "blind", "refresh")
"""Options of push that are about rows, and mean nothing beside --run."""


@dataclass(frozen=True)
class Place:
    """Where comparisons go: the dataset in Argilla, its workspace and server, and the store's own Argilla."""

    dataset: str | None
    workspace: str
    url: str | None
    home: Path | None

    def typed(self) -> str:
        """Give the options as they are typed."""
        given = {"dataset": self.dataset, "url": self.url, "home": self.home}
        given |= {"workspace": self.workspace} if self.workspace != WORKSPACE else {}
        return "".join(f" --{name} {shlex.quote(str(value))}" for name, value in given.items() if value is not None)

    def connect(self, store: Path) -> "Server":
        """Connect to the server."""
        from curate.review.connection import connect_for

        return connect_for(self.home or store / "review", self.url, self.workspace)


@dataclass(frozen=True)
class _Opened:
    """A run with its store; `folder` is None where it was named by its id."""

    run: "Run"
    store: Path
    folder: Path | None
    reference: str

    def dataset(self) -> "Dataset":
        """Open the version that the run saw. Raises UnknownReferenceError where it is gone, or is another one."""
        from schemas.dataset import open_dataset

        where, remedy = f"run {self.run.id}", "name the store that holds it with --store"
        try:
            found = open_dataset(self.reference, self.store)
        except UnknownReferenceError as error:
            gone = f"its dataset {self.reference} is not in store {self.store} ({error.found})"
            raise UnknownReferenceError(where, gone, "the version that it was trained on", remedy) from error
        if found.manifest.id != self.run.facts["manifest"]:
            other = f"{self.reference} in store {self.store} is another version than it was trained on"
            raise UnknownReferenceError(where, other, f"manifest {self.run.facts['manifest'][:12]}", remedy)
        return found


def push_run(
    run: str,
    config: "PushConfig",
    answers: "AnswerConfig",
    place: Place,
    *,
    typed: Mapping[str, Any],
    store: Path,
    own_store: bool,
    dry_run: bool,
    json: bool,
) -> None:
    """Answer prompts with a run's model and its base, and push the comparisons. `own_store`: --store was typed."""
    if rows_only := [name for name in ROWS_ONLY if name in typed]:
        raise ConfigError(f"--{rows_only[0]}", "together with --run", "one of the two: it chooses or shows rows")
    from curate.review import compare
    from curate.review.client import check_questions
    from curate.review.guidelines import read_guidelines
    from curate.store import Store

    needs_torch("sft curate review push --run")
    opened = open_run(run, store, own_store=own_store)
    if opened.folder is None:
        raise ConfigError(f"run {run}", "an id", "the run's folder, where its weights are")
    dataset = opened.dataset()
    own_guidelines = read_guidelines(config.guidelines) if config.guidelines else None
    split, records = compare.candidates(dataset, config.seed)
    wanted = int(typed.get("n", RECORDS))
    kept = Store(opened.store)
    form, name = compare.form(answers.reference), place.dataset or opened.run.dataset_in_argilla
    server = None if dry_run else place.connect(opened.store)
    review = server.find(name) if server else None
    if review:
        check_questions(review, form)
    chosen, skipped = _answers(opened, kept, records, wanted, split=split, config=config, answers=answers, json=json)
    if not chosen.height:
        reasons = "; ".join(f"{number(n)} prompts: {reason}" for reason, n in skipped.items())
        raise ConfigError(f"run {run}", f"no prompt can be answered ({reasons})", remedy="try fewer --new-tokens")
    cards = compare.cards(chosen)
    new = cards
    if server:
        told = own_guidelines or compare.guidelines(split, answers.new_tokens, reference=answers.reference)
        review = review or server.create(name, form, told, config.min_submitted)
        there = review.external_ids()
        new = [card for card in cards if card.external_id not in there]
        with progress(quiet=json) as started:
            review.send(new, started("pushing", len(new)))
    facts = {
        "run": opened.run.id,
        "dataset": name,
        "url": review.url if review else None,
        "split": split,
        "compared": chosen.height,
        "new": len(new) if server else 0,
        "there": len(cards) - len(new),
        "identical": chosen.height - len(cards),
        "skipped": skipped,
        "by_source": dict(sorted(chosen["source"].value_counts().iter_rows())),
        "cut": {side: int((~chosen[f"{side}_whole"]).sum()) for side in ("tuned", "base")},
    }
    if json:
        print_json(facts)
    else:
        _tell_pushed(facts, wanted, answers.new_tokens)
        where = place.typed()
        next_commands(f"sft curate review pull --run {run}{where}", store=store if own_store else DEFAULT_STORE)


def _answers(
    opened: _Opened,
    store: "Store",
    records: "Sequence[Record]",
    wanted: int,
    *,
    split: str,
    config: "PushConfig",
    answers: "AnswerConfig",
    json: bool,
) -> "tuple[pl.DataFrame, dict[str, int]]":
    """Give the first comparisons of a run, of the records in their order: known ones, and what is still missing.

    An answer is given once: pushing again loads no model where nothing is missing.
    """
    import polars as pl

    from curate.review import compare

    same = (pl.col("new_tokens") == answers.new_tokens) & (pl.col("seed") == config.seed)
    same &= pl.col("order").list.len() == (3 if answers.reference else 2)
    known = compare.read_answers(store, opened.run)
    mine = known.filter(same & pl.col("id").is_in([r.id for r in records]))
    skipped: dict[str, int] = {}
    externals = mine["external"].to_list()
    if mine.height < wanted:
        done = set(mine["id"])
        missing = [r for r in records if r.id not in done]
        said, skipped = _said(opened, missing, wanted - mine.height, answers, json=json)
        new = compare.compared(
            opened.run,
            records,
            said,
            split=split,
            new_tokens=answers.new_tokens,
            key=compare.blind_key(store.root),
            seed=config.seed,
            reference=answers.reference,
        )
        known = compare.keep_answers(store, opened.run, new)
        externals += new["external"].to_list()
    place = {r.id: i for i, r in enumerate(records)}
    chosen = known.filter(pl.col("external").is_in(externals))
    order = pl.Series("place", [place[i] for i in chosen["id"]], pl.UInt32)
    return chosen.with_columns(order).sort("place").drop("place").head(wanted), skipped


def _said(
    opened: _Opened, records: "Sequence[Record]", count: int, answers: "AnswerConfig", *, json: bool
) -> tuple[dict[str, Any], dict[str, int]]:
    from cli.display import Display
    from curate.review.compare import Said
    from train.evaluation.answers import answer
    from train.run.folder import RunFolder

    assert opened.folder is not None  # noqa: S101 # push_run has seen to it
    quiet_transformers()
    with Display(quiet=json) as display:
        found = answer(RunFolder(opened.folder), records, answers, count=count, listener=display)
    said = {a.id: Said(a.tuned.text, a.base.text, a.tuned.whole, a.base.whole) for a in found.answered}
    return said, found.skipped


def _tell_pushed(facts: Mapping[str, Any], wanted: int, new_tokens: int) -> None:
    out(
        f"{number(facts['compared'])} prompts of split {facts['split']}, answered by the tuned and the base model; "
        f"{number(facts['new'])} comparisons pushed, {number(facts['there'])} there already",
        style="bold",
    )
    table("Prompts by source", ["source", "#prompts"], [(s, number(n)) for s, n in facts["by_source"].items()])
    if facts["compared"] < wanted:
        say(f"{number(wanted)} were asked for; the split has no more that can be answered")
    for reason, n in facts["skipped"].items():
        say(f"{number(n)} prompts left out: {reason}")
    if facts["identical"]:
        say(f"{number(facts['identical'])} are not shown: all answers say the same, which is a tie")
    for side, n in facts["cut"].items():
        if n:
            who = "tuned" if side == "tuned" else "base"
            say(f"{number(n)} answers of the {who} model were cut off at {new_tokens} tokens (--new-tokens)")
    out(f"reviewers answer at {facts['url']}" if facts["url"] else "nothing was sent (--dry-run)")


def pull_run(run: str, config: "PullConfig", place: Place, *, store: Path, own_store: bool, json: bool) -> None:
    """Bring back what people said about a run's answers, and tell wins, ties and losses."""
    import polars as pl

    from cli.review import found_review
    from curate.review import compare, outcome
    from curate.review.pseudonym import has_pseudonyms, pseudonyms
    from curate.store import Store

    opened = open_run(run, store, own_store=own_store)
    kept = Store(opened.store)
    answers = compare.read_answers(kept, opened.run)
    if not answers.height:
        raise ConfigError(
            f"run {run}",
            "no answers of it in this store",
            "a run whose answers were pushed",
            f"run sft curate review push --run {run}",
        )
    review = found_review(place.connect(opened.store), place.dataset or opened.run.dataset_in_argilla)
    registered = next((r for r in kept.runs() if r["run_id"] == opened.run.id), {})
    hidden = config.pseudonyms
    if hidden is None:
        hidden = has_pseudonyms(outcome.read_comparisons(kept, registered))
    done = outcome.pull(kept, opened.run, answers, review, pseudonyms(opened.store) if hidden else str)
    sides = 3 if "fails_c" in review.questions() else 2
    alike = {
        row["external"]
        for row in answers.filter(pl.col("order").list.len() == sides).iter_rows(named=True)
        if compare.is_tie([row[name] for name in row["order"]])
    }
    mine = answers.filter(pl.col("external").is_in([*done.shown, *alike]))
    found = outcome.outcome(mine, done.responses, min_submitted=config.min_submitted)
    agreed = outcome.agreement(mine, done.responses)
    if json:
        print_json({"run": opened.run.id, "dataset": review.name, **_facts(done, found, agreed)})
        return
    _tell_pulled(done, found, agreed)
    name = opened.run.facts["dataset"]
    rows = [f"sft why {name} {c.row['id'][:12]}" for c in found.regressions[:1]]
    next_commands(*rows, f"sft export {name} --format dpo --to pairs", store=opened.store)


def _facts(done: "Pulled", found: "Outcome", agreed: "Mapping[str, Alpha]") -> dict[str, Any]:
    from curate.review.compare import ASPECTS

    status = done.responses["status"]
    return {
        "changed": done.changed,
        "compared": len(found.compared),
        "identical": found.identical,
        "open": found.open,
        "submitted": int((status == "submitted").sum()),
        "discarded": int((status == "discarded").sum()),
        "drafts": done.drafts,
        "foreign": done.foreign,
        "unknown": done.unknown,
        "against": {
            side: {
                **found.tally(side).to_json(),
                "by_source": {source: found.tally(side, source).to_json() for source in found.sources()},
            }
            for side in found.sides()
        },
        "aspects": {aspect: found.failures(aspect) for aspect in ASPECTS},
        "regressions": [
            {
                "id": c.row["id"],
                "source": c.row["source"],
                "aspects": sorted(c.regressed),
                "tuned": c.row["tuned"],
                "base": c.row["base"],
                "comments": list(c.comments),
            }
            for c in found.regressions
        ],
        "agreement": {name: vars(value) for name, value in agreed.items()},
    }


def _tell_pulled(done: "Pulled", found: "Outcome", agreed: "Mapping[str, Alpha]") -> None:
    from curate.review.compare import ASPECTS

    facts = _facts(done, found, agreed)
    out(
        f"{number(facts['submitted'])} responses submitted, {number(facts['discarded'])} discarded, "
        f"{number(facts['drafts'])} drafts; {number(facts['compared'])} records compared"
        + (f" ({number(found.identical)} with answers that say the same)" if found.identical else "")
        + f", {number(found.open)} wait for more responses",
        style="bold",
    )
    for what, n in done.unknown.items():
        say(f"{number(n)} times {what}: not known, and not counted")
    if done.foreign:
        say(f"{number(done.foreign)} records of the dataset are not of this run, and were left alone")
    if not found.compared:
        say("nothing to count yet: a record counts when it has enough submitted responses")
        return
    columns = ["tuned against", "source", "#wins", "#ties", "#losses", "#win rate", "#95% interval", "#p"]
    rows: list[tuple[str, ...]] = []
    for side in found.sides():
        rows.append((side, "all", *_cells(found.tally(side))))
        if len(found.sources()) > 1:
            rows += [("", source, *_cells(found.tally(side, source))) for source in found.sources()]
    table("Records (a tie counts half in the rate; Wilson's interval; exact sign test)", columns, rows)
    failing = {aspect: counts for aspect in ASPECTS if any((counts := found.failures(aspect)).values())}
    if failing:
        names = ["aspect", "#tuned", "#base", "#reference", "#regressed", "#improved"]
        counted = [name.lstrip("#") for name in names[1:]]
        cells = [(aspect, *(number(counts[name]) for name in counted)) for aspect, counts in failing.items()]
        table("Answers that fail, by more than half of their reviewers", names, cells)
    if found.regressions:
        cells = [
            (c.row["id"][:12], c.row["source"], ", ".join(sorted(c.regressed)), " / ".join(c.comments))
            for c in found.regressions[:SHOWN]
        ]
        more = f", the first {SHOWN} of {number(len(found.regressions))}" if len(found.regressions) > SHOWN else ""
        title = f"Regressions: the tuned answer fails where the base's does not{more}"
        table(title, ["id", "source", "fails in", "comments"], cells)
    for name, value in agreed.items():
        shown = f"{value.value:.2f}" if value.value is not None else f"none ({value.undefined})"
        who = f"{number(value.texts)} records with two or more reviewers"
        out(f"agreement on {name}: Krippendorff's alpha {shown}, {who}")
    out("kept with the run" if done.changed else "nothing is new since the last pull")


def _cells(tally: "Tally") -> tuple[str, ...]:
    counts = (number(tally.wins), number(tally.ties), number(tally.losses))
    if tally.rate is None or tally.interval is None:
        return (*counts, "", "", "")
    low, high = tally.interval
    p = "" if tally.p_value is None else f"{tally.p_value:.3f}"
    return (*counts, f"{tally.rate:.0%}", f"{low:.0%} to {high:.0%}", p)


def open_run(name: str, store: Path, *, own_store: bool) -> _Opened:
    """Find a run by its folder, or by the id that the store has it by.

    A folder names its store, unless another was typed. Raises ConfigError where there is no such run.
    """
    from curate.review.compare import Run
    from curate.store import Store
    from train.run.folder import RunFolder

    folder = Path(name)
    if folder.is_dir() or "/" in name:
        facts = RunFolder(folder).finished()
        settings = RunFolder(folder).read_json("config.json")
        saved = settings.get("store")
        place = store if own_store or not saved else Path(saved)
        return _Opened(Run(facts["run_id"], facts), place, folder, settings["dataset"])
    found = next((run for run in Store(store).runs() if run["run_id"] == name), None)
    if found is None:
        raise ConfigError(f"run {name}", f"no such folder, and no run of that id in store {store}", "a run's folder")
    return _Opened(Run(name, found), store, None, f"{found['dataset']}@{found['seq']}")
