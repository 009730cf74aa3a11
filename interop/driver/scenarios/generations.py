"""The server begins a new generation; libSQL clients of the old one move on."""

from ..clients import SDKS
from ..database import ids
from ..scenario import scenario

SOON = ["--set", "snapshot.max_files=3", "--set", "libsql.quiet_period=0s"]
"""Settings with which a generation ends after a few pushes."""


def roll(world, writer, number):
    """Pushes until a new generation has begun. The next free number."""
    before = writer.info()["generation"]
    for _ in range(40):
        writer.write(number)
        writer.synced()
        number += 1
        if writer.info()["generation"] > before:
            return number
        world.pause()
    raise AssertionError(f"still generation {before} after 40 pushes")


@scenario
def clients_a_generation_behind_move_on_and_keep_all_rows(world):
    world.serve(*SOON)
    founder = world.founder()
    others = [world.client(f"by_{sdk}", sdk) for sdk in SDKS]
    for other in others:
        other.synced()
    number = 100
    for _ in range(3):
        number = roll(world, founder, number)
        for other in others:
            other.synced()
            assert other.info()["generation"] == founder.info()["generation"]
        world.same(founder, *others, world.stored())
    # Each goes on writing in the new generation.
    for writer in others:
        world.catch_up(writer)
        writer.write(number := number + 1)
        writer.synced()
    world.catch_up(founder)
    for other in others:
        world.catch_up(other)
    world.same(founder, *others, world.stored())


@scenario
def a_client_that_is_generations_behind_moves_on_through_all_of_them(world):
    world.serve(*SOON)
    founder = world.founder()
    second = world.client("bob")
    second.synced()
    number = 100
    for _ in range(4):
        number = roll(world, founder, number)
    world.catch_up(second)
    assert second.info() == founder.info()
    world.same(founder, second, world.stored())
    late = world.client("late")
    late.synced()
    world.same(founder, late)


@scenario
def an_unsynced_write_of_a_generation_that_ended_is_not_lost(world):
    world.serve(*SOON)
    founder = world.founder()
    number = roll(world, founder, 100)
    founder.write(number)
    founder.restart()
    founder.synced()
    second = world.client("bob")
    second.synced()
    assert number in ids(second.path)
    world.same(founder, second, world.stored())


@scenario
def a_native_push_that_begins_a_generation_reaches_libsql_clients(world):
    world.serve(*SOON)
    founder = world.founder()
    native = world.highwater("native")
    native.synced()
    number = 100
    before = founder.info()["generation"]
    for _ in range(20):
        native.write(number := number + 1)
        native.synced()
        world.pause()
    world.catch_up(founder)
    assert founder.info()["generation"] > before, founder.info()
    world.same(founder, native, world.stored())
    founder.write(number := number + 1)
    founder.synced()
    native.synced()
    world.same(founder, native)
