"""What the children of `test_pool` carry out: each runner does what its order's text says."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable

import psutil

from cryptod.errors import ExchangeError
from cryptod.worker.messages import CollectDone, CollectOrder, Finished, Progress, Report, TrainOrder

if "RUNNERS_IMPORTED" in os.environ:
    with open(os.environ["RUNNERS_IMPORTED"], "w") as _file:
        _file.write(str(os.getpid()))


def _beat(order: CollectOrder | TrainOrder, report: Callable[[Report], None], text: str = "") -> None:
    report(Progress(job=order.job, stage="test", done=1, total=2, text=text))


def run(order: CollectOrder | TrainOrder, report: Callable[[Report], None]) -> None:
    """The order's ``candles`` field says what to do."""
    deed = order.candles
    if deed == "facts":
        report(Progress(job=order.job, stage="facts", done=1, total=1, text=_facts()))
    elif deed == "sleep":
        _beat(order, report)
        time.sleep(60)
    elif deed == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _beat(order, report)
        time.sleep(60)
    elif deed == "beat":
        while True:
            _beat(order, report)
            time.sleep(0.02)
    elif deed == "exit":
        _beat(order, report)
        os._exit(7)
    elif deed == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif deed == "half":
        os.write(_wire(), b"\x00\x00\x00\x40half")
        os.kill(os.getpid(), signal.SIGSTOP)
    elif deed == "nonsense":
        os.write(_wire(), b"\x00\x00\x00\x02\xc1\xc1")
        time.sleep(60)
    elif deed == "hoard":
        hoard = bytearray()
        while True:
            hoard.extend(bytes(1 << 24))
    elif deed == "share":  # memory that is no part of the data segment
        shared = mmap.mmap(-1, 2 << 30)
        for first in range(0, len(shared), 1 << 20):
            shared[first : first + (1 << 20)] = b"x" * (1 << 20)
            time.sleep(0.001)
    elif deed == "defect":
        raise ZeroDivisionError("one by none")
    elif deed == "refused":
        raise ExchangeError("the exchange banned us", hint="wait", retry_after=7.0)
    elif deed == "long":
        _beat(order, report, "x" * 3_000_000)
    if isinstance(order, TrainOrder):
        report(Finished(job=order.job, seconds=0.0, peak_rss=0))
    else:
        report(
            CollectDone(
                job=order.job,
                symbols=(str(os.getpid()),),
                left_out={},
                failed={},
                collected_to=order.now,
                skew_ms=0,
                new_candles=0,
                revised_candles=0,
                requests=0,
                seconds=0.0,
            )
        )


def _wire() -> int:
    """The descriptor of the child's wire: its one connected socket."""
    for name in sorted(os.listdir("/proc/self/fd"), key=int):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:") and int(name) > 2:
                return int(name)
        except OSError:
            continue
    raise AssertionError


def _facts() -> str:
    """What the child knows of itself, one ``name=value`` a line."""
    with open("/proc/self/comm") as comm, open("/proc/self/oom_score_adj") as score:
        facts = {"comm": comm.read().strip(), "oom": score.read().strip()}
    facts["pid"] = str(os.getpid())
    facts["disk"] = "idle" if psutil.Process().ionice().ioclass == psutil.IOPRIO_CLASS_IDLE else "other"
    facts["nice"] = str(os.getpriority(os.PRIO_PROCESS, 0))
    facts["method"] = str(multiprocessing.get_start_method(allow_none=True))
    facts["main"] = str(getattr(sys.modules["__main__"], "__file__", None))
    facts["pytest"] = str("pytest" in sys.modules)
    facts["environment"] = ",".join(sorted(name for name in os.environ if name.startswith(("NOTIFY", "WATCHDOG", "LISTEN", "MALLOC"))))
    facts["cards"] = os.environ["CUDA_VISIBLE_DEVICES"]
    facts["threads"] = os.environ["OMP_NUM_THREADS"]
    facts["sigint"] = str(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)
    return "\n".join(f"{name}={value}" for name, value in facts.items())
