"""The package `libsql` from PyPI, driven over standard input: one command a line, one answer a line, both JSON.
`interop/README.md` says what the commands are."""

import json
import sys
import time

import libsql


class Session:
    """One open database."""

    connection = None

    def open(self, path, url, token, mode):
        offline = {"offline": True} if mode == "offline" else {}
        self.connection = libsql.connect(path, sync_url=url, auth_token=token, isolation_level=None, **offline)

    def script(self, sql):
        self.connection.executescript(sql)

    def query(self, sql):
        return [[plain(value) for value in row] for row in self.connection.execute(sql).fetchall()]

    def fill(self, sql, together, to, **start):
        if together:
            self.connection.execute("BEGIN")
        for number in range(start["from"], to + 1):
            self.connection.execute(sql, (number,))
        if together:
            self.connection.execute("COMMIT")

    def sync(self):
        began = time.perf_counter()
        self.connection.sync()
        return {"frames": None, "ms": (time.perf_counter() - began) * 1000}

    def close(self):
        self.connection.close()
        self.connection = None


def plain(value):
    """A value of SQLite as JSON: of a blob only how long it is."""
    return {"bytes": len(value)} if isinstance(value, bytes) else value


def main():
    session = Session()
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = {"ok": getattr(session, command.pop("do"))(**command)}
        except Exception as error:  # whatever the SDK throws is an answer
            answer = {"error": str(error)}
        except BaseException as error:  # a panic of its Rust part
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


main()
