"""What a confined child may change, tried in processes of their own: its part of the state directory, and nothing beside it."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from cryptod.store.candles import CandleStore
from cryptod.worker.child import RUNNERS

TRY = """
import os, socket, sys
from pathlib import Path
from cryptod.worker.confinement import confine, rights_of

kind, state, port = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
confined = confine(rights_of(kind, str(state)))

def tried(name, deed):
    try:
        deed()
    except OSError as error:
        print(name, type(error).__name__)
    else:
        print(name, "done")

print("confined", confined)
for part in ("candles", "serving", "checkpoints", "backup", "."):
    tried(f"make {part}", (state / part / "new").touch)
    tried(f"change {part}", lambda: (state / part / "old").write_bytes(b"changed"))
    tried(f"cut {part}", lambda: os.truncate(state / part / "old", 0))
    tried(f"remove {part}", (state / part / "old").unlink)
tried("rename", lambda: os.rename(state / "serving", state / "gone"))
tried("carry off", lambda: os.rename(state / "serving" / "kept", state / "candles" / "kept"))
tried("elsewhere", (state.parent / "elsewhere").touch)
tried("read", (state / "serving" / "kept").read_bytes)
tried("lock", lambda: os.close(os.open(state / "candles" / "lock.mdb", os.O_RDWR)))
tried("null", lambda: Path(os.devnull).write_bytes(b"x"))
tried("connect", lambda: socket.create_connection(("127.0.0.1", port), 2).close())
"""
MAY = {
    "collect": {"candles", "connect"},
    "train": {"checkpoints"},
    "backup": {"backup"},
    "score": set[str](),
    "report": set[str](),
}


def _landlock() -> int:
    return int(ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1))


@pytest.mark.skipif(_landlock() < 4, reason="this kernel has no Landlock, or none that knows TCP")
@pytest.mark.parametrize("kind", RUNNERS)
def test_a_child_changes_its_own_part_of_the_state_only(kind: str, tmp_path: Path) -> None:
    import socket

    state = tmp_path / "state"
    for part in ("candles", "serving", "checkpoints", "backup"):
        (state / part).mkdir(parents=True)
        (state / part / "old").write_bytes(b"old")
        (state / part / "kept").write_bytes(b"kept")
        (state / part / "lock.mdb").touch()
    (state / "old").write_bytes(b"old")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-c", TRY, kind, str(state), str(listener.getsockname()[1])]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = dict(line.rsplit(" ", 1) for line in said.splitlines())
    assert found.pop("confined") == "True"
    assert {name for name in ("read", "lock", "null") if found.pop(name) != "done"} == set()
    done = {name.split()[-1] for name, fate in found.items() if fate == "done"}
    assert done == MAY[kind]
    assert all(found[f"{deed} {part}"] == "done" for part in MAY[kind] - {"connect"} for deed in ("make", "change", "cut", "remove"))
    assert (state / "serving" / "kept").read_bytes() == b"kept"
    assert not (tmp_path / "elsewhere").exists()


def test_a_child_that_is_started_before_there_is_a_store_can_read_it_later(tmp_path: Path) -> None:
    """A trainer loads torch while the first candles come in: the store that it will read is not there yet."""
    reader = """
import sys
from pathlib import Path
from cryptod.worker.confinement import confine, rights_of
confine(rights_of("train", sys.argv[1]))
print("confined", flush=True)
sys.stdin.readline()
from cryptod.store.candles import CandleStore
with CandleStore.open(Path(sys.argv[1]) / "candles") as store:
    print(store.facts("universe"))
"""
    command = [sys.executable, "-c", reader, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == "confined\n"
        with CandleStore.open(tmp_path / "candles", writer=True) as store:
            store.set_facts("universe", {"symbols": ["BTC/USDT"]})
            child.stdin.write("\n")
            child.stdin.flush()
            assert child.stdout.read() == "{'symbols': ['BTC/USDT']}\n"
    assert child.returncode == 0


def test_where_the_kernel_has_no_landlock_a_child_goes_on_unconfined(tmp_path: Path) -> None:
    """A filter of system calls stands for such a kernel: it answers that there is no such call."""
    none = """
from cryptod.worker import confinement
confinement._CREATE_RULESET = 100_000
assert not confinement.confine(confinement.rights_of("train", {state!r}))
open({file!r}, "w").close()
"""
    file = tmp_path / "file"
    subprocess.run([sys.executable, "-c", none.format(state=str(tmp_path), file=str(file))], check=True)
    assert file.exists()
