"""`sft curate licence`: state anew on what terms a source may be used."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import DEFAULT_STORE, JsonOption, MessageOption, RefArgument, StoreOption
from cli.render import out, print_json, say

if TYPE_CHECKING:
    from curate.licences import Licence
    from curate.terms import Field

EXAMPLE = "sft curate licence mix dolly --license CC-BY-SA-3.0"


def licence(
    ref: RefArgument,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A source of the dataset.")],
    license: Annotated[
        str | None, typer.Option("--license", help="SPDX expression, such as CC-BY-SA-3.0; '' takes it back.")
    ] = None,
    terms: Annotated[
        str | None, typer.Option("--terms", help="Further terms of use, in words; '' takes them back.")
    ] = None,
    generated_by: Annotated[
        str | None, typer.Option("--generated-by", help="The model that wrote the answers; '' takes it back.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    message: MessageOption = None,
    json: JsonOption = False,
) -> None:
    """State a source's licence or terms anew, without reading its files again. Commits a version; no row changes."""
    from cli.curate import committed, tell
    from cli.life import visible
    from curate.licences import licence_of, of_mix
    from curate.store import Store
    from curate.summary import summarise
    from curate.terms import restate
    from schemas.dataset import Dataset, open_dataset

    dataset = open_dataset(ref, store)
    place = Store(dataset.root)
    latest = place.latest(dataset.manifest.name) if "@" in ref or ref.endswith(".json") else None
    given: dict[Field, str | None] = {"license": license, "terms": terms, "generated_by": generated_by}
    stated: dict[Field, str] = {field: words for field, words in given.items() if words is not None}
    done = restate(place, dataset, source, stated, message=message, latest=latest)
    m = done.commit.manifest
    own, made = licence_of(done.after), Dataset(m, dataset.root)
    kept = {name for name, count in summarise(made).by_source.items() if count.kept}
    mix, stale = of_mix(licence_of(s) for s in m.sources if s.name in kept), made.stale()
    if json:
        print_json({"source": source, "licence": vars(own), "mix": vars(mix), "stale": stale, **committed(done.commit)})
        return
    if own.note:
        say(f"licence: {own.note}")
    out(visible(f"{source}: {named(own)}. {own.why}"))
    out(visible(f"the kept rows together: {named(mix)}. {mix.why}"))
    tell(done.commit)
    if newly := [stage for stage in stale if stage not in dataset.stale()]:
        say(f"stale now, as they read what was changed: {', '.join(newly)} (run them again, or sft curate run)")


def named(licence: "Licence") -> str:
    """Name a licence with its class."""
    return f"{licence.expression or 'no licence stated'} ({licence.kind})"
