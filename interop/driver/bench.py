"""What a push of 10,000 frames costs. Started by interop/bench.

The databases are prepared once: 10,000 rows, each inserted in a transaction of its own, never synced. Every round
copies them and pushes them whole to a name that the server does not know, so all rounds do the same. The times are the
SDK's own sync() and the whole process `highwater sync`; they take turns within one run.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from . import database
from .clients import BUILT, NOTES, Client, Highwater
from .server import Server

ROWS = 10_000


class Counter:
    """A TCP proxy that counts what a client sends. Only the rounds that count bytes go through it."""

    def __init__(self, url):
        self.target = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
        self.up = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(self.target)
            threading.Thread(target=self.pump, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self.pump, args=(server, client, False), daemon=True).start()

    def pump(self, source, sink, counted):
        while data := source.recv(1 << 20):
            if counted:
                self.up += len(data)
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


class Trivial:
    """The trivial server, as a process."""

    def __init__(self):
        program = str(BUILT / "cargo/release/trivial-server")
        self.process = subprocess.Popen([program], stdout=subprocess.PIPE, text=True)
        self.url = json.loads(self.process.stdout.readline())["listening"]

    def kill(self):
        self.process.kill()
        self.process.wait()


class Bench:
    """The servers, and the databases to copy."""

    def __init__(self, binary, folder, sdk):
        self.binary, self.folder, self.sdk, self.round = binary, Path(folder), sdk, 0
        self.trivial = Trivial()
        (self.folder / "server").mkdir()
        self.server = Server(binary, self.folder / "server", environment={"RUST_LOG": "warn"})

    def prepare(self):
        """Makes both databases; the rows are the same, so are the transactions."""
        client = Client(self.sdk, self.folder / "libsql.db", f"{self.trivial.url}/none")
        client.script(f"PRAGMA synchronous = OFF; {NOTES}")
        client.write(1, ROWS)
        client.kill()
        self.frames = database.frames(client.path)
        plain = Highwater(self.binary, self.folder / "plain.db", "")
        plain.script(NOTES)
        plain.write(1, ROWS)

    def copy(self, name):
        """A fresh copy of a prepared database in a folder of its own."""
        self.round += 1
        folder = self.folder / f"round{self.round}"
        folder.mkdir()
        for suffix in ("", "-wal", "-info"):
            if (source := self.folder / f"{name}{suffix}").exists():
                shutil.copyfile(source, folder / f"{name}{suffix}")
        os.sync()
        return folder / name

    def libsql(self, url):
        """Milliseconds of the SDK's sync() of everything."""
        path = self.copy("libsql.db")
        client = Client(self.sdk, path, f"{url}/r{self.round}")
        client.query("SELECT count(*) FROM notes")  # whatever opening costs is not the push
        took = client.synced()["ms"]
        client.kill()
        shutil.rmtree(path.parent)
        return took

    def highwater(self, url):
        """Milliseconds of the process `highwater sync`."""
        path = self.copy("plain.db")
        client = Highwater(self.binary, path, f"{url}/r{self.round}")
        began = time.perf_counter()
        client.synced()
        took = (time.perf_counter() - began) * 1000
        shutil.rmtree(path.parent)
        return took

    def bytes_up(self, push):
        """What one push puts on the wire, headers included."""
        counter = Counter(self.server.url)
        push(counter.url)
        return counter.up

    def end(self):
        self.server.kill()
        self.trivial.kill()


def main():
    parser = argparse.ArgumentParser(prog="interop/bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--sdk", default="rust", help="rust, node, client or python")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=BUILT) as folder:
        bench = Bench(os.environ["HIGHWATER_BIN"], folder, options.sdk)
        try:
            run(bench, options.rounds)
        finally:
            bench.end()


def run(bench, rounds):
    bench.prepare()
    times = {"trivial": [], "server": [], "client": []}
    for number in range(rounds + 1):
        turn = {
            "trivial": bench.libsql(bench.trivial.url),
            "server": bench.libsql(bench.server.url),
            "client": bench.highwater(bench.server.url),
        }
        if number:  # the first round warms up
            for name, took in turn.items():
                times[name].append(took)
    sent, own = bench.bytes_up(bench.libsql), bench.bytes_up(bench.highwater)
    trivial, server, client = (statistics.median(times[name]) for name in ("trivial", "server", "client"))
    print(f"{bench.frames} frames, medians of {rounds} rounds in turns (smallest .. largest)")
    for label, name in [("to the trivial server", "trivial"), ("to Highwater", "server")]:
        print(f"libSQL's client {label:22} {told(times[name])}")
    print(f"Highwater's client, the same rows     {told(times['client'])}")
    print(f"Highwater / trivial server            {server / trivial:8.2f} x   (aim: at most 1.3)")
    print(f"libSQL's client / Highwater's, time   {server / client:8.1f} x   (aim: at least 5)")
    print(f"  and against the trivial server      {trivial / client:8.1f} x")
    print(f"libSQL's client / Highwater's, bytes  {sent / own:8.1f} x   (aim: at least 20; {sent} and {own} B up)")


def told(times):
    return f"{statistics.median(times):8.1f} ms  ({min(times):.1f} .. {max(times):.1f})"


if __name__ == "__main__":
    main()
