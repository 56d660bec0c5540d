"""Serves Argilla. Run by the private environment's Python; imports nothing of the toolkit.

    stdin   one line of JSON: `auth_key`, `accounts` [{username, role, password, api_key}], `workspace`, `socket` (the
            descriptor of a listening socket). Then it stays open: when it ends, our parent is gone, and we stop
    stdout  one line of JSON: {"ready": true}; or {"broken": "…"} where a package is missing. Then nothing more
    stderr  the log

The folder and all that is no secret comes by ARGILLA_… variables of the environment (see process.py).
"""

# pyright: reportMissingImports=false, reportUntypedBaseClass=false, reportUntypedFunctionDecorator=false
# The packages of the private environment are not in the project's own, so pyright knows none of their types.

import asyncio
import gc
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

KEPT_CONNECTIONS = 16
"""Connections to the database that are kept open. More are opened when needed: eight people's browsers ask several
things at a time, and a request that waited for a connection would hold up those that hold one."""

BUSY_S = 30
"""How long a writer waits for another writer, in seconds. SQLite has one at a time, and each takes milliseconds."""

STOP_S = 5
"""How long requests that are under way may still take when the server stops, in seconds."""

RETRY_S = 10
"""How often jobs that failed and wait for another attempt are looked at, in seconds: Argilla's first retry is at 10."""


POLICY = (
    b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    b"form-action 'self'; base-uri 'self'; frame-ancestors 'self'; object-src 'none'"
)
"""What the pages may load: what comes from this server. Argilla's own scripts and styles need the rest."""


def import_argilla() -> None:
    """Import argilla-server with its queue of jobs in this process's memory: nothing to install, no port."""
    import fakeredis
    import redis

    def from_url(*_: Any, **__: Any) -> Any:
        return fakeredis.FakeRedis()

    real, redis.from_url = redis.from_url, from_url
    try:
        import argilla_server.jobs.queues  # noqa: F401 # connects when it is imported
    finally:
        redis.from_url = real


def migrate() -> None:
    """Bring the database to the newest schema, and into WAL mode: readers and the writer do not wait for each other."""
    import sqlalchemy as sa
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from argilla_server.database import ALEMBIC_CONFIG_FILE, sync_engine

    with sync_engine.connect() as db:
        db.execute(sa.text("PRAGMA journal_mode = WAL"))
        at = MigrationContext.configure(db).get_current_revision()
    config = Config(ALEMBIC_CONFIG_FILE)
    config.attributes["configure_logger"] = False
    if at != ScriptDirectory.from_config(config).get_current_head():
        command.upgrade(config, "head")
    sync_engine.dispose()


