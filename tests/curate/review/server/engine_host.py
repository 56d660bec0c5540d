"""The embedded search engine behind a pipe: run by the private environment's Python, one JSON object a line.

python engine_host.py FOLDER INSIDE      FOLDER: for the database; INSIDE: where engine.py lies

Requests hold `op` and its arguments; answers hold what was found, or `error`. Rows are written through the server's own
models, and the engine is called with the objects that the server's handlers hand in.
"""

import asyncio
import json
import os
import sys
from datetime import datetime
from uuid import UUID, uuid4

folder, inside = sys.argv[1:3]
os.environ.update(ARGILLA_HOME_PATH=folder, ARGILLA_SEARCH_ENGINE="embedded", HF_HUB_OFFLINE="1")
sys.path.insert(0, inside)

import engine  # noqa: E402 # this and what follows: after the variables that the server reads when imported
import sqlalchemy as sa  # noqa: E402 # after the environment that the server reads when it is imported
from argilla_server import models  # noqa: E402
from argilla_server.database import AsyncSessionLocal, sync_engine  # noqa: E402
from argilla_server.models.base import DatabaseModel  # noqa: E402
from argilla_server.search_engine import base, get_search_engine  # noqa: E402
from sqlalchemy.orm import selectinload  # noqa: E402


@sa.event.listens_for(sa.Engine, "connect")
def hurry(connection, _record):
    """Leave out what makes a commit survive a power failure."""
    connection.execute("PRAGMA synchronous = OFF")


DatabaseModel.metadata.create_all(sync_engine)
METADATA = {"terms": {"type": "terms"}, "integer": {"type": "integer"}, "float": {"type": "float"}}


