"""The search engine `embedded`: no index; every answer is a query on the server's own SQLite database.

Nothing can drift and nothing needs to be built again: what is committed is found. Importing this module registers the
engine with argilla-server; ARGILLA_SEARCH_ENGINE=embedded chooses it.
"""

# pyright: reportMissingImports=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false, reportUntypedBaseClass=false
# pyright: reportUntypedClassDecorator=false
# runs in the private environment of the server: argilla_server and SQLAlchemy are not in the project's own.

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from argilla_server.database import AsyncSessionLocal
from argilla_server.enums import MetadataPropertyType, SimilarityOrder
from argilla_server.models import Dataset, MetadataProperty, Record, Response, User, Vector, VectorSettings
from argilla_server.search_engine.base import (
    Filter,
    FloatMetadataMetrics,
    IntegerMetadataMetrics,
    MetadataMetrics,
    Order,
    SearchEngine,
    SearchResponseItem,
    SearchResponses,
    TermsMetrics,
    TextQuery,
)
from argilla_server.settings import settings
from criteria import TEXT_FUNCTION, Member, filtered, ordered, refused, said, searched
from query import record_matches

NAME = "embedded"
MAX_TERMS = 2**14  # distinct terms that a metadata property is counted by: the bound of Argilla's other engines
_LARGEST = 2**63 - 1  # of SQLite's whole numbers; the server takes any offset
_BATCH = 1_000  # vectors read from JSON at once: 1,000 of 1,024 numbers are about 35 MB of Python floats


