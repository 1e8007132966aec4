"""Inside the unit's own sandbox: what the daemon and its children must be able to do, and what they must not."""

import re
import textwrap
from pathlib import Path

import pytest

from tests.systemd.box import Box

WORK = """
import mmap, multiprocessing, os, psutil, socket, sys, tempfile

def child(pipe):
    import torch
    os.setpriority(os.PRIO_PROCESS, 0, 19)
    psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("900")
    torch.set_num_threads(2)
    # What training consists of. Not GELU, softmax or LayerNorm: torch hands those to oneDNN, which writes machine code.
    weights = [torch.randn(shape, requires_grad=True) for shape in ((40, 64), (64, 24))]
    for _ in range(3):
        hidden = torch.nn.functional.dropout(torch.nn.functional.silu(torch.randn(512, 40) @ weights[0]), 0.1)
        loss = torch.nn.functional.huber_loss((hidden @ weights[1]).clip(-3, 3), torch.randn(512, 24))
        for weight, gradient in zip(weights, torch.autograd.grad(loss, weights)):
            weight.data -= 0.01 * gradient
    pipe.send(float(loss))

if __name__ == "__main__":
    import ccxt, lmdb, numpy
    state = os.environ["STATE_DIRECTORY"]
    with lmdb.open(state + "/probe", map_size=1 << 30) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"k", b"v")
    numpy.linalg.svd(numpy.random.default_rng(1).normal(size=(200, 200)))
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(target=child, args=(theirs,))
    process.start()
    theirs.close()
    print("loss", ours.recv())
    process.join()
    assert process.exitcode == 0, process.exitcode
    psutil.virtual_memory(), psutil.Process().memory_full_info(), psutil.cpu_times()
    socket.getaddrinfo("localhost", 80)
    socket.create_server(("127.0.0.1", 0)).close()
    print("worked")
"""

TRESPASS = """
import ctypes, mmap, os, socket

def refused(what, act):
    try:
        act()
    except OSError as error:
        print("refused", what, error.errno)
    else:
        print("ALLOWED", what)

libc = ctypes.CDLL(None, use_errno=True)
def mount():
    if libc.mount(b"none", b"/tmp", b"tmpfs", 0, None):
        raise OSError(ctypes.get_errno(), "mount")

refused("write /usr", lambda: open("/usr/x", "w"))
refused("write /etc", lambda: open("/etc/cryptod/cryptod.toml", "a"))
refused("write its own code", lambda: open("/opt/cryptod/x", "w"))
refused("list /root", lambda: os.listdir("/root"))
refused("read /etc/shadow", lambda: open("/etc/shadow"))
refused("see init", lambda: os.listdir("/proc/1"))
refused("raise priority", lambda: os.setpriority(os.PRIO_PROCESS, 0, -5))
refused("packet socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
refused("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
refused("write and execute", lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC))
refused("mount", mount)
refused("setuid", lambda: os.setuid(0))
refused("set-user-id file", lambda: (open("/tmp/s", "w").close(), os.chmod("/tmp/s", 0o4755)))
print("users", os.getuid() != 0, os.getgroups())
"""

pytestmark = pytest.mark.systemd


def inside(box: Box, script: str) -> str:
    """Runs a script where the unit runs the daemon: its user, its folders, its sandbox, its installed Python."""
    box.write("/opt/probe/probe.py", textwrap.dedent(script))
    box.write(
        "/run/systemd/system/cryptod.service.d/probe.conf",
        "[Service]\nType=oneshot\nWatchdogSec=0\nRestart=no\nExecStart=\nExecStart=/opt/cryptod/bin/python /opt/probe/probe.py\n",
    )
    box.run("systemctl daemon-reload; journalctl --rotate -q; journalctl --vacuum-time=1s -q")
    try:
        ended = box.run("systemctl start cryptod.service", check=False, timeout=120)
        log = box.journal()
        assert ended.returncode == 0, log
        return log
    finally:
        box.run("rm -r /run/systemd/system/cryptod.service.d; systemctl daemon-reload")
        box.run("systemctl stop cryptod.socket cryptod; systemctl reset-failed")


def test_training_collecting_and_storing_work_under_the_hardening(box: Box) -> None:
    assert "worked" in inside(box, WORK)


def test_what_the_service_has_no_business_with_is_refused(box: Box) -> None:
    log = inside(box, TRESPASS)
    assert "ALLOWED" not in log
    assert log.count("refused ") == TRESPASS.count("\nrefused("), log
    assert re.search(r"users True \[\d+\]", log)


def test_the_units_are_sound_once_they_are_installed(box: Box) -> None:
    verified = box.run("systemd-analyze verify cryptod.service cryptod.socket 2>&1")
    assert "cryptod" not in verified.stdout, verified.stdout


def test_the_user_has_no_shell_no_home_of_its_own_and_no_other_group(box: Box) -> None:
    name, _, uid, _, _, home, shell = box.run("getent passwd cryptod").stdout.strip().split(":")
    assert (name, home, shell) == ("cryptod", "/var/lib/cryptod", "/usr/sbin/nologin")
    assert int(uid) > 0
    assert box.run("id -Gn cryptod").stdout.split() == ["cryptod"]


def test_what_is_installed_knows_nothing_of_the_place_where_it_was_put_together(installed: Path, box: Box) -> None:
    for script in ("cryptod", "cryptoctl"):
        assert (installed / "opt/cryptod/bin" / script).read_text().startswith("#!/opt/cryptod/bin/python\n")
        assert (installed / "usr/local/bin" / script).readlink() == Path(f"/opt/cryptod/bin/{script}")
    found = box.run(f"grep -rIl --exclude=direct_url.json {installed} /opt/cryptod /etc/cryptod || true").stdout
    assert found == ""
    assert "batch_size = 25" in box.run("cryptod check-config", user="cryptod").stdout