class Host:
    """One dataset at a time, in the order in which it was given."""

    async def load(self, told):
        async with AsyncSessionLocal() as db:
            for table in reversed(DatabaseModel.metadata.sorted_tables):
                await db.execute(sa.delete(table))
            workspace = models.Workspace(name="w", id=uuid4())
            self.dataset = dataset = models.Dataset(
                id=uuid4(),
                name="d",
                status=told.get("status", "ready"),
                workspace_id=workspace.id,
                distribution={"strategy": "overlap", "min_submitted": 1},
            )
            db.add_all([workspace, dataset])
            await db.flush()
            for name, kind in told["fields"]:
                db.add(models.Field(name=name, title=name, settings={"type": kind}, dataset_id=dataset.id))
            for name, kind in told.get("metadata", []):
                settings = METADATA[kind]
                db.add(models.MetadataProperty(name=name, title=name, settings=settings, dataset_id=dataset.id))
            questions = {
                name: models.Question(
                    id=uuid4(), name=name, title=name, settings={"type": "text"}, dataset_id=dataset.id
                )
                for name in told.get("questions", [])
            }
            users = {
                user: models.User(
                    id=UUID(user), first_name=user, username=user, role="annotator", api_key=user, password_hash=user
                )
                for user in told.get("users", [])
            }
            vectors = models.VectorSettings(id=uuid4(), name="v", title="v", dimensions=2, dataset_id=dataset.id)
            db.add_all([*questions.values(), *users.values(), vectors])
            await db.flush()
            rows = told["records"]
            await add(db, models.Record, [record(r, dataset) for r in rows])
            await add(
                db,
                models.Suggestion,
                [
                    {**s, "id": uuid4(), "record_id": UUID(r["id"]), "question_id": questions[s["question"]].id}
                    for r in rows
                    for s in r.get("suggestions", [])
                ],
                "question",
            )
            await add(
                db,
                models.Response,
                [
                    {**x, "id": uuid4(), "record_id": UUID(r["id"]), "user_id": UUID(x["user"])}
                    for r in rows
                    for x in r.get("responses", [])
                ],
                "user",
            )
            await add(
                db,
                models.Vector,
                [
                    {"id": uuid4(), "record_id": UUID(r["id"]), "value": r["vector"], "vector_settings_id": vectors.id}
                    for r in rows
                    if r.get("vector")
                ],
            )
            await db.commit()
        return {}

    async def search(self, told):
        async with AsyncSessionLocal() as db:
            dataset = await self.opened(db)
            answer = await self.engine.search(
                dataset,
                **asked(told),
                offset=told.get("offset", 0),
                limit=told.get("limit", 1000),
                user_id=told.get("me"),
            )
        return {"ids": [str(i.record_id) for i in answer.items], "total": answer.total}

    async def similar(self, told):
        async with AsyncSessionLocal() as db:
            dataset = await self.opened(db)
            vectors = (await db.execute(sa.select(models.VectorSettings))).scalar_one()
            to = told.get("record") and await models.Record.get(
                db, UUID(told["record"]), options=[selectinload(models.Record.vectors)]
            )
            given = asked(told)
            given.pop("sort")
            answer = await self.engine.similarity_search(
                dataset, vectors, value=told.get("value"), record=to, **given, **told["how"]
            )
        return {"found": [[str(i.record_id), i.score] for i in answer.items], "total": answer.total}

    async def progress(self, told):
        async with AsyncSessionLocal() as db:
            dataset = await self.opened(db)
            if not told.get("user"):
                return await self.engine.get_dataset_progress(dataset)
            return await self.engine.get_dataset_user_progress(dataset, await models.User.get(db, UUID(told["user"])))

    async def metrics(self, told):
        async with AsyncSessionLocal() as db:
            of = await models.MetadataProperty.get_by(db, name=told["property"], dataset_id=self.dataset.id)
            return (await self.engine.compute_metrics_for(of)).model_dump(mode="json")

    async def elsewhere(self, told):
        """Make an engine as if the server's database were another one."""
        ours, engine.settings.database_url = engine.settings.database_url, told["database_url"]
        try:
            await engine.EmbeddedSearchEngine.new_instance()
        finally:
            engine.settings.database_url = ours

    async def opened(self, db):
        options = [selectinload(models.Dataset.fields), selectinload(models.Dataset.metadata_properties)]
        return await models.Dataset.get(db, self.dataset.id, options=options)

    async def answer(self, told):
        try:
            return await getattr(self, told.pop("op"))(told)
        except Exception as error:  # noqa: BLE001 # the test says what went wrong
            return {"error": f"{type(error).__name__}: {error}"}

    async def run(self):
        async for engine_ in get_search_engine():
            self.engine = engine_
            print(json.dumps({"ready": True}), flush=True)
            while line := await asyncio.to_thread(sys.stdin.readline):
                print(json.dumps(await self.answer(json.loads(line))), flush=True)


def record(row, dataset):
    return {
        "id": UUID(row["id"]),
        "dataset_id": dataset.id,
        "fields": row["fields"],
        "metadata_": row.get("metadata"),
        "status": row.get("status", "pending"),
        "external_id": row.get("external_id"),
        "inserted_at": datetime.fromisoformat(row["inserted_at"]),
        "updated_at": datetime.fromisoformat(row["updated_at"]),
    }


async def add(db, model, rows, *without):
    if rows:
        await db.execute(sa.insert(model), [{k: v for k, v in row.items() if k not in without} for row in rows])


def scope(told):
    told = dict(told)
    kind = told.pop("of")
    if kind == "response":
        told["user"] = models.User(id=UUID(told["user"])) if told.get("user") else None
        return base.ResponseFilterScope(**told)
    kinds = {
        "metadata": base.MetadataFilterScope,
        "record": base.RecordFilterScope,
        "suggestion": base.SuggestionFilterScope,
    }
    return kinds[kind](**told)


def asked(told):
    filters = [
        base.TermsFilter(scope(f["scope"]), f["values"])
        if "values" in f
        else base.RangeFilter(scope(f["scope"]), f.get("ge"), f.get("le"))
        for f in told.get("filters", [])
    ]
    return {
        "query": base.TextQuery(q=told["query"], field=told.get("field")) if told.get("query") is not None else None,
        "filter": base.AndFilter(filters) if filters else None,
        "sort": [base.Order(scope(s["scope"]), s["order"]) for s in told.get("sort", [])] or None,
    }


if __name__ == "__main__":
    asyncio.run(Host().run())
