"""`make test-fresh`: what the README promises, on a Debian that has just been installed and with nothing but the package index.

Builds a root of Debian from its own archive and, in it, does what a new user does: `make demo`, `make test`, `make deb`, and, in a booted
systemd, the README's five minutes with the package. Needs root, a Debian beside it (for mmdebstrap and the archive's address) and about
25 GB; runs for half an hour on two idle cores, and longer where pip brings the torch for graphics cards. The standard library is enough.

The machine's own wheels, local indexes and constraints stay outside: `pip_settings` says what comes along.
"""

from __future__ import annotations

import argparse
import ast
import configparser
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Final

from tests.systemd import five_minutes
from tests.systemd.box import Box, missing

ROOT: Final = Path(__file__).parent.parent.parent
RELEASES: Final = {"12": "bookworm", "13": "trixie"}
PACKAGES: Final = ("ca-certificates", "dbus", "make", "man-db", "python3", "python3-venv", "sudo", "systemd-sysv")
"""Beside Debian's own choice for every machine: what the README asks for, and what a server has anyway."""
CHECKOUT: Final = "/srv/cryptod"
WHEELS: Final = "/srv/wheels"
FREE_GB: Final = 25
KEPT_SETTINGS: Final = ("cert", "client-cert", "default-timeout", "index-url", "proxy", "retries", "timeout", "trusted-host")
"""What pip is told about the way to its index; `extra-index-url` comes along for what is not on this disk."""
PROXIES: Final = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
ENTER: Final = r"""
mount --make-rprivate /
mount --bind "$ROOT" "$ROOT"
mount -t proc proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"
mount --rbind /sys "$ROOT/sys"
mount -t tmpfs -o mode=755 tmpfs "$ROOT/run"
cd "$ROOT"
pivot_root . mnt
umount -l /mnt
exec chroot . "$@"
"""


class Failed(Exception):
    """A step did not do what it promises."""


# ------------------------------------------------------------------------------------------------ what the machine lends


def archive() -> str:
    """The address of Debian's archive, from this machine's own sources."""
    codename = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.M)
    folder = Path("/etc/apt/sources.list.d")
    texts = [path.read_text() for path in (Path("/etc/apt/sources.list"), *sorted(folder.glob("*.list"))) if path.exists()]
    found = re.findall(r"^\s*deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+main\b", "\n".join(texts), re.M)
    for path in sorted(folder.glob("*.sources")):
        for block in re.split(r"\n\s*\n", path.read_text()):
            fields = dict(re.findall(r"^(\w[\w-]*):[ \t]*(.*)$", block, re.M))
            found += [(url, suite) for url in fields.get("URIs", "").split() for suite in fields.get("Suites", "").split()]
    for url, suite in found:
        if codename and suite == codename[1] and url.startswith("http"):
            return str(url)
    raise Failed("this machine's apt knows no archive of Debian (make test-fresh ARCHIVE=...)")


def pip_settings(said: str) -> dict[str, str]:
    """What `pip config list` said that concerns the way to the index, and nothing that lies on this machine's disk."""
    kept = {}
    for name, value in re.findall(r"^[\w:]+\.([\w-]+)=(.*)$", said, re.M):
        text = str(ast.literal_eval(value))
        if name in KEPT_SETTINGS:
            kept[name] = text
        elif name == "extra-index-url":
            remote = [url for url in text.split() if not url.startswith(("file:", "/"))]
            if remote:
                kept[name] = " ".join(remote)
    return kept


def pip_says() -> str:
    """`pip config list` of whichever Python has a pip."""
    for python in dict.fromkeys((sys.executable, shutil.which("python3") or "python3")):
        done = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout
    return ""


