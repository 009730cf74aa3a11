"""What is in a database file and in the files beside it, looked at without touching them.

A libSQL client's file is only ever looked at through a copy: opening it with another SQLite could checkpoint
its write-ahead log, and then its frame numbers would mean another log.
"""

import contextlib
import json
import shutil
import sqlite3
import struct
import tempfile
import zlib
from pathlib import Path

PAGE = 4096
FRAME = 24 + PAGE


@contextlib.contextmanager
def copied(path):
    """A connection to a copy of the database at this moment."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy.db")
        for suffix in ("", "-wal"):
            if Path(f"{path}{suffix}").exists():
                shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
        with contextlib.closing(sqlite3.connect(copy)) as connection:
            yield connection


def contents(path):
    """Everything that the database says: its schema, and every row of every table with the types of its values.
    Fails when the database is not sound."""
    with copied(path) as connection:
        problems = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        assert problems == ["ok"], f"integrity_check of {path}: {problems[:3]}"
        schema = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY 1, 2").fetchall()
        tables = [name for kind, name, _, sql in schema if kind == "table" and not (sql or "").startswith("CREATE V")]
        rows = {table: sorted(map(repr, connection.execute(f'SELECT * FROM "{table}"'))) for table in tables}
        return {"schema": schema, "rows": rows}


def ids(path, table="notes"):
    """The ids in a table, sorted."""
    with copied(path) as connection:
        return [row[0] for row in connection.execute(f"SELECT id FROM {table} ORDER BY id")]


def info(path):
    """The `-info` file of a libSQL client, which must be one that its SDK accepts."""
    text = Path(f"{path}-info").read_text()
    found = json.loads(text)
    assert set(found) == {"hash", "version", "durable_frame_num", "generation"}, f"{path}-info: {text}"
    assert found["version"] == 0, f"{path}-info: {text}"
    numbers = struct.pack("<III", 0, found["durable_frame_num"], found["generation"])
    assert found["hash"] == zlib.crc32(numbers), f"{path}-info: wrong hash: {text}"
    return found


def frames(path):
    """How many committed frames are in the write-ahead log."""
    log = Path(f"{path}-wal")
    data = log.read_bytes() if log.exists() else b""
    salts, committed = data[16:24], 0
    for number, start in enumerate(range(32, len(data) - FRAME + 1, FRAME), 1):
        if data[start + 8 : start + 16] != salts:
            break
        if data[start + 4 : start + 8] != bytes(4):
            committed = number
    return committed
