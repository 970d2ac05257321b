"""The result store on a PostgreSQL server, which the tests start where its binaries are."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from qdgnn_dft.store import ResultStore
from qdgnn_dft.store_trial import trial_record

BINARIES = ("initdb", "pg_ctl")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of a database; the server refuses to run as root."""
    pytest.importorskip("ase_db_backends")
    pytest.importorskip("psycopg2")
    if missing := [name for name in BINARIES if not shutil.which(name)]:
        pytest.skip(f"PostgreSQL is not installed: no {missing}")
    as_user: dict[str, Any] = {"user": "nobody"} if os.getuid() == 0 else {}
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        if as_user:
            shutil.chown(name, "nobody")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        data = str(Path(name) / "data")

        def run(*command: str) -> None:
            subprocess.run(command, check=True, cwd=name, capture_output=True, **as_user)

        run("initdb", "-D", data, "-U", "tester", "--auth=trust", "--no-sync")
        options = f"-p {port} -k {name} -c listen_addresses=127.0.0.1 -c fsync=off"
        run("pg_ctl", "-D", data, "-o", options, "-l", f"{name}/log", "-w", "start")
        try:
            yield f"postgresql://tester:secret@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "stop")


def put_all(address: str) -> None:
    store = ResultStore(address)
    for number in range(6):
        store.put(trial_record(number))


def test_writers_of_a_server(server: str) -> None:
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(put_all, [server, server]))
    store = ResultStore(server)
    assert [store.get(trial_record(n).key) for n in range(6)] == [trial_record(n) for n in range(6)]
    assert store.inspect().good == 6
    assert store.inspect().duplicates == store.inspect().damaged == 0


def test_a_damaged_row_is_computed_again(server: str) -> None:
    import psycopg2

    store, record = ResultStore(server), trial_record(2)
    store.put(record)
    with psycopg2.connect(server) as connection, connection.cursor() as cursor:
        cursor.execute(
            "UPDATE systems SET data = replace(data::text, 'band_gap', 'band_gaq')::jsonb"
            " WHERE unique_id = %s",
            (record.key,),
        )
        assert cursor.rowcount == 1
    connection.close()
    assert store.get(record.key) is None
    store.put(record)
    assert store.get(record.key) == record


def test_a_server_that_is_away_is_no_empty_store(server: str) -> None:
    away = server.rpartition(":")[0] + ":1/postgres"
    with pytest.raises(OSError, match="cannot be read") as failure:
        ResultStore(away).get(trial_record(0).key)
    assert "secret" not in str(failure.value)
