"""The server begins a new generation; libSQL clients of the old one move on. Only a native push begins one, and only when
libSQL clients were quiet for a while: here, not at all."""

import json

from ..clients import SDKS
from ..database import ids
from ..scenario import scenario

SOON = ["--set", "snapshot.max_files=3", "--set", "libsql.quiet_period=0s"]
"""Settings with which a generation ends after a few pushes."""


def newest(world):
    """The generation that the server is in."""
    return json.loads(world.server.get(f"/{world.name}/info")[1])["current_generation"]


def roll(world, native, number):
    """Pushes natively until a new generation has begun. The next free number."""
    native.synced()
    before = newest(world)
    for number in range(number, number + 100):
        native.write(number)
        native.synced()
        if newest(world) > before:
            return number + 1
        world.pause()
    raise AssertionError(f"still generation {before} after 100 pushes")


@scenario
def clients_a_generation_behind_move_on_and_keep_all_rows(world):
    world.serve(*SOON)
    founder = world.founder()
    everyone = [founder, *(world.client(f"by_{sdk}", sdk) for sdk in SDKS)]
    native = world.highwater("native")
    number = 100
    for _ in range(3):
        for client in everyone:
            client.synced()
        number = roll(world, native, number)
        for client in everyone:
            client.synced()
            assert client.info()["generation"] == newest(world)
        world.same(native, *everyone, world.stored())
        # Each goes on writing in the new generation.
        for writer in everyone:
            world.catch_up(writer)
            writer.write(number := number + 1)
            writer.synced()
        number += 1
    for client in everyone:
        world.catch_up(client)
    native.synced()
    world.same(native, *everyone, world.stored())


@scenario
def a_client_that_is_generations_behind_moves_on_through_all_of_them(world):
    world.serve(*SOON)
    founder = world.founder()
    native = world.highwater("native")
    number = 100
    for _ in range(4):
        number = roll(world, native, number)
    world.catch_up(founder)
    assert founder.info()["generation"] == newest(world) >= 5
    world.same(founder, native)
    late = world.client("late")
    late.synced()
    world.same(founder, late)
    founder.restart()
    founder.write(number)
    founder.synced()
    late.restart()
    late.synced()
    native.synced()
    world.same(founder, late, native, world.stored())


@scenario
def a_write_made_before_a_new_generation_was_heard_of_is_merged(world):
    world.serve(*SOON)
    founder = world.founder()
    founder.write(50)
    native = world.highwater("native")
    roll(world, native, 100)
    world.catch_up(founder)
    native.synced()
    assert 50 in ids(founder.path)
    world.same(founder, native, world.stored())


@scenario
def no_generation_begins_while_libsql_clients_write(world):
    world.serve("--set", "snapshot.max_files=3")
    founder = world.founder()
    native = world.highwater("native")
    native.synced()
    for number in range(100, 120, 2):
        native.write(number)
        native.synced()
        founder.synced()
        founder.write(number + 1)
        founder.synced()
        native.synced()
        world.pause()
    assert newest(world) == 1
    world.same(founder, native)
