"""A builder for machines that have none: a Containerfile's steps, run one after the other in roots that mmdebstrap makes.

Knows the instructions that ours uses, and refuses others. A base image ``debian:SUITE-slim`` is Debian's minimal system of that
suite. A step and the container that comes of it run as in podman: a root of their own, processes of their own, and a /dev without
/dev/shm; the network is the machine's. Needs root.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

CONTEXT = Path(__file__).resolve().parent.parent.parent
CONTAINERFILE = CONTEXT / "packaging/container/Containerfile"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
ENTER = r"""
set -e
root=$1 user=$2 folder=$3
shift 3
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 none "$root/dev"
for device in null zero full random urandom; do : > "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; done
ln -s /proc/self/fd "$root/dev/fd"
touch "$root/etc/resolv.conf" && mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
if [ -n "$LENT" ]; then
    mkdir -p "$root/lent"
    mount -t tmpfs none "$root/lent"
    for path in $LENT; do
        target="$root/lent/$(basename "$path")"
        if [ -d "$path" ]; then mkdir "$target"; else : > "$target"; fi
        mount --bind -o ro "$path" "$target"
    done
fi
unset LENT
exec chroot --userspec="$user" "$root" sh -c 'cd "$1" && shift && exec "$@"' - "$folder" "$@"
"""


class Step(NamedTuple):
    """One instruction and what stands after it."""

    word: str
    rest: str


def steps(text: str) -> Iterator[Step]:
    """The instructions of a Containerfile, in its order."""
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for line in filter(None, map(str.strip, lines.replace("\\\n", " ").splitlines())):
        word, _, rest = line.partition(" ")
        yield Step(word.upper(), rest.strip())


@dataclass
class Image:
    """A root and how it is run: a stage while it is built, the image in the end."""

    root: Path
    environ: dict[str, str] = field(default_factory=lambda: {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"})
    user: str = "0:0"
    folder: str = "/"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)

    def enter(self, arguments: list[str]) -> list[str]:
        """The command line that runs another in this root, as the first process of its own."""
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", ENTER, "-"]
        return [*namespaces, str(self.root), self.user, self.folder, *arguments]


def lent() -> tuple[dict[str, str], str]:
    """What a step may use of the machine to reach its package index: variables, and paths that are shown below /lent."""
    environ, paths = {}, []
    if CERTIFICATES.exists():
        environ["PIP_CERT"] = f"/lent/{CERTIFICATES.name}"
        paths.append(str(CERTIFICATES))
    links = os.environ.get("PIP_FIND_LINKS", "")
    if os.path.isdir(links):
        environ["PIP_FIND_LINKS"] = f"/lent/{os.path.basename(links)}"
        paths.append(links)
    for name in ("http_proxy", "https_proxy", "no_proxy", "PIP_INDEX_URL"):
        if name in os.environ:
            environ[name] = os.environ[name]
    return environ, " ".join(paths)


class Builder:
    """``build()``: the image of the last stage. ``arguments``: as `--build-arg`. Everything lies below ``folder``."""

    def __init__(self, folder: Path, arguments: dict[str, str]) -> None:
        self._folder, self._given = folder, arguments
        self._arguments: dict[str, str] = {}
        self._stages: dict[str, Image] = {}

    def build(self, containerfile: Path = CONTAINERFILE, *, only_read: bool = False) -> Image:
        """Carry out every step; with ``only_read`` none that changes a root, so that the image is known, and its root is empty."""
        image: Image | None = None
        for word, rest in steps(containerfile.read_text()):
            if word == "ARG":
                name, _, default = rest.partition("=")
                self._arguments[name] = self._given.get(name, default)
            elif word == "FROM":
                image = self._begin(rest, make=not only_read)
            elif image is None:
                raise ValueError(f"{word} stands before FROM")
            elif not (only_read and word in ("RUN", "COPY")):
                self._do(image, word, rest)
        assert image is not None
        return image

    def _begin(self, rest: str, *, make: bool) -> Image:
        base, _, name = self._filled(rest).partition(" AS ")
        suite = re.fullmatch(r"debian:(\w+)-slim", base)
        if suite is None:
            raise ValueError(f"no root can be made of {base}")
        image = self._stages[name] = Image(self._folder / (name or "image"))
        image.root.mkdir()
        if not make:
            return image
        tree = self._folder / f"{suite[1]}.tar"
        if not tree.exists():
            run(["mmdebstrap", "--variant=minbase", "--quiet", suite[1], str(tree)])
        run(["tar", "xf", str(tree), "-C", str(image.root), "--exclude=./dev/*"])
        return image

    def _do(self, image: Image, word: str, rest: str) -> None:
        if word == "RUN":
            extra, paths = lent()
            environ = image.environ | self._arguments | extra | {"LENT": paths, "DEBIAN_FRONTEND": "noninteractive"}
            run(image.enter(["sh", "-c", rest]), environ)
        elif word == "COPY":
            self._copy(image, rest)
        elif word == "ENV":
            name, _, value = self._filled(rest).partition("=")
            image.environ[name] = value
        elif word == "WORKDIR":
            image.folder = rest
            (image.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word == "USER":
            image.user = rest
        elif word == "VOLUME":
            image.volumes.append(rest)
        elif word == "ENTRYPOINT":
            image.entrypoint = json.loads(rest)
        elif word == "CMD":
            image.command = json.loads(rest)
        elif word != "STOPSIGNAL":
            raise ValueError(f"this builder does not know {word}")

    def _copy(self, image: Image, rest: str) -> None:
        *sources, target = shlex.split(rest)
        origin = CONTEXT
        if sources[0].startswith("--from="):
            origin = self._stages[sources.pop(0).removeprefix("--from=")].root
        place = image.root / os.path.join(image.folder, target).lstrip("/")
        for source in sources:
            path = origin / source.lstrip("/")
            if path.is_dir():
                left_out = shutil.ignore_patterns("__pycache__") if origin == CONTEXT else None
                shutil.copytree(path, place, symlinks=True, dirs_exist_ok=True, ignore=left_out)
            else:
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, place, follow_symlinks=False)

    def _filled(self, text: str) -> str:
        return re.sub(r"\$(\w+)", lambda found: self._arguments[found[1]], text)


def run(command: list[str], environ: dict[str, str] | None = None) -> None:
    """A step; `AssertionError` with its last words if it fails."""
    done = subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"{command[-1][:200]}\n{done.stdout[-3000:]}"
