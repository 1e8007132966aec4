"""The Containerfile as a text: what it copies is there, what it sets is known, and it ends as an ordinary user's daemon."""

from __future__ import annotations

import re
from pathlib import Path

from cryptod.config import NOT_SETTINGS, load
from cryptod.places import user
from cryptod.settings import VARIABLES
from tests.container.builder import CONTAINERFILE, CONTEXT, Builder, steps


def test_what_it_copies_is_there_and_nothing_that_the_package_needs_is_left_out() -> None:
    copied = [
        name for word, rest in steps(CONTAINERFILE.read_text()) if word == "COPY" and "--from" not in rest for name in rest.split()[:-1]
    ]
    assert [name for name in copied if not (CONTEXT / name).exists()] == []
    wanted = set(re.findall(r"(?:packaging|etc)/[\w.-]+", (CONTEXT / "Makefile").read_text()))
    assert {name.partition("/")[0] for name in wanted} <= set(copied)
    assert {"cryptod", "ctl", "models", "Makefile", "pyproject.toml", "README.md", "LICENSE"} <= set(copied)


def test_the_daemon_finds_its_folders_by_what_the_image_sets(tmp_path: Path) -> None:
    image = Builder(tmp_path, {}).build(only_read=True)
    ours = {name: value for name, value in image.environ.items() if name.startswith("CRYPTOD_")}
    assert set(ours) <= set(VARIABLES) | set(NOT_SETTINGS)
    del ours["CRYPTOD_CONFIG"]  # which is not on this machine
    config = load(None, ours, user({"HOME": "/"}, 10001)).config
    assert config.storage.directory == "/var/lib/cryptod" == image.volumes[0]
    assert config.socket.path == image.environ["CRYPTOD_SOCKET"]
    assert image.user.split(":")[0] not in ("", "0", "root")
    assert [*image.entrypoint, *image.command] == ["/usr/bin/cryptod", "run"]
