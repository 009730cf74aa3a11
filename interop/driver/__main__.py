"""Plays scenarios and says how each went. `interop/run` starts this; see interop/README.md."""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from .clients import BUILT, SDKS
from .scenario import SCENARIOS
from .scenarios import load
from .world import World


def main():
    options = arguments()
    load()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    seed = options.seed if options.seed is not None else random.randrange(1 << 32)
    print(f"seed {seed} (--seed {seed} repeats the random choices)")
    began, failed, played = time.monotonic(), [], 0
    for name, function, only in SCENARIOS:
        for sdk in SDKS if only is None else only:
            title = f"{name} [{sdk}]"
            if not all(word in title for word in options.only) or (options.sdk and sdk != options.sdk):
                continue
            played += 1
            if not play(title, function, sdk, f"{seed} {title}", options):
                failed.append(title)
    print(f"{played - len(failed)} of {played} passed in {time.monotonic() - began:.0f} s")
    for title in failed:
        print(f"FAILED: {title}")
    sys.exit(1 if failed or not played else 0)


def play(title, function, sdk, seed, options):
    """One scenario with one SDK; whether it went well."""
    folder = tempfile.mkdtemp(prefix="interop-", dir=BUILT)
    world, began, problem = World(options.binary, folder, sdk, random.Random(seed)), time.monotonic(), None
    try:
        function(world)
    except Exception as error:
        problem = error
    finally:
        took = time.monotonic() - began
        print(f"{'FAILED' if problem else 'ok    '} {took:6.2f} s  {title}", flush=True)
        if problem:
            explain(problem, world)
        world.end(keep=problem is not None)
    return problem is None


def explain(problem, world):
    """What a person needs to find out why."""
    traceback.print_exception(problem)
    print(f"The files are kept in {world.folder}")
    if world.proxy:
        print("The last requests:", *world.proxy.exchanges[-12:], sep="\n  ")
    if world.server:
        lines = [line for line in world.server.log().splitlines() if "DEBUG" not in line]
        print("The server's last words:", *lines[-12:], sep="\n  ")


def arguments():
    parser = argparse.ArgumentParser(prog="interop/run", description=__doc__)
    parser.add_argument("only", nargs="*", help="play the scenarios whose names have all these words")
    parser.add_argument("--sdk", choices=SDKS, help="play them with this SDK only")
    parser.add_argument("--seed", type=int, help="repeat the random choices of an earlier run")
    parser.add_argument("--binary", default=os.environ.get("HIGHWATER_BIN"), help="the program `highwater`")
    options = parser.parse_args()
    if not options.binary or not Path(options.binary).exists():
        parser.error("name the program `highwater` with --binary or HIGHWATER_BIN")
    return options


main()
