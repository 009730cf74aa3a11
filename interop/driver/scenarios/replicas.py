"""Remote replicas (`new_remote_replica`, `offline` not set): they probe which protocol the server speaks, then pull.
Their writes go to SQL over HTTP, which Highwater does not speak yet."""

from ..clients import SdkError
from ..scenario import scenario


@scenario
def a_remote_replica_probes_and_then_reads_everything(world):
    founder = world.founder(300)
    replica = world.client("reader", mode="replica")
    replica.sync()
    assert replica.query("SELECT count(*) FROM notes") == [[300]]
    assert world.proxy.seen("GET", "info") >= 1
    for number in range(400, 403):
        founder.write(number)
        founder.synced()
        replica.sync()
        assert replica.query("SELECT max(id) FROM notes") == [[number]]
    world.same(founder, replica)
    replica.restart()
    replica.sync()
    world.same(founder, replica)


@scenario
def a_write_through_a_remote_replica_fails_and_harms_nothing(world):
    founder = world.founder()
    replica = world.client("reader", mode="replica")
    replica.sync()
    try:
        replica.write(100)
        raise AssertionError("SQL over HTTP seems to exist now: make this scenario expect the row")
    except SdkError:
        pass
    founder.write(101)
    founder.synced()
    replica.restart()
    replica.sync()
    world.same(founder, replica, world.stored())


@scenario
def a_remote_replica_of_an_unknown_database_opens_empty(world):
    replica = world.client("reader", mode="replica")
    replica.sync()
    founder = world.founder()
    replica.sync()
    world.same(founder, replica)
