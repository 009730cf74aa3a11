"""Clients that are killed with SIGKILL, and servers that go away in the middle."""

import signal
import time

from ..database import frames, ids
from ..proxy import HOLD_AFTER, HOLD_BEFORE
from ..scenario import scenario

KILLS = 20
ROUNDS = 6 * KILLS
"""How often a kill is tried until so many came in time: a fast SDK is often done before an untimed one."""

GOT = "the answer has just got to the client"
BATCH = 128


def kill_in(world, client, method, requests):
    """Begins a sync and kills the client: at a request that the server has not seen, at an answer that the client has not
    seen or has just got, or at any time. Then opens it again. Whether it had not finished."""
    how, nth = world.random.choice([HOLD_BEFORE, HOLD_AFTER, GOT, None]), world.random.randint(1, requests)
    fault = world.proxy.spoil(method, nth, HOLD_AFTER if how == GOT else how)
    client.begin(do="sync")
    if how is None:
        time.sleep(world.random.uniform(0, 0.03 * requests))
    else:
        # A client that was killed before may have less to do, or the other thing.
        while not fault.reached.wait(0.01) and not client.has_answered():
            pass
    if how == GOT:
        fault.released.set()
        time.sleep(world.random.uniform(0, 0.02))
    caught = not client.has_answered()
    client.kill()
    fault.released.set()
    world.proxy.forget()
    client.open()
    return caught


@scenario
def a_client_killed_in_a_push_carries_on(world):
    founder = world.founder()
    written, caught, rounds = 10, 0, 0
    while caught < KILLS and rounds < ROUNDS:
        rounds += 1
        founder.script("PRAGMA synchronous = OFF")
        count = world.random.randint(2 * BATCH, 4 * BATCH)
        founder.write(written + 1, written + count, together=world.random.random() < 0.3)
        written += count
        lag = frames(founder.path) - founder.info()["durable_frame_num"]
        caught += kill_in(world, founder, "POST", -(-lag // BATCH))
    assert caught == KILLS, f"only {caught} of {rounds} kills came before the end of the push"
    world.catch_up(founder)
    second = world.client("bob")
    second.synced()
    world.same(founder, second, world.stored())
    assert ids(second.path) == list(range(1, written + 1))


@scenario
def a_client_killed_in_a_push_may_sync_before_it_writes_again(world):
    founder = world.founder()
    second = world.client("bob")
    written = 10
    for _ in range(KILLS // 4):
        founder.write(written + 1, written + 300, together=world.random.random() < 0.5)
        written += 300
        lag = frames(founder.path) - founder.info()["durable_frame_num"]
        kill_in(world, founder, "POST", -(-lag // BATCH))
        world.catch_up(founder)
        second.synced()
        assert ids(second.path) == list(range(1, written + 1))
    world.same(founder, second, world.stored())


@scenario
def a_client_killed_in_a_pull_carries_on(world):
    founder = world.founder()
    second = world.client("bob")
    second.synced()
    written, caught, rounds = 10, 0, 0
    founder.script("PRAGMA synchronous = OFF")
    while caught < KILLS and rounds < ROUNDS:
        rounds += 1
        # The first push is more than the server answers at once.
        for count, text in [(1100, "zeroblob(4000)"), (world.random.randint(1, 200), "'short'")]:
            founder.write(written + 1, written + count, text, together=count == 1100)
            written += count
            founder.synced()
        caught += kill_in(world, second, "GET", 3)
        if world.random.random() < 0.5:
            world.catch_up(second)
    assert caught == KILLS, f"only {caught} of {rounds} kills came before the end of the pull"
    world.catch_up(second)
    world.same(founder, second, world.stored())
    second.write(written + 1)
    second.synced()
    founder.synced()
    assert ids(founder.path) == list(range(1, written + 2))


@scenario
def a_server_restarted_between_batches_goes_on_with_the_push(world):
    restart_between_batches(world, together=False)


@scenario
def a_server_restarted_within_a_large_transaction_goes_on_with_the_push(world):
    restart_between_batches(world, together=True)


def restart_between_batches(world, together):
    founder = world.founder()
    written = 10
    for how in (signal.SIGTERM, signal.SIGKILL):
        founder.write(written + 1, written + 1000, "hex(randomblob(1500))", together)
        written += 1000
        for nth in (2, 4):
            world.proxy.spoil("POST", nth, lambda: world.server.restart(how))
        founder.synced()
        world.proxy.forget()
    second = world.client("bob")
    second.synced()
    world.same(founder, second, world.stored())
    assert ids(second.path) == list(range(1, written + 1))


@scenario
def a_restarted_server_knows_every_client(world):
    founder = world.founder()
    second = world.client("bob")
    second.synced()
    for number in range(100, 106):
        world.server.restart(world.random.choice([signal.SIGTERM, signal.SIGKILL]))
        one, other = (founder, second) if number % 2 else (second, founder)
        one.sync()
        one.write(number)
        one.synced()
        world.server.restart(signal.SIGKILL)
        other.synced()
    world.same(founder, second, world.stored())
