"""`make fuzz`: millions of inputs against the control socket's code, guided by the branches that they reach.

``INPUTS`` of them in all (10 million), by two workers: libFuzzer (atheris) keeps what reaches new branches of the daemon's own code and
bends it further, with its own mutations and with those of `grammar`. One in a hundred goes to a daemon of its own over its real socket.
Fails if any answer is wrong (`inside.Wrong`), if anything takes seconds, or if memory or descriptors grow. An input that fails is left in
the working folder as ``crash-...``; ``python -m tests.fuzz worker --repeat FILE`` tells it again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import FunctionType, ModuleType
from typing import Any, Final

from cryptod.daemon import connection, control, crowd, dispatch, framing, handlers, nearest, symbols
from tests.fuzz import grammar
from tests.fuzz.inside import Inside, Wrong

GUIDED: Final = (connection, control, crowd, dispatch, framing, handlers, nearest, symbols)
"""Whose branches are counted."""
WORKERS: Final = 2
MEMORY: Final = "/dev/shm"
LONGEST: Final = 128
"""Bytes of an input: longer ones reach nothing new and cost more. The largest requests are `test_fuzz`'s and the real socket's."""
LOOK_EVERY: Final = 10_000
"""Inputs after which a worker looks at its memory and descriptors."""
GROWTH: Final = 25_000
"""By how many blocks Python's memory may grow between a fifth of the inputs and their end: the latest log lines are kept, for one."""


def worker(arguments: argparse.Namespace) -> None:
    """One process that fuzzes; libFuzzer ends it."""
    import atheris

    for module in GUIDED:
        for function in functions(module, module.__name__):
            atheris.instrument_func(function)
    told = answers = 0
    seen: list[tuple[int, int]] = []
    began = time.monotonic()

    def one(data: bytes) -> None:
        nonlocal told, answers
        if arguments.repeat:
            print(daemon.judge(data[1:], **plan(data)))
            return
        answers += len(daemon.judge(data[1:], **plan(data)))
        told += 1
        if told % LOOK_EVERY == 0:
            seen.append((daemon.blocks(), len(os.listdir("/proc/self/fd"))))
            rate = told / (time.monotonic() - began)
            line = f"worker {arguments.seed}: {told:,} inputs, {answers:,} answers, {rate:,.0f}/s, blocks and descriptors {seen[-1]}"
            print(line, flush=True)
            blocks, descriptors = seen[len(seen) // 5]
            if seen[-1][0] > blocks + GROWTH or seen[-1][1] > descriptors:
                raise Wrong(f"it grows: {seen}")

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        chance = Random(seed)
        what = chance.randrange(8)
        if what < 4:
            return bytes(atheris.Mutate(data, most))
        if what < 6 or len(data) < 2:
            return bytes([chance.randrange(256)]) + grammar.stream(chance)[: most - 1]
        at = chance.randrange(1, len(data))
        return (data[:at] + grammar.message(chance) + (data[at:] if what == 6 else b""))[:most]

    named = [str(arguments.repeat)] if arguments.repeat else []
    options = {"runs": arguments.inputs, "max_len": LONGEST, "seed": arguments.seed, "timeout": 300, "rss_limit_mb": 1024, "verbosity": 0}
    with Inside(Path(tempfile.mkdtemp(prefix="state-"))) as daemon:
        atheris.Setup([sys.argv[0], *(f"-{name}={value}" for name, value in options.items()), *named], one, custom_mutator=mutate)
        atheris.Fuzz()


def functions(holder: ModuleType | type, home: str) -> Iterator[FunctionType]:
    """The functions and methods that a module has of its own."""
    for thing in vars(holder).values():
        one = thing.fget if isinstance(thing, property) else getattr(thing, "__func__", thing)
        if isinstance(one, FunctionType) and one.__module__ == home:
            yield one
        elif isinstance(one, type) and one.__module__ == home:
            yield from functions(one, home)


def plan(data: bytes) -> dict[str, Any]:
    """What an input's first byte says: in how many parts it is told, and whether by one who may change things."""
    first = data[0] if data else 0
    return {"parts": (1, 1, 1, 1, 1, 2, 3, 9)[first % 8], "may_change": first >= 250}


def over_the_socket(inputs: int, seed: int) -> None:
    """Tell streams of the grammar to a real daemon, crowd it and flood it; it must be as large afterwards as it was before."""
    from tests.fuzz.outside import Outside

    chance = Random(seed)
    with Outside() as daemon:
        daemon.tell_many(chance, inputs // 5)
        before = daemon.size()
        daemon.tell_many(chance, inputs - inputs // 5)
        print(f"over the socket: {inputs:,} inputs, {daemon.read:,} bytes of answers", flush=True)
        daemon.report()
        daemon.storms()
        after = daemon.size()
        print(f"the daemon before and after: {before}, {after}", flush=True)
        daemon.compare(before, after)


@contextlib.contextmanager
def scratch() -> Iterator[str]:
    """A folder for those of all parts, as libFuzzer leaves without tidying up; in memory, if that can be had."""
    with tempfile.TemporaryDirectory(prefix="cryptod-fuzz-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as folder:
        os.chmod(folder, 0o711)  # another user speaks to the socket that lies in it
        yield folder


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("all", "worker", "socket"), default="all")
    parser.add_argument("--inputs", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--repeat", type=Path, help="tell the input in this file once more")
    arguments = parser.parse_args()
    if arguments.what == "worker":
        worker(arguments)
        return 0
    if arguments.what == "socket":
        over_the_socket(arguments.inputs, arguments.seed)
        return 0
    began = time.monotonic()
    outside = max(1, arguments.inputs // 100)
    shares = {
        f"worker {i}": ["worker", f"--seed={i}", f"--inputs={(arguments.inputs - outside) // WORKERS}"] for i in range(1, 1 + WORKERS)
    }
    shares["socket"] = ["socket", f"--inputs={outside}"]
    with scratch() as folder:
        environ = os.environ | {"TMPDIR": folder}
        running = {name: subprocess.Popen([sys.executable, "-m", "tests.fuzz", *share], env=environ) for name, share in shares.items()}
        ended = {name: process.wait() for name, process in running.items()}
    print(f"{arguments.inputs:,} inputs in {time.monotonic() - began:,.0f} s; exit codes {ended}")
    return int(any(ended.values()))


if __name__ == "__main__":
    sys.exit(main())