def checkout() -> list[str]:
    """The files of this checkout: git's where there is one, else all but what was made."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        done = None
    if done is not None and done.returncode == 0:
        return sorted(name for name in done.stdout.split("\0") if name and (ROOT / name).exists())
    made = [".git", *(line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split())]
    kept = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
    return sorted(str(path) for path in kept if not any(fnmatch(part, name) for part in path.parts[:-1] for name in made))


# ------------------------------------------------------------------------------------------------ the root


class Debian:
    """A root of a Debian release in ``folder``, made anew if it is not there."""

    def __init__(self, release: str, folder: Path) -> None:
        self.release, self.folder = release, folder

    def make(self, address: str) -> None:
        """Debian from its archive, and this machine's certificates and name servers."""
        if shutil.which("mmdebstrap") is None:
            subprocess.run("apt-get update -q && apt-get install -qy --no-install-recommends mmdebstrap", shell=True, check=True)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        made = ["mmdebstrap", "--variant=important", f"--include={','.join(PACKAGES)}", RELEASES[self.release], str(self.folder), address]
        subprocess.run(made, check=True)
        shutil.copy("/etc/resolv.conf", self.folder / "etc/resolv.conf")
        for certificate in Path("/usr/local/share/ca-certificates").glob("*.crt"):
            shutil.copy(certificate, self.folder / "usr/local/share/ca-certificates")
        self.run("update-ca-certificates")

    def lay(self, wheel: Path | None) -> None:
        """This checkout as it is now, pip's way to its index, and a wheel of torch if one is wanted."""
        target = self.folder / CHECKOUT.lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        for entry in target.iterdir():  # of an earlier run: what was made stays, so that a step can be repeated
            if entry.name not in (".venv", "dist"):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        for name in checkout():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
        settings = configparser.ConfigParser(interpolation=None)
        settings["global"] = pip_settings(pip_says())
        wheels = self.folder / WHEELS.lstrip("/")
        shutil.rmtree(wheels, ignore_errors=True)
        if wheel is not None:
            wheels.mkdir(parents=True)
            shutil.copy(wheel, wheels)
            settings["global"]["find-links"] = WHEELS
        with (self.folder / "etc/pip.conf").open("w") as file:
            settings.write(file)

    def run(self, command: str) -> str:
        """Run a shell command in the checkout, with this machine's network; what it prints is shown and returned. `Failed` if it fails."""
        environ = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
        environ |= {name: os.environ[name] for name in PROXIES if name in os.environ} | {"ROOT": str(self.folder)}
        namespaces = ["unshare", "--pid", "--mount", "--ipc", "--uts", "--fork", "--kill-child", "bash", "-ec", ENTER, "-"]
        shell = [*namespaces, "bash", "-c", f"mkdir -p {CHECKOUT} && cd {CHECKOUT} && {command}"]
        said = ""
        with subprocess.Popen(shell, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            assert process.stdout is not None
            try:
                for raw in process.stdout:
                    line = raw.decode(errors="replace")
                    print(line, end="", flush=True)
                    said += line
            except BaseException:
                process.kill()  # and with it everything inside
                raise
        if process.returncode != 0:
            raise Failed(f"`{command}` ended with {process.returncode}")
        return said


# ------------------------------------------------------------------------------------------------ the steps


def found(pattern: str, said: str) -> str:
    """What a command said about itself; `Failed` if it did not."""
    match = re.search(pattern, said)
    if match is None:
        raise Failed(f"nothing like {pattern!r} was said")
    return match[1]


def demo(debian: Debian, options: str) -> str:
    said = debian.run(f"make demo{options}")
    peak, trained = found(r"peak memory +(\d+ MiB)", said), found(r"from exec to here +([\d.]+ s)", said)
    return f"100 coins trained after {trained}, peak {peak}; .venv {disk_usage(debian, '.venv')}"


def test(debian: Debian, options: str) -> str:
    return found(r"=+ (\d+ passed.*?) in [\d.]+s", debian.run(f"make test{options}"))


def deb(debian: Debian, options: str) -> str:
    debian.run(f"make deb{options}")
    field = "for package in dist/cryptod_*.deb; do stat -c '%s bytes' $package; dpkg-deb -f $package Installed-Size Depends; done"
    said = debian.run(field)
    size, installed = int(found(r"(\d+) bytes", said)), int(found(r"Installed-Size: (\d+)", said))
    return f"{size / 1e6:.0f} MB, installed {installed * 1024 / 1e6:.0f} MB, {found(r'(python3 .*python3 [^,]*)', said)}"


def package(debian: Debian, options: str) -> str:
    """The README's five minutes, then a restart and a stop: clients must find the daemon after either."""
    with Box(root=debian.folder) as box:
        systemd = box.run("systemctl --version").stdout.split()[1]
        took = five_minutes.spend(box, lambda command: f"cd {CHECKOUT} && {command}")
        for command in ("restart", "stop"):
            box.run(f"systemctl {command} cryptod.service")
            box.run("cryptoctl ping && cryptoctl get BTC", user="nobody")
        size = box.run("du -sm /opt/cryptod").stdout.split()[0]
        box.run("apt-get purge -qy cryptod && test ! -e /opt/cryptod", timeout=five_minutes.SECONDS)
    return f"systemd {systemd}: a forecast of BTC {took:.0f} s after `apt install`; /opt/cryptod {size} MB"


STEPS: Final[dict[str, Callable[[Debian, str], str]]] = {"demo": demo, "test": test, "deb": deb, "package": package}


def disk_usage(debian: Debian, path: str) -> str:
    size = subprocess.run(["du", "-sm", str(debian.folder / CHECKOUT[1:] / path)], capture_output=True, text=True).stdout.split()[0]
    return f"{size} MB"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make test-fresh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--debian", choices=RELEASES, default="13")
    parser.add_argument("--steps", default=",".join(STEPS), help="some of them, in order (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where the root is made; one that is there already is used again")
    parser.add_argument("--keep", action="store_true", help="leave the root there")
    parser.add_argument("--archive", default="", help="Debian's archive (default: that of this machine)")
    parser.add_argument("--torch-wheel", type=Path, help="a wheel of torch that pip finds beside its index")
    parser.add_argument("--torch-index", help="handed to make as TORCH_INDEX; empty: pip's own index")
    return parser.parse_args()


def refuse(options: argparse.Namespace, folder: Path) -> str:
    """Why this machine cannot; empty if it can."""
    if reason := missing():
        return reason.replace("a box with systemd", "a root of Debian")
    if unknown := set(options.steps.split(",")) - set(STEPS):
        return f"there is no step {min(unknown)!r} (they are {', '.join(STEPS)})"
    if options.torch_wheel is not None and not options.torch_wheel.is_file():
        return f"there is no wheel {options.torch_wheel}"
    if shutil.which("mmdebstrap") is None and shutil.which("apt-get") is None:
        return "mmdebstrap is not installed, and this is no Debian that could install it"
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free / 1e9
    return "" if folder.exists() or free > FREE_GB else f"{folder.parent} has {free:.0f} GB free; {FREE_GB} GB may be needed"


def main() -> int:
    options = arguments()
    folder = (options.folder or Path(f"/var/tmp/cryptod-fresh-{options.debian}")).absolute()
    if reason := refuse(options, folder):
        print(f"make test-fresh: {reason}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    debian = Debian(options.debian, folder)
    variables = "" if options.torch_index is None else f" TORCH_INDEX={options.torch_index}"
    rows: list[str] = []
    failed = ""

    def timed(name: str, work: Callable[[], str]) -> None:
        began = time.monotonic()
        print(f"== Debian {options.debian}: {name}", flush=True)
        said = ""
        try:
            said = work()
        finally:
            rows.append(f"{name:8} {time.monotonic() - began:6.0f} s  {said or 'FAILED'}")

    def root() -> str:
        if not folder.exists():
            debian.make(options.archive or archive())
        debian.lay(options.torch_wheel)
        return debian.run("python3 --version; uname -m").replace("\n", " ").strip()

    try:
        timed("root", root)
        for step in options.steps.split(","):
            timed(step, partial(STEPS[step], debian, variables))
    except (Failed, AssertionError, RuntimeError, subprocess.SubprocessError) as error:
        failed = str(error)
    except KeyboardInterrupt:
        failed = "interrupted"
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    torch = options.torch_wheel.name if options.torch_wheel else options.torch_index or "as pip gives it"
    print(f"\n== Debian {options.debian}, torch {torch}: {'FAILED: ' + failed if failed else 'passed'}", *rows, sep="\n")
    if options.keep:
        print(f"the root is {folder}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