def connect_database() -> None:
    """Give the server connections that suit SQLite under several people.

    A pool without an upper bound never makes anyone wait, so the thread of the jobs, which has an event loop of its
    own, can share it (a waiting pool belongs to one loop). `synchronous = FULL`: a response that was acknowledged is on
    the disk, also when the power fails.
    """
    from argilla_server import database
    from argilla_server.settings import settings
    from sqlalchemy import event
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(
        settings.database_url, pool_size=KEPT_CONNECTIONS, max_overflow=-1, connect_args={"timeout": BUSY_S}
    )

    @event.listens_for(engine.sync_engine, "connect")
    def durable(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()

    database.async_engine = engine
    database.AsyncSessionLocal.configure(bind=engine)


async def add_people(accounts: list[dict[str, str]], workspace_name: str) -> None:
    """Make the workspace and the accounts that are not there; give those that are there the key and password of the
    secrets where they have another key (the secrets were lost and made anew)."""
    import sqlalchemy as sa
    from argilla_server.contexts import accounts as users
    from argilla_server.database import AsyncSessionLocal
    from argilla_server.enums import UserRole
    from argilla_server.models import User, Workspace, WorkspaceUser

    async with AsyncSessionLocal() as db:
        workspace = await Workspace.get_by(db, name=workspace_name) or await Workspace.create(db, name=workspace_name)
        for account in accounts:
            user = await User.get_by(db, username=account["username"])
            if user is None:
                user = await User.create(
                    db,
                    first_name=account["username"],
                    username=account["username"],
                    role=UserRole(account["role"]),
                    password_hash=users.hash_password(account["password"]),
                    api_key=account["api_key"],
                )
            elif user.api_key != account["api_key"]:
                values = {"password_hash": users.hash_password(account["password"]), "api_key": account["api_key"]}
                await db.execute(sa.update(User).where(User.id == user.id).values(values))
                await db.commit()
            if await WorkspaceUser.get_by(db, workspace_id=workspace.id, user_id=user.id) is None:
                await WorkspaceUser.create(db, workspace_id=workspace.id, user_id=user.id)


class Jobs:
    """The background jobs, on a thread of this process.

    The queue is in memory. A file says that jobs may be unfinished; where it is found at the start, the server was
    killed, and what its jobs would have done, the status of reviewed records, is worked out again.
    """

    def __init__(self, home: Path) -> None:
        self._unfinished = home / "unfinished"
        self._busy = threading.Event()

    def start(self) -> None:
        """Catch up with what a killed server left, and run jobs from now on."""
        if self._unfinished.exists():
            asyncio.run(self._work_out_statuses())
        self._unfinished.touch()
        threading.Thread(target=self._work, name="jobs", daemon=True).start()

    def finish(self) -> None:
        """Note that nothing is left to do, where that is so."""
        from argilla_server.jobs.queues import DEFAULT_QUEUE, HIGH_QUEUE

        if not (self._busy.is_set() or len(DEFAULT_QUEUE) or len(HIGH_QUEUE)):
            self._unfinished.unlink(missing_ok=True)

    async def _work_out_statuses(self) -> None:
        import sqlalchemy as sa
        from argilla_server.database import AsyncSessionLocal
        from argilla_server.jobs.dataset_jobs import update_dataset_records_status_job
        from argilla_server.models import Dataset

        async with AsyncSessionLocal() as db:
            for dataset in (await db.execute(sa.select(Dataset.id))).scalars():
                update_dataset_records_status_job.delay(dataset)

    def _work(self) -> None:
        from argilla_server.jobs.queues import DEFAULT_QUEUE, HIGH_QUEUE, REDIS_CONNECTION
        from rq.job import Job
        from rq.timeouts import TimerDeathPenalty
        from rq.worker import SimpleWorker

        busy = self._busy

        class ThreadWorker(SimpleWorker):
            """A worker outside the main thread: it may set no signals, and nobody commands it over the network."""

            death_penalty_class = TimerDeathPenalty

            def _install_signal_handlers(self) -> None: ...

            def subscribe(self) -> None: ...

            def unsubscribe(self) -> None: ...

            def execute_job(self, *args: Any, **kwargs: Any) -> None:
                busy.set()
                try:
                    super().execute_job(*args, **kwargs)
                finally:
                    busy.clear()

        queues = [HIGH_QUEUE, DEFAULT_QUEUE]
        while True:
            began = time.monotonic()
            try:
                for queue in queues:
                    later = queue.scheduled_job_registry
                    for job_id in later.get_jobs_to_schedule():
                        later.remove(job_id)
                        queue.enqueue_job(Job.fetch(job_id, connection=REDIS_CONNECTION))
                worker = ThreadWorker(queues, connection=REDIS_CONNECTION)
                worker.work(logging_level="WARNING", max_idle_time=RETRY_S)
            except Exception as error:  # noqa: BLE001 # one failure must not end all jobs to come
                print(f"jobs: {error!r}; going on", file=sys.stderr, flush=True)
            if time.monotonic() - began < RETRY_S:  # it ends earlier only after an error: do not turn in circles
                time.sleep(RETRY_S)


def alone(app: Any) -> Any:
    """Wrap the app so that its pages ask nobody else: not for fonts, nor for a picture that a row's text names."""

    async def answer_alone(scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"content-security-policy", POLICY)]
            await send(message)

        await app(scope, receive, send_with_policy)

    return answer_alone


def serve(order: dict[str, Any], jobs: Jobs) -> None:
    """Serve on the socket until stdin ends or a signal comes."""
    import uvicorn
    from argilla_server import app, database

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                threading.Thread(target=stop_with_parent, args=(self,), daemon=True).start()
                answer(ready=True)

        def handle_exit(self, sig: int, frame: Any) -> None:  # noqa: ARG002 # uvicorn's signature
            self.should_exit = True  # uvicorn's own would raise the signal again, before we have cleaned up

    def stop_with_parent(server: Any) -> None:
        while os.read(0, 1 << 12):
            pass
        server.should_exit = True

    config = uvicorn.Config(alone(app), access_log=False, log_level="warning", timeout_graceful_shutdown=STOP_S)
    listening = socket.socket(fileno=order["socket"])
    jobs.start()
    Server(config).run(sockets=[listening])
    jobs.finish()
    asyncio.run(database.async_engine.dispose())  # the last connection to close writes the WAL back


def answer(**said: Any) -> None:
    """Say the one line that our parent waits for; whatever is printed from then on goes to the log."""
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
    os.dup2(2, 1)


def main() -> None:
    """Prepare the folder, and serve."""
    line = b""
    while not line.endswith(b"\n"):  # one byte at a time: the rest of stdin is read by another thread
        byte = os.read(0, 1)
        if not byte:
            return
        line += byte
    order = json.loads(line)
    os.environ["ARGILLA_AUTH_SECRET_KEY"] = order["auth_key"]
    gc.disable()  # what is imported stays: looking for garbage in it takes a seventh of the start
    try:
        import_argilla()
        import engine  # noqa: F401 # pyright: ignore[reportUnusedImport] # registers itself as "embedded"
    except (ImportError, SyntaxError, OSError) as error:
        answer(broken=f"{type(error).__name__}: {error}")
        raise
    gc.freeze()
    gc.enable()
    migrate()
    connect_database()
    asyncio.run(add_people(order["accounts"], order["workspace"]))
    serve(order, Jobs(Path(os.environ["ARGILLA_HOME_PATH"])))


if __name__ == "__main__":
    main()
