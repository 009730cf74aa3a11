"""What one scenario plays in: a folder, a server, a proxy before it, and the clients that it starts."""

import shutil
import time
from pathlib import Path

from . import database
from .clients import NOTES, Client, Highwater
from .proxy import Proxy
from .server import Server


class World:
    """Made for each scenario. Whatever it started ends with it."""

    def __init__(self, binary, folder, sdk, random):
        self.binary, self.folder, self.sdk, self.random = binary, Path(folder), sdk, random
        self.clients, self.others = [], []
        self.name = "app"
        self.token = ""
        self.server = self.proxy = None

    def serve(self, *options, **more):
        """Starts the server, when a scenario wants to say how; else the first client does."""
        self.server = Server(self.binary, self.folder, *options, **more)
        self.proxy = Proxy(self.server.url)
        return self.server

    @property
    def url(self):
        """Where the database is, through the proxy."""
        if self.server is None:
            self.serve()
        return f"{self.proxy.url}/{self.name}"

    def client(self, who, sdk=None, token=None, mode="offline"):
        """Opens a database file of this name with an SDK (the scenario's own when none is named)."""
        token = self.token if token is None else token
        client = Client(sdk or self.sdk, self.path(who), self.url, token, mode)
        self.clients.append(client)
        return client

    def highwater(self, who, token=None):
        """A database file of this name that Highwater's own client syncs."""
        return Highwater(self.binary, self.path(who), self.url, self.token if token is None else token)

    def path(self, who):
        """No SDK makes a folder."""
        folder = self.folder / who
        folder.mkdir(exist_ok=True)
        return folder / f"{who}.db"

    def founder(self, count=10, who="alice"):
        """A client that made the table, wrote notes and synced."""
        client = self.client(who)
        client.synced()
        client.script(NOTES)
        if count:
            client.write(1, count)
        client.synced()
        return client

    def catch_up(self, client):
        """Syncs until nothing more is to be pushed or pulled: an SDK does one of both in each sync."""
        client.sync()
        client.synced()
        client.synced()

    def pause(self):
        """Gives the server time for what it does beside requests, such as a snapshot."""
        time.sleep(0.05)

    def same(self, *clients):
        """Whether all the databases say the same, and are sound. Returns what they say."""
        first, *rest = [database.contents(client.path) for client in clients]
        for client, other in zip(clients[1:], rest):
            assert first == other, f"{clients[0].path.stem} and {client.path.stem}: {difference(first, other)}"
        return first

    def stored(self):
        """What the server has, as a newcomer of Highwater's own gets it."""
        newcomer = self.highwater(f"newcomer{len(list(self.folder.glob('newcomer*')))}")
        newcomer.run("clone", newcomer.url, str(newcomer.path))
        return newcomer

    def end(self, keep=False):
        for client in self.clients:
            client.kill()
            client.noise.close()
        for other in self.others:
            other.end()
        if self.proxy:
            self.proxy.close()
        if self.server:
            self.server.kill()
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)


def difference(one, other):
    """In a few words, for a person."""
    if one["schema"] != other["schema"]:
        return f"schemas differ: {one['schema']} and {other['schema']}"
    told = []
    for table, rows in one["rows"].items():
        missing, extra = set(rows) - set(other["rows"][table]), set(other["rows"][table]) - set(rows)
        if missing or extra:
            told.append(f"{table}: {len(missing)} rows only in the first, {len(extra)} only in the second")
    return "; ".join(told) or "the same rows a different number of times"
