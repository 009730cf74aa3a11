"""Clients that all wrote since their last sync."""

from ..clients import SDKS
from ..database import ids
from ..scenario import refused, scenario


@scenario
def a_second_diverged_client_is_told_of_the_conflict_and_nothing_is_lost(world):
    founder = world.founder()
    for sdk in SDKS:
        second = world.client(f"bob_{sdk}", sdk)
        world.catch_up(founder)
        world.catch_up(second)
        first = 100 * (1 + len(world.clients))
        founder.write(first, first + 3)
        second.write(first + 10, first + 13)
        founder.synced()
        refused(second.sync, "conflict")
        refused(second.sync, "conflict")
        assert_the_log_tells(world)
        # The one loses nothing and is not held up; what the other wrote is where it was.
        assert first + 13 in ids(second.path) and first + 3 not in ids(second.path)
        second.restart()
        refused(second.sync, "conflict")
        founder.write(first + 20)
        founder.synced()
        world.same(founder, world.stored())
        # A new file of the second client's works, with the rows written again.
        second.close()
        third = world.client(f"bob_again_{sdk}", sdk)
        third.synced()
        third.write(first + 10, first + 13)
        third.synced()
        founder.synced()
        world.same(founder, third, world.stored())


@scenario
def a_diverged_client_is_told_whoever_was_first(world):
    founder = world.founder()
    native = world.highwater("native")
    native.synced()
    founder.write(100)
    native.write(200)
    native.synced()
    refused(founder.sync, "conflict")
    assert_the_log_tells(world)
    world.same(native, world.stored())
    second = world.client("bob")
    second.synced()
    second.write(300)
    native.write(400)
    second.synced()
    refused(native.synced, "conflict")
    world.same(second, world.stored())


def assert_the_log_tells(world):
    """Who, which database, and what to do."""
    told = [line for line in world.server.log().splitlines() if "conflict" in line and "what to do" in line.lower()]
    told = told or [line for line in world.server.log().splitlines() if "WARN" in line and "conflict" in line]
    assert told, "the server's log does not tell of the conflict"
    assert world.name in told[-1] and "127.0.0.1" in told[-1], told[-1]
