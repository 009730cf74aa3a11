"""The SDKs as processes that take commands, and the same work through Highwater's own client."""

import json
import os
import select
import subprocess
import sqlite3
import threading
from pathlib import Path

from . import database

HERE = Path(__file__).resolve().parent.parent
BUILT = Path(os.environ.get("INTEROP_TARGET", HERE.parent / "target" / "interop"))

SDKS = {
    "rust": [str(BUILT / "cargo/release/libsql-client")],
    "node": ["node", str(BUILT / "node/libsql.mjs")],
    "client": ["node", str(BUILT / "node/libsql_client.mjs")],
    "python": [str(BUILT / "venv/bin/python"), "-u", str(HERE / "clients/python/client.py")],
}
"""How each SDK's program is started: crate `libsql`, npm `libsql`, npm `@libsql/client`, PyPI `libsql`."""

NOTES = "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, by TEXT, text TEXT)"
PATIENCE = 60
"""Seconds that one command may take."""


class SdkError(Exception):
    """What an SDK said went wrong."""


class Client:
    """A database file, and the SDK's program that has it open."""

    def __init__(self, sdk, path, url, token="", mode="offline"):
        self.sdk, self.path, self.url, self.token, self.mode = sdk, path, url, token, mode
        self.process = None
        self.noise = open(f"{path}.stderr", "ab")
        self.open()

    def open(self):
        """Starts the program and opens the database."""
        self.process = subprocess.Popen(
            SDKS[self.sdk], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.noise, text=True
        )
        try:
            self.ask(do="open", path=str(self.path), url=self.url, token=self.token, mode=self.mode)
        except SdkError:
            self.kill()
            raise

    def begin(self, **command):
        """Says what to do and does not wait for it."""
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def ask(self, **command):
        """Says what to do and waits for it."""
        self.begin(**command)
        return self.hear(command["do"])

    def hear(self, what):
        """The answer to what was begun."""
        watch = threading.Timer(PATIENCE, self.process.kill)
        watch.start()
        line = self.process.stdout.readline()
        watch.cancel()
        if not line:
            raise SdkError(f"the program of {self.sdk} ended in {what}: see {self.noise.name}")
        answer = json.loads(line)
        if "error" in answer:
            raise SdkError(answer["error"])
        return answer["ok"]

    def has_answered(self):
        """Whether what was begun has ended."""
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    def script(self, sql):
        self.ask(do="script", sql=sql)

    def query(self, sql):
        return self.ask(do="query", sql=sql)

    def write(self, first, last=None, text="hex(randomblob(20))", together=False):
        """Writes notes with these ids, each in a transaction of its own unless together."""
        sql = f"INSERT INTO notes VALUES (?1, '{self.path.stem}', {text})"
        self.ask(do="fill", sql=sql, to=last or first, together=together, **{"from": first})

    def sync(self):
        return self.ask(do="sync")

    def synced(self):
        """Syncs, and makes sure that it did: an unreachable server looks like success to an SDK."""
        done = self.sync()
        assert self.is_settled(), f"{self.sdk}: {self.info()} with {database.frames(self.path)} frames in the log"
        return done

    def info(self):
        return database.info(self.path)

    def is_settled(self):
        """Whether the SDK believes that the server has all its frames."""
        return self.info()["durable_frame_num"] == database.frames(self.path)

    def kill(self):
        """kill -9."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()
            self.process.stdout.close()
            self.process = None

    def close(self):
        """Closes the database and ends the program."""
        if self.process and self.process.poll() is None:
            self.ask(do="close")
            self.process.stdin.close()
            self.process.wait(PATIENCE)
            self.process.stdout.close()
            self.process = None

    def restart(self):
        self.close()
        self.open()


class Highwater:
    """The same through plain SQLite and the command `highwater`."""

    sdk = "highwater"

    def __init__(self, binary, path, url, token=""):
        self.binary, self.path, self.url, self.token = binary, path, url, token

    def run(self, *arguments):
        """The JSON that the command answered. Fails with what it said went wrong."""
        environment = dict(os.environ, HIGHWATER_AUTH_TOKEN=self.token) if self.token else None
        done = subprocess.run(
            [self.binary, "--json", *arguments], capture_output=True, text=True, timeout=PATIENCE, env=environment
        )
        if done.returncode != 0:
            raise SdkError(f"highwater {' '.join(arguments)}: exit {done.returncode}: {done.stdout}{done.stderr}")
        return json.loads(done.stdout.splitlines()[-1])

    def synced(self):
        return self.run("sync", str(self.path), "--remote", self.url)

    sync = synced

    def script(self, sql):
        with sqlite3.connect(self.path) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(sql)
        connection.close()

    def write(self, first, last=None, text="hex(randomblob(20))", together=False):
        each = f"INSERT INTO notes VALUES (?1, '{self.path.stem}', {text})"
        connection = sqlite3.connect(self.path, isolation_level=None)
        if together:
            connection.execute("BEGIN")
        for number in range(first, (last or first) + 1):
            connection.execute(each, (number,))
        if together:
            connection.execute("COMMIT")
        connection.close()

    def kill(self):
        """Nothing runs between commands."""

    close = kill
