"""A box: a real systemd as PID 1 in namespaces of its own, over a throw-away overlay of this machine's root.

Nothing that is written inside reaches the machine. ``root`` is another system's root, whose systemd boots then.
``installed`` is a tree as ``make install DESTDIR=...`` makes it; the box shows it at its final place. The box has its own network
with loopback only, its own processes, users (the machine's, until it changes them), cgroups and journal. Needs root; `missing` says
what else.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

SYSTEMD = Path("/lib/systemd/systemd")
CGROUPS = Path("/sys/fs/cgroup")
CGROUP2 = CGROUPS / "cgroup.controllers"
"""There when the machine has version 2 of cgroups only."""
HIERARCHIES = ("systemd", "unified", "memory", "pids", "cpu", "cpuacct", "blkio", "devices")
"""Of version 1, those in which systemd makes cgroups."""

BOOT = r"""
set -e
mount --make-rprivate /
[ "$ROOT" != / ] || mount -t tmpfs tmpfs "$BOX"  # what is written into another root may be a large package
mkdir "$BOX"/upper "$BOX"/work "$BOX"/root
mount -t overlay overlay -o "lowerdir=$ROOT,upperdir=$BOX/upper,workdir=$BOX/work" "$BOX/root"
cd "$BOX/root"
if [ -n "$INSTALLED" ]; then
    # Large and read: an overlay of its own (a layer may not lie within another). Small: copied.
    mkdir -p "$BOX"/opt-upper "$BOX"/opt-work opt/cryptod
    mount -t overlay overlay -o "lowerdir=$INSTALLED/opt/cryptod,upperdir=$BOX/opt-upper,workdir=$BOX/opt-work" opt/cryptod
    (cd "$INSTALLED" && tar c --exclude=./opt .) | tar x --no-overwrite-dir
fi
mount -t proc proc proc
mount --rbind /dev dev
mount -t sysfs sysfs sys
for folder in run tmp var/tmp var/log; do mount -t tmpfs -o mode=1777 tmpfs "$folder"; done
chmod 755 run var/log
if [ "$CGROUPS" = 2 ]; then
    mount -t cgroup2 cgroup2 sys/fs/cgroup
else
    mount -t tmpfs tmpfs sys/fs/cgroup
    mkdir sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
    for controller in memory pids cpu; do
        mkdir "sys/fs/cgroup/$controller"
        mount -t cgroup -o "$controller" cgroup "sys/fs/cgroup/$controller" || rmdir "sys/fs/cgroup/$controller"
    done
