"""Networks that lose, break and cut."""

from ..database import ids
from ..proxy import CUT, LOSE, REFUSE
from ..clients import SdkError
from ..scenario import scenario


@scenario
def a_lost_answer_to_a_push_changes_nothing(world):
    founder = world.founder()
    written = 10
    for nth, what in [(1, LOSE), (2, LOSE), (3, LOSE), (1, REFUSE), (2, REFUSE), (2, CUT)]:
        founder.write(written + 1, written + 300, together=nth == 2)
        written += 300
        spoiled(world, founder, "POST", nth, what)
        if nth == 1:
            founder.write(written := written + 1)
        world.catch_up(founder)
    second = world.client("bob")
    second.synced()
    world.same(founder, second, world.stored())
    assert ids(second.path) == list(range(1, written + 1))


@scenario
def a_lost_answer_to_a_pull_changes_nothing(world):
    founder = world.founder()
    second = world.client("bob")
    second.synced()
    written = 10
    for nth, what in [(1, LOSE), (2, LOSE), (1, CUT), (2, CUT), (3, REFUSE)]:
        founder.write(written + 1, written + 300, together=nth == 2)
        written += 300
        founder.synced()
        spoiled(world, second, "GET", nth, what)
        world.catch_up(second)
        world.same(founder, second)
    second.write(written + 1)
    second.synced()
    founder.synced()
    world.same(founder, second, world.stored())


@scenario
def a_first_copy_that_broke_off_is_made_again(world):
    founder = world.founder(300)
    for nth, what in [(1, LOSE), (2, LOSE), (2, CUT), (3, CUT), (4, LOSE)]:
        second = world.client(f"bob_{nth}_{world.proxy.seen('GET')}")
        spoiled(world, second, "GET", nth, what)
        second.restart()
        world.catch_up(second)
        world.same(founder, second)


def spoiled(world, client, method, nth, what):
    """A sync whose n-th request goes wrong; what the SDK says of it is its own affair."""
    world.proxy.forget()
    world.proxy.spoil(method, nth, what)
    try:
        client.sync()
    except SdkError:
        pass
    world.proxy.forget()
