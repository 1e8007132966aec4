"""The manual pages: complete, and sound for those who set them; completion: asked for with the Tab key of real shells."""

from __future__ import annotations

import gzip
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import completion
import manual
from cryptod.daemon.monitor import CONDITIONS
from cryptod.settings import SETTINGS
from ctl.main import VERBS
from roff import Page
from tests.test_ctl_main import Daemon

BIN = Path(sys.executable).parent


def needs(tool: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("man")
    manual.main(folder)
    packed = {path.name.removesuffix(".gz"): path for path in folder.rglob("*.gz")}
    for path in packed.values():
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    return {name: path.with_suffix("") for name, path in packed.items()}


def shown(page: Path) -> str:
    """A page as `man` would show it on a wide terminal, without what overstrikes."""
    groff = ["groff", "-man", "-Tutf8", "-Kutf8", "-P-cbou", "-rLL=400n", "-rHY=0", str(page)]
    return subprocess.run(groff, capture_output=True, text=True, check=True).stdout


def test_the_pages_are_three(pages: dict[str, Path]) -> None:
    assert {path.parent.name: name for name, path in pages.items()} == {
        "man1": "cryptoctl.1",
        "man5": "cryptod.toml.5",
        "man8": "cryptod.8",
    }


@needs("groff")
def test_groff_has_nothing_to_say_of_them(pages: dict[str, Path]) -> None:
    for page in pages.values():
        done = subprocess.run(["groff", "-man", "-Tutf8", "-Kutf8", "-ww", "-z", str(page)], capture_output=True, text=True)
        assert done.stderr == "", page.name
        assert done.returncode == 0


@needs("mandoc")
def test_mandoc_has_nothing_to_say_of_them(pages: dict[str, Path]) -> None:
    done = subprocess.run(["mandoc", "-T", "lint", *map(str, pages.values())], capture_output=True, text=True)
    assert done.stdout + done.stderr == ""


@needs("groff")
def test_every_verb_key_and_condition_is_on_its_page(pages: dict[str, Path]) -> None:
    control, settings, daemon = (shown(pages[name]) for name in ("cryptoctl.1", "cryptod.toml.5", "cryptod.8"))
    assert [words for words in VERBS if not re.search(rf"^ +{words}$", control, re.MULTILINE)] == []
    for setting in SETTINGS.values():
        assert re.search(rf"^ +{setting.name} = ", settings, re.MULTILINE), setting.path
        assert setting.variable in settings
    assert [row.name for row in CONDITIONS if not re.search(rf"^ +{row.name}( +\(|$)", daemon, re.MULTILINE)] == []
    assert "cryptod simulate [--coins N]" in daemon


@needs("groff")
def test_text_that_looks_like_roff_is_shown_as_it_is(tmp_path: Path) -> None:
    page = Page("odd", 7, what="a page", date="2024-01-01", source="x", manual="y")
    page.heading("Odd")
    page.paragraph(r".hidden \fBnot bold\fR 'quoted' `--flag` well-known -5 ~ ^")
    path = tmp_path / "odd.7"
    path.write_text(page.text)
    assert r".hidden \fBnot bold\fR 'quoted' --flag well-known -5 ~ ^" in shown(path)


# -------------------------------------------------------------------------------------------------------------- completion


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completion")
    for shell in completion.SHELLS:
        completion.write(shell, folder / shell)
    return folder


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that follows BTC/USDT, ABC/USDT and NEW/USDT."""
    served = Daemon(tmp_path_factory.mktemp("daemon") / "s.sock")
    yield served
    served.close()


def environ(socket: Path) -> dict[str, str]:
    """A shell's, without the second after which a daemon on a busy machine is not waited for any more."""
    root, patient = Path(__file__).parent.parent, socket.parent / "patient"
    patient.mkdir(exist_ok=True)
    (patient / "timeout").write_text('#!/bin/sh\nshift\nexec "$@"\n')
    (patient / "timeout").chmod(0o755)
    return {
        "PATH": f"{patient}:{BIN}:/usr/bin:/bin",
        "CRYPTOD_SOCKET": str(socket),
        "TERM": "dumb",
        "HOME": "/nonexistent",
        "PYTHONPATH": str(root),
    }


BASH = """
source "$1"; COMP_WORDS=("${@:2}"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _$2; printf '%s\\n' "${COMPREPLY[@]}"
"""


def bash(scripts: Path, socket: Path, *words: str) -> list[str]:
    """What bash would offer for the last of the words."""
    script = scripts / "bash" / words[0]
    done = subprocess.run(["bash", "-uc", BASH, "-", str(script), *words], capture_output=True, text=True, env=environ(socket), timeout=30)
    assert done.stderr == ""
    return done.stdout.split()


def fish(scripts: Path, socket: Path, *words: str) -> list[str]:
    line = " ".join(words)
    script = f'source {scripts}/fish/{words[0]}.fish; complete -C "{line}"'
    done = subprocess.run(["fish", "-N", "-c", script], capture_output=True, text=True, env=environ(socket), timeout=30)
    assert done.stderr == ""
    return [found.split("\t")[0] for found in done.stdout.splitlines()]


Shell = Callable[..., list[str]]
SHELLS = [
    pytest.param(bash, id="bash", marks=needs("bash")),
    pytest.param(fish, id="fish", marks=needs("fish")),
]


@pytest.mark.parametrize("shell", SHELLS)
def test_verbs_their_parts_options_and_choices_are_offered(shell: Shell, scripts: Path, tmp_path: Path) -> None:
    def offered(*words: str) -> list[str]:
        return sorted(shell(scripts, tmp_path / "none", *words))

    assert set(offered("cryptoctl", "")) >= {words.split()[0] for words in VERBS}
    assert offered("cryptoctl", "sche") == ["schedule"]
    assert set(offered("cryptoctl", "models", "")) == {words.split()[1] for words in VERBS if words.startswith("models ")}
    assert offered("cryptoctl", "schedule", "") == ["pause", "resume", "run"]
    assert offered("cryptoctl", "symbols", "a") == ["add"]
    assert offered("cryptoctl", "schedule", "pause", "") == ["full", "incremental", "pregenerate"]
    assert offered("cryptoctl", "events", "co") == ["coins", "conditions"]
    assert "--names" in offered("cryptoctl", "symbols", "--")
    assert offered("cryptoctl", "symbols", "add", "--fo") == ["--follow"]
    assert "--horizon" in offered("cryptoctl", "top", "--")
    assert offered("cryptoctl", "models", "rollback", "--st") == ["--steps"]
    assert offered("cryptoctl", "top", "--by", "vol") == ["volatility"]
    assert offered("cryptoctl", "train", "inc") == ["incremental"]
    assert offered("cryptod", "check") == ["check-config"]
    assert offered("cryptod", "simulate", "--histo") == ["--history-days"]


@pytest.mark.parametrize("shell", SHELLS)
def test_coins_are_the_daemons(shell: Shell, scripts: Path, daemon: Daemon) -> None:
    assert sorted(shell(scripts, daemon.path, "cryptoctl", "get", "")) == ["ABC/USDT", "BTC/USDT", "NEW/USDT"]
    assert shell(scripts, daemon.path, "cryptoctl", "plot", "BT") == ["BTC/USDT"]
    assert shell(scripts, daemon.path, "cryptoctl", "export", "candles", "BT") == ["BTC/USDT"]


@pytest.mark.parametrize("shell", SHELLS)
def test_without_a_daemon_no_coins_are_offered_and_nothing_is_said(shell: Shell, scripts: Path, tmp_path: Path) -> None:
    assert shell(scripts, tmp_path / "none", "cryptoctl", "get", "BT") == []


@needs("bash")
def test_bash_takes_the_socket_from_the_line_and_coins_in_small_letters(scripts: Path, daemon: Daemon, tmp_path: Path) -> None:
    nobody = tmp_path / "none"
    assert bash(scripts, nobody, "cryptoctl", "--socket", str(daemon.path), "get", "bt") == ["BTC/USDT"]
    assert bash(scripts, nobody, "cryptoctl", "--socket", "=", str(daemon.path), "cache", "clear", "ABC/USDT", "ne") == ["NEW/USDT"]
    assert bash(scripts, nobody, "cryptoctl", "scores", "--window", "=", "9") == ["90d"]


TAB = {
    "bash": ("bash --norc --noprofile -i", "source {scripts}/bash/cryptoctl"),
    "zsh": ("zsh -f -i", "fpath=({scripts}/zsh $fpath); autoload -U compinit; compinit -u -D"),
}


@pytest.mark.parametrize("shell", [pytest.param(name, marks=needs(name)) for name in TAB])
def test_the_tab_key_completes_what_is_typed_at_a_prompt(shell: str, scripts: Path, daemon: Daemon) -> None:
    start, setup = TAB[shell]
    master, slave = pty.openpty()
    process = subprocess.Popen(
        start.split(), stdin=slave, stdout=slave, stderr=slave, env=environ(daemon.path) | {"PS1": "ready> "}, start_new_session=True
    )
    os.close(slave)
    said = ""

    def until(pattern: str) -> None:
        nonlocal said
        deadline = time.monotonic() + 60
        while not re.search(pattern, said, re.DOTALL):
            assert time.monotonic() < deadline, said
            if select.select([master], [], [], 0.1)[0]:
                said += os.read(master, 4096).decode(errors="replace")

    try:
        until("ready> ")
        os.write(master, setup.format(scripts=scripts).encode() + b"; echo set-$((6 * 7))\n")
        until("set-42.*ready> ")
        said = ""
        os.write(master, b"cryptoctl plo\t bt\t")
        until("plot .*BTC/USDT")
    finally:
        process.kill()
        process.wait()
        os.close(master)