@SearchEngine.register(engine_name=NAME)
class EmbeddedSearchEngine(SearchEngine):
    """Argilla's search over its own tables. It holds no state, so one may be made for each request."""

    @classmethod
    async def new_instance(cls) -> "EmbeddedSearchEngine":
        """Return an engine. Raises: RuntimeError where the server's database is not SQLite."""
        if not settings.database_is_sqlite:
            kind = sa.make_url(settings.database_url).get_backend_name()
            raise RuntimeError(
                f"ARGILLA_DATABASE_URL names a {kind} database, but the search engine `{NAME}` reads SQLite only. "
                "Unset it, or choose ARGILLA_SEARCH_ENGINE=elasticsearch."
            )
        return cls()

    async def close(self) -> None:
        """Nothing is open."""

    async def ping(self) -> bool:
        """The database answers, or the server does not."""
        return True

    async def info(self) -> dict[str, Any]:
        """Return what the server tells about its search engine."""
        return {"name": NAME, "backend": "sqlite", "version": {"number": sa.__version__}}

    # ------------------------------------------------------- writes: the tables are what is searched, so all is done

    async def create_index(self, dataset: Dataset) -> None:
        """Do nothing."""

    async def delete_index(self, dataset: Dataset) -> None:
        """Do nothing."""

    async def configure_metadata_property(self, dataset: Dataset, metadata_property: MetadataProperty) -> None:
        """Do nothing."""

    async def configure_index_vectors(self, vector_settings: VectorSettings) -> None:
        """Do nothing."""

    async def index_records(self, dataset: Dataset, records: Any) -> None:
        """Do nothing."""

    async def partial_record_update(self, record: Record, **update: Any) -> None:
        """Do nothing."""

    async def delete_records(self, dataset: Dataset, records: Any) -> None:
        """Do nothing."""

    async def update_record_response(self, response: Response) -> None:
        """Do nothing."""

    async def delete_record_response(self, response: Response) -> None:
        """Do nothing."""

    async def update_record_suggestion(self, suggestion: Any) -> None:
        """Do nothing."""

    async def delete_record_suggestion(self, suggestion: Any) -> None:
        """Do nothing."""

    # ------------------------------------------------------------------------------------------------------ reads

    async def get_dataset_progress(self, dataset: Dataset) -> dict[str, int]:
        """Return how many records there are, and how many in each status; nothing for a draft."""
        if dataset.is_draft:
            return {}
        status = sa.type_coerce(Record.status, sa.String)
        return await _counts(dataset, status, Record.dataset_id == dataset.id)

    async def get_dataset_user_progress(self, dataset: Dataset, user: User) -> dict[str, int]:
        """Return how many responses a user has given, and how many in each status; nothing for a draft."""
        if dataset.is_draft:
            return {}
        status = sa.type_coerce(Response.status, sa.String)
        mine = (Response.user_id == user.id, Response.record_id == Record.id, Record.dataset_id == dataset.id)
        return await _counts(dataset, status, *mine)

    async def search(  # noqa: PLR0917 # as the server declares it
        self,
        dataset: Dataset,
        query: TextQuery | str | None = None,
        filter: Filter | None = None,
        sort: list[Order] | None = None,
        offset: int = 0,
        limit: int = 100,
        user_id: UUID | str | None = None,
    ) -> SearchResponses:
        """Return the ids of the records that match, `limit` from `offset`, and how many there are.

        `user_id`: whose order it is in where nothing is sorted (see `ordered`). Every score is 1.
        """
        user_id = UUID(str(user_id)) if user_id else None
        matching = sa.and_(*await _conditions(dataset, query, filter))
        page = (
            sa.select(sa.type_coerce(Record.id, sa.String), sa.func.count().over())
            .where(matching)
            .order_by(*ordered(sort or [], dataset.id, user_id))
            .limit(limit)
            .offset(min(offset, _LARGEST))
        )
        async with _connection(dataset) as connection:
            rows = (await connection.execute(page)).all()
            if rows or not offset:
                total = rows[0][1] if rows else 0
            else:  # a page beyond the end says nothing about how many there are
                total = (await connection.execute(sa.select(sa.func.count()).where(matching))).scalar_one()
        return SearchResponses(items=[SearchResponseItem(record_id=UUID(i), score=1.0) for i, _ in rows], total=total)

    async def compute_metrics_for(self, metadata_property: MetadataProperty) -> MetadataMetrics:
        """Return the terms of a property and how many records hold each, or its least and its largest number."""
        member = Member(Record.metadata_, metadata_property.name)
        item = member.items()
        numeric = metadata_property.type != MetadataPropertyType.terms
        kinds = ("integer", "real") if numeric else ("text", "integer", "real")
        source = sa.select().select_from(sa.join(Record, item, sa.true()))
        source = source.where(Record.dataset_id == metadata_property.dataset_id, item.c.type.in_(kinds))
        async with _connection(metadata_property) as connection:
            if numeric:
                extremes = source.add_columns(sa.func.min(item.c.value), sa.func.max(item.c.value))
                least, largest = (await connection.execute(extremes)).one()
                if metadata_property.type == MetadataPropertyType.float:
                    return FloatMetadataMetrics(min=least, max=largest)
                return IntegerMetadataMetrics(
                    min=None if least is None else int(least), max=None if largest is None else int(largest)
                )
            term, records = sa.cast(item.c.value, sa.Text), sa.func.count(Record.id.distinct())
            counted = source.add_columns(term, records, sa.func.sum(records).over()).group_by(term)
            rows = (await connection.execute(counted.order_by(records.desc(), term).limit(MAX_TERMS))).all()
        values = [TermsMetrics.TermCount(term=name, count=count) for name, count, _ in rows]
        return TermsMetrics(total=rows[0][2] if rows else 0, values=values)

    async def similarity_search(  # noqa: PLR0917 # as the server declares it
        self,
        dataset: Dataset,
        vector_settings: VectorSettings,
        value: list[float] | None = None,
        record: Record | None = None,
        query: TextQuery | str | None = None,
        filter: Filter | None = None,
        max_results: int = 100,
        order: SimilarityOrder = SimilarityOrder.most_similar,
        threshold: float | None = None,
    ) -> SearchResponses:
        """Return the records whose vectors are most, or least, like a vector or another record's, exactly.

        The score is (1 + cosine) / 2, of the opposite vector for the least similar, as Elasticsearch gives it. The
        record itself is left out. Raises: ValueError without a vector to compare with, or with two.
        """
        import numpy as np  # noqa: PLC0415 # 0.1 s at the start of the server, for datasets that have vectors

        if bool(value) == bool(record):
            raise ValueError("A similarity search needs either a vector or a record, and not both.")
        wanted = value or (record.vector_value_by_vector_settings(vector_settings) if record else None)
        if not wanted:
            raise ValueError(f"The record has no vector `{vector_settings.name}` to compare with.")
        aim = np.asarray(wanted, dtype=np.float64) * (-1 if order == SimilarityOrder.least_similar else 1)
        others = [Record.id != record.id] if record else []
        vectors = (
            sa.select(sa.type_coerce(Record.id, sa.String), sa.type_coerce(Vector.value, sa.Text))
            .where(Vector.record_id == Record.id, Vector.vector_settings_id == vector_settings.id, *others)
            .where(*await _conditions(dataset, query, filter))
            .order_by(*ordered([], dataset.id))
        )
        async with _connection(dataset) as connection:
            rows = (await connection.execute(vectors)).all()
        scores = np.zeros(len(rows))
        for start in range(0, len(rows), _BATCH):
            batch = np.asarray([json.loads(v) for _, v in rows[start : start + _BATCH]], dtype=np.float64)
            lengths = np.linalg.norm(batch, axis=1) * np.linalg.norm(aim)
            cosine = np.divide(batch @ aim, lengths, out=np.zeros(len(batch)), where=lengths > 0)
            scores[start : start + _BATCH] = (1 + cosine) / 2
        best = np.argsort(-scores, kind="stable")[:max_results]
        near = [i for i in best if threshold is None or scores[i] >= threshold]
        items = [SearchResponseItem(record_id=UUID(rows[i][0]), score=float(scores[i])) for i in near]
        return SearchResponses(items=items, total=len(items))


