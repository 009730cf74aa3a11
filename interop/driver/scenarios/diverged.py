"""Clients that all wrote since their last sync: they are merged, and their next syncs bring them to the head."""

from ..clients import SDKS, SdkError
from ..database import copied, frames
from ..proxy import CUT, LOSE
from ..scenario import refused, scenario
from .kills import kill_in

EVENTS = "CREATE TABLE events (what TEXT)"
"""Without any key: a row that came twice is there twice."""

ROUNDS = 10
PRIVATE = 1 << 31


@scenario
def two_clients_that_both_wrote_both_get_the_rows_of_both(world):
    founder, expected = with_events(world), []
    for nth, sdk in enumerate(SDKS):
        second = world.client(f"bob_{sdk}", sdk)
        world.catch_up(founder)
        world.catch_up(second)
        for client in (founder, second):
            client.write(100 * (nth + 1))  # the same id at both
            expected.append(event(client, f"{client.path.stem} {sdk}"))
        if nth % 2:
            founder, second = second, founder
        founder.synced()
        second.synced()
        assert second.info()["generation"] >= PRIVATE, second.info()
        settled(world, founder, second)
        assert events(founder) == sorted(expected)
        # Both go on, with what they have open.
        for client in (founder, second):
            expected.append(event(client, f"more of {client.path.stem} {sdk}"))
            assert client.query("SELECT count(*) FROM events")[0][0] >= len(expected) - 1
        second.restart()
        founder.synced()
        second.synced()
        settled(world, founder, second)
        assert events(second) == sorted(expected)
    third = world.client("newcomer")
    third.synced()
    settled(world, third, *world.clients)
    assert third.info()["generation"] < PRIVATE


@scenario
def clients_that_diverge_again_and_again_converge(world):
    founder, expected = with_events(world), []
    clients = [founder] + [world.client(f"client{n}", world.random.choice(list(SDKS))) for n in range(2)]
    native = world.highwater("native")
    native.synced()
    for client in clients:
        world.catch_up(client)
    for number in range(ROUNDS):
        for client in clients:
            for nth in range(world.random.randint(0, 3)):
                expected.append(event(client, f"{number} {client.path.stem} {nth}"))
            if world.random.random() < 0.3:
                first = 10_000 * (number + 1)  # the same for all, who write before they sync
                client.write(first, first + world.random.randint(0, 200))
        expected.append(event(native, f"{number} native"))
        for client in world.random.sample(clients, len(clients)):
            trouble(world, client)
        native.synced()
        if world.random.random() < 0.3:
            world.server.restart(world.random.choice([9, 15]))
        if world.random.random() < 0.5:
            settled(world, native, *clients)
            assert events(founder) == sorted(expected)
    settled(world, native, *clients)
    assert events(founder) == sorted(expected)


@scenario
def schemas_that_both_changed_reach_connections_that_stay_open(world):
    founder = with_events(world)
    second = world.client("bob", world.random.choice(list(SDKS)))
    world.catch_up(second)
    for number in range(4):
        founder.script(f"CREATE TABLE a{number} (x); INSERT INTO a{number} VALUES ('a{number}')")
        founder.script(f"ALTER TABLE events ADD COLUMN a{number} TEXT")
        second.script(f"CREATE TABLE b{number} (x); INSERT INTO b{number} VALUES ('b{number}')")
        second.script(f"CREATE INDEX by_what{number} ON events (what)")
        if number == 2:
            second.script("VACUUM")
        first, other = (founder, second) if number % 2 else (second, founder)
        first.synced()
        other.synced()
        settled(world, founder, second)
        for client in (founder, second):
            # The handles are those of before: another root page under the same cookie would show another table.
            for table in (f"a{number}", f"b{number}"):
                assert client.query(f"SELECT x FROM {table}") == [[table]], (client.sdk, table)
            event(client, f"{number} of {client.path.stem}", "(what)")
        first.synced()
        other.synced()
        settled(world, founder, second)
    assert len(events(founder)) == 8


@scenario
def a_client_killed_in_the_push_of_what_diverged_carries_on(world):
    founder, expected = with_events(world), []
    second = world.client("bob")
    world.catch_up(second)
    for number in range(8):
        expected.append(event(founder, f"alice {number}"))
        founder.synced()
        for nth in range(world.random.randint(60, 120)):
            expected.append(event(second, f"bob {number} {nth}"))
        lag = frames(second.path) - second.info()["durable_frame_num"]
        kill_in(world, second, "POST", -(-lag // 128))
        if number % 2:
            expected.append(event(second, f"bob {number} after"))
        world.catch_up(second)
        kill_in(world, second, "GET", 2)
        settled(world, founder, second)
        assert events(second) == sorted(expected), number


@scenario
def what_cannot_be_merged_is_a_conflict_until_the_reason_is_gone(world):
    founder = with_events(world)
    founder.script("CREATE VIRTUAL TABLE search USING fts5 (text, content='')")
    founder.synced()
    second = world.client("bob")
    world.catch_up(second)
    founder.script("INSERT INTO search (rowid, text) VALUES (1, 'of alice')")
    second.script("INSERT INTO search (rowid, text) VALUES (2, 'of bob')")
    event(second, "bob")
    founder.synced()
    for _ in range(2):
        refused(second.sync, "conflict")
        assert_the_log_tells(world)
        second.restart()
    # Nothing is lost, nobody is held up.
    assert events(second) == ["bob"]
    event(founder, "alice")
    founder.synced()
    for client in (founder, second):
        client.script("DROP TABLE search")
    founder.synced()
    second.synced()
    settled(world, founder, second)
    assert events(founder) == ["alice", "bob"]


@scenario
def a_diverged_client_and_highwater_s_own_are_merged_whoever_was_first(world):
    founder = with_events(world)
    native = world.highwater("native")
    native.synced()
    for number in range(4):
        event(founder, f"alice {number}")
        event(native, f"native {number}")
        first, second = (founder, native) if number % 2 else (native, founder)
        first.synced()
        second.synced()
        settled(world, founder, native)
    assert len(events(founder)) == 8


def with_events(world):
    founder = world.founder()
    founder.script(EVENTS)
    founder.synced()
    return founder


def event(client, what, columns=""):
    """Writes what nobody else writes."""
    client.script(f"INSERT INTO events {columns} VALUES ('{what}')")
    return what


def events(client):
    with copied(client.path) as connection:
        return [row[0] for row in connection.execute("SELECT what FROM events ORDER BY what")]


def settled(world, *clients):
    """Syncs until nobody has anything new, which takes a push and two pulls of each; then all are the same."""
    for _ in range(3):
        for client in clients:
            client.synced()
    world.same(*clients, world.stored())


def trouble(world, client):
    """A sync that may be killed, or lose its answers."""
    how = world.random.choice(["kill", "lose", "fine", "fine"])
    method = world.random.choice(["POST", "GET"])
    if how == "kill":
        kill_in(world, client, method, 2)
        return
    if how == "lose":
        world.proxy.spoil(method, 1, world.random.choice([LOSE, CUT]))
    try:
        client.sync()
    except SdkError:
        pass
    world.proxy.forget()


def assert_the_log_tells(world):
    """Who, which database, and why."""
    told = [line for line in world.server.log().splitlines() if "WARN" in line and "conflict" in line]
    assert told, "the server's log does not tell of the conflict"
    assert world.name in told[-1] and "127.0.0.1" in told[-1], told[-1]
