"""Who may do what: tokens of `highwater token create`. Some SDKs are refused when they open, others when they sync."""

import subprocess

from ..clients import NOTES
from ..database import ids
from ..scenario import refused, scenario


class Keys:
    """A key of the server's, and tokens made with it."""

    def __init__(self, world):
        self.world = world
        self.folder = world.folder / "keys"
        self.run("keygen", "--out", self.folder)
        self.public = self.folder / "highwater.pub"

    def run(self, *arguments):
        done = subprocess.run([self.world.binary, *map(str, arguments)], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, f"highwater {arguments}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def token(self, subject, access, database="app"):
        private = self.folder / "highwater.key"
        arguments = ["--key", private, "--sub", subject, "--database", database, "--access", access]
        return self.run("token", "create", *arguments)


def guarded(world):
    """A server that asks for tokens."""
    keys = Keys(world)
    world.serve("--set", f"auth.keys={keys.public}")
    return keys


@scenario
def a_token_for_the_database_opens_it_and_no_other_one_does(world):
    keys = guarded(world)
    world.token = keys.token("alice", "read,write,create")
    founder = world.founder()
    world.name = "other"
    refused(lambda: world.client("stranger").sync(), "403", "other")
    world.name = "app"
    elsewhere = keys.token("eve", "read,write,create", "other")
    refused(lambda: world.client("elsewhere", token=elsewhere).sync(), "403", "app")
    second = world.client("bob")
    second.synced()
    world.same(founder, second, world.stored())


@scenario
def a_wrong_or_missing_token_is_refused_and_says_so(world):
    keys = guarded(world)
    world.token = keys.token("alice", "read,write,create")
    founder = world.founder()
    other = Keys.__new__(Keys)
    other.world, other.folder = world, world.folder / "other-keys"
    other.run("keygen", "--out", other.folder)
    for number, token in enumerate(["", "nonsense", other.token("alice", "read,write"), world.token[:-4] + "AAAA"]):
        refused(lambda: world.client(f"wrong{number}", token=token).sync(), "401")
    # A client whose token was taken away keeps what it wrote, and pushes it with the next one.
    founder.write(100)
    right, founder.token = founder.token, "nonsense"
    founder.restart()
    refused(founder.sync, "401")
    founder.token = right
    founder.restart()
    founder.synced()
    assert 100 in ids(world.stored().path)
    log = world.server.log()
    assert world.token not in log and "nonsense" not in log, "a token is in the log"


@scenario
def a_read_only_token_pulls_and_never_pushes(world):
    keys = guarded(world)
    world.token = keys.token("alice", "read,write,create")
    founder = world.founder()
    reader = world.client("reader", token=keys.token("reader", "read"))
    reader.synced()
    founder.write(100)
    founder.synced()
    reader.synced()
    world.same(founder, reader)
    reader.write(200)
    refused(reader.sync, "403", "write")
    assert 200 not in ids(world.stored().path) and 200 in ids(reader.path)
    founder.write(101)
    founder.synced()
    world.same(founder, world.stored())


@scenario
def a_token_without_create_makes_no_database(world):
    keys = guarded(world)

    def make():
        client = world.client("alice", token=keys.token("alice", "read,write"))
        client.sync()
        client.script(NOTES)
        client.sync()

    refused(make, "403", "create")
    world.token = keys.token("root", "read,write,create")
    world.founder(who="root")