async def _conditions(dataset: Dataset, query: TextQuery | str | None, wanted: Filter | None) -> list[Any]:
    conditions: list[Any] = [Record.dataset_id == dataset.id]
    if wanted is not None:
        conditions.append(filtered(wanted, dataset.id))
    if query is not None:
        text = TextQuery(q=query) if isinstance(query, str) else query
        fields: Sequence[Any] = await dataset.awaitable_attrs.fields
        if text.field and dataset.field_by_name(text.field) is None:
            raise refused(f"Field `{text.field}` not found in dataset `{dataset.id}`.")
        conditions.append(said(text.q, searched(fields, text.field)))
    return conditions


async def _counts(near: Any, status: Any, *where: Any) -> dict[str, int]:
    async with _connection(near) as connection:
        rows = (await connection.execute(sa.select(status, sa.func.count()).where(*where).group_by(status))).all()
    counts: dict[str, int] = {str(name): int(count) for name, count in rows}
    return {"total": sum(counts.values()), **counts}


@asynccontextmanager
async def _connection(near: Any) -> AsyncGenerator[Any]:
    """Give the connection that the request already holds, or else one of its own, with the text function in it.

    Taking a second one from the pool while holding the first is how many requests at once wait for each other.
    """
    session = near.current_async_session
    if session is None:
        async with AsyncSessionLocal() as own:
            yield await _prepared(own)
    else:
        yield await _prepared(session)


async def _prepared(session: Any) -> Any:
    connection = await session.connection()
    if TEXT_FUNCTION not in connection.info:  # the driver's connection outlives the request, and its info with it
        driver = (await connection.get_raw_connection()).driver_connection
        await driver.create_function(TEXT_FUNCTION, 3, record_matches, deterministic=True)
        connection.info[TEXT_FUNCTION] = True
    return connection
