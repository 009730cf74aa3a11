"""What an application does on a good day."""

import os
import subprocess

from ..clients import BUILT, HERE, NOTES, SDKS
from ..database import contents, frames, ids
from ..scenario import scenario


@scenario
def an_unknown_database_opens_empty_and_the_first_push_makes_it(world):
    client = world.client("alice")
    client.synced()
    assert client.info() == {**client.info(), "generation": 1, "durable_frame_num": 0}, client.info()
    client.script(NOTES)
    client.write(1, 3)
    client.synced()
    assert ids(world.stored().path) == [1, 2, 3]


@scenario
def a_second_client_of_any_sdk_gets_everything(world):
    founder = world.founder()
    others = [world.client(f"second_{sdk}", sdk) for sdk in SDKS]
    for other in others:
        other.synced()
    world.same(founder, *others, world.stored())


@scenario
def clients_of_all_sdks_and_highwater_take_turns_and_read_each_others_rows(world):
    founder = world.founder()
    everyone = [founder, *(world.client(f"by_{sdk}", sdk) for sdk in SDKS), world.highwater("by_highwater")]
    for one in everyone:
        one.synced()
    for turn in range(2):
        for index, one in enumerate(everyone):
            one.sync()
            one.write(first := 1000 * (turn + 1) + 100 * index, first + 5, together=index % 2 == 0)
            one.synced()
    for one in everyone:
        one.synced()
    told = world.same(*everyone, world.stored())
    assert len(told["rows"]["notes"]) == 10 + 2 * 6 * len(everyone)


@scenario
def what_a_sync_pushed_the_next_pull_brings(world):
    founder = world.founder()
    second = world.client("bob")
    second.synced()
    for number in range(100, 110):
        founder.write(number)
        founder.synced()
        second.synced()
        assert second.query("SELECT max(id) FROM notes") == [[number]]
    world.same(founder, second)


@scenario
def ten_thousand_small_transactions_go_in_one_sync(world):
    ten_thousand(world, together=False, text="hex(randomblob(20))", rows=10_000)


@scenario
def one_transaction_of_ten_thousand_frames_goes_in_one_sync(world):
    ten_thousand(world, together=True, text="zeroblob(4000)", rows=10_000)


def ten_thousand(world, together, text, rows):
    founder = world.founder(0)
    before = frames(founder.path)
    founder.script("PRAGMA synchronous = OFF")
    founder.write(1, rows, text, together)
    assert frames(founder.path) - before >= 10_000
    founder.synced()
    second = world.client("bob")
    second.synced()
    told = world.same(founder, second, world.stored())
    assert len(told["rows"]["notes"]) == rows


@scenario
def a_client_that_was_restarted_goes_on_where_it_was(world):
    founder = world.founder()
    for number in (100, 101, 102):
        founder.restart()
        founder.write(number)
        founder.restart()
        founder.synced()
    assert founder.info()["durable_frame_num"] == frames(founder.path)
    second = world.client("bob")
    second.synced()
    second.restart()
    second.write(103)
    second.synced()
    founder.synced()
    world.same(founder, second, world.stored())


@scenario
def schemas_blobs_vacuum_and_full_text_search_arrive(world):
    founder = world.founder()
    second = world.client("bob")
    second.synced()
    steps = [
        "ALTER TABLE notes ADD COLUMN stars INTEGER DEFAULT 3",
        "CREATE INDEX by_text ON notes (text); CREATE VIEW few AS SELECT id FROM notes LIMIT 3",
        "CREATE TABLE files (name TEXT PRIMARY KEY, body BLOB) WITHOUT ROWID;"
        "INSERT INTO files VALUES ('a', randomblob(3000000)), ('b', zeroblob(1000000)), ('c', x''), ('d', NULL)",
        "CREATE VIRTUAL TABLE words USING fts5(body);"
        "INSERT INTO words SELECT text FROM notes; INSERT INTO words VALUES ('the high water mark')",
        "DELETE FROM files WHERE name = 'a'; VACUUM",
        "CREATE TRIGGER more AFTER INSERT ON notes BEGIN INSERT INTO words VALUES (new.text); END;"
        "INSERT INTO notes (id, text) VALUES (500, 'müßig 水')",
        "DROP VIEW few; DROP INDEX by_text; DROP TABLE files",
    ]
    for step in steps:
        founder.script(step)
        founder.synced()
        second.synced()
        world.same(founder, second)
    assert second.query("SELECT count(*) FROM words WHERE words MATCH 'water'") == [[1]]
    assert world.stored() and contents(world.stored().path) == contents(founder.path)


@scenario
def a_client_that_rewrites_the_same_rows_keeps_its_frame_numbers(world):
    founder = world.founder()
    second = world.client("bob")
    second.synced()
    for number in range(30):
        founder.script(f"UPDATE notes SET text = 'round {number}'; UPDATE notes SET by = 'round {number}'")
        founder.synced()
    second.synced()
    assert second.info() == founder.info()
    world.same(founder, second, world.stored())


@scenario(sdks=["client"])
def the_guestbook_of_the_readme_works_as_it_is_printed(world):
    program = (HERE / "examples/guestbook.mjs").read_text()
    printed = (HERE.parent / "README.md").read_text()
    assert f"```js\n{program}```\n" in printed, "README.md does not print interop/examples/guestbook.mjs"
    environment = {**os.environ, "SYNC_URL": world.url}

    def sign(who, message):
        folder = world.path(who).parent
        command = ["node", BUILT / "node/guestbook.mjs", who, message]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    assert sign("Ada", "Hello!") == ["Ada: Hello!"]
    assert sign("Grace", "Hi!") == ["Ada: Hello!", "Grace: Hi!"]
    assert sign("Ada", "Again.") == ["Ada: Hello!", "Grace: Hi!", "Ada: Again."]
    newcomer = world.stored()
    assert ids(newcomer.path, "entries") == [1, 2, 3]
    newcomer.script("INSERT INTO entries (name, message) VALUES ('Alan', 'From Highwater.')")
    newcomer.synced()
    assert sign("Grace", "Bye.")[3:] == ["Alan: From Highwater.", "Grace: Bye."]