fi
ip link set lo up 2>/dev/null || python3 -c '
import fcntl, socket, struct
with socket.socket() as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sh", b"lo", 0x49))'
mkdir old
pivot_root . old
umount -l /old
exec chroot . /lib/systemd/systemd --system --show-status=0 --log-target=journal --unit=multi-user.target </dev/null
"""


def missing() -> str:
    """Why no box can be had on this machine; empty when one can."""
    if os.geteuid() != 0:
        return "a box with systemd needs root"
    if not SYSTEMD.exists():
        return "systemd is not installed"
    for tool in ("unshare", "nsenter", "mount", "pivot_root", "chroot", "tar", "bash"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    probe = """mount --make-rprivate / && mount -t tmpfs t /mnt && mkdir /mnt/u /mnt/w
        mount -t overlay o -o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w /mnt"""
    namespaces = ["unshare", "--pid", "--mount", "--net", "--cgroup", "--fork"]
    tried = subprocess.run([*namespaces, "bash", "-c", probe], capture_output=True, text=True)
    return f"no namespaces or overlays here: {tried.stderr.strip()[-200:]}" if tried.returncode else ""


class Box:
    """``with Box(installed) as box: box.run("systemctl start cryptod")``. Booting takes two to four seconds."""

    def __init__(self, installed: Path | None = None, *, root: Path = Path("/"), patience: float = 60.0) -> None:
        self.installed = installed
        self.root = root
        self.patience = patience
        """Seconds that it may take to come up."""
        self.folder = Path()
        self.outer: subprocess.Popen[bytes] | None = None
        self.init = 0
        """PID of the box's systemd, as the machine sees it."""

    def __enter__(self) -> Box:
        self.folder = Path(tempfile.mkdtemp(prefix="cryptod-box-", dir="/var/tmp"))
        environ = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "BOX": str(self.folder),
            "ROOT": str(self.root),
            "INSTALLED": str(self.installed or ""),
            "CGROUPS": "2" if CGROUP2.exists() else "1",
            "container": "cryptod-box",
            # From release 256 on systemd uses version 1 only where its command line insists.
            "SYSTEMD_PROC_CMDLINE": "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1",
        }
        namespaces = ["unshare", "--pid", "--mount", "--uts", "--ipc", "--net", "--cgroup", "--fork", "--kill-child", "bash", "-c", BOOT]
        # Cgroups of its own become the roots of what the box sees: the machine's own are not touched.
        joins = ""
        for group in self._groups():
            group.mkdir()
            joins += f"echo $$ > {group}/cgroup.procs; "
        namespaces = ["bash", "-c", joins + 'exec "$@"', "-", *namespaces]
        with open(self.folder.with_suffix(".log"), "wb") as log:
            self.outer = subprocess.Popen(namespaces, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + self.patience
        state = ""
        while time.monotonic() < deadline and self.outer.poll() is None:
            self.init = self.init or self._find_init()
            state = self._enter("systemctl is-system-running").stdout.strip() if self.init else ""
            if state in ("running", "degraded"):
                return self
            time.sleep(0.1)
        log_text = self.folder.with_suffix(".log").read_text(errors="replace")[-2000:]
        self.close()
        raise RuntimeError(f"the box did not come up ({state or 'no systemd'}): {log_text}")

    def _groups(self) -> list[Path]:
        """The box's cgroup in each hierarchy that it uses: the one of version 2, or those of version 1 that are there."""
        if CGROUP2.exists():
            return [CGROUPS / self.folder.name]
        return [CGROUPS / name / self.folder.name for name in HIERARCHIES if (CGROUPS / name / "cgroup.procs").exists()]

    def _find_init(self) -> int:
        assert self.outer is not None
        try:
            children = Path(f"/proc/{self.outer.pid}/task/{self.outer.pid}/children").read_text().split()
            # Before the exec of systemd the child is still bash, and in the machine's root.
            return int(children[0]) if children and Path(f"/proc/{children[0]}/comm").read_text().strip() == "systemd" else 0
        except FileNotFoundError:
            return 0

    def _enter(self, command: str, *, user: str = "", timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        enter = ["nsenter", "-t", str(self.init), "-a", "--"]
        if user:
            enter += ["runuser", "-u", user, "--"]
        environ = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "SYSTEMD_PAGER": "",
            "HOME": "/",
        }
        return subprocess.run(
            [*enter, "bash", "-c", command], env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout
        )

    def run(self, command: str, *, check: bool = True, user: str = "", timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Runs a shell command inside, as ``user`` if named; its output is returned. ``check``: it must end with 0."""
        done = self._enter(command, user=user, timeout=timeout)
        if check and done.returncode != 0:
            raise AssertionError(f"`{command}` ended with {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        return done

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.run(f"systemctl show {unit} -P {name}").stdout.strip()

    def write(self, path: str, text: str) -> None:
        """Writes a file inside."""
        target = Path(f"/proc/{self.init}/root") / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def wait(self, command: str, *, seconds: float = 20.0) -> str:
        """Repeats a command until it ends with 0, and returns its output."""
        deadline = time.monotonic() + seconds
        while (done := self.run(command, check=False)).returncode != 0:
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"after {seconds:g} s `{command}` still ends with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
                )
            time.sleep(0.1)
        return done.stdout

    def journal(self, unit: str = "cryptod") -> str:
        return self.run(f"journalctl -u {unit} --no-pager -o cat").stdout

    def close(self) -> None:
        """Ends everything inside and removes the box."""
        if self.outer is not None:
            if self.init:
                try:
                    os.kill(self.init, signal.SIGKILL)  # PID 1 of the namespace: all others end with it
                except ProcessLookupError:
                    pass
            try:
                self.outer.wait(10)  # until its last process is gone, and with it its mounts and cgroups
            except subprocess.TimeoutExpired:
                self.outer.kill()
                self.outer.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.with_suffix(".log").unlink(missing_ok=True)
        for group in self._groups():
            for nested in sorted(group.rglob("*/"), reverse=True):
                nested.rmdir()
            if group.exists():
                group.rmdir()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
