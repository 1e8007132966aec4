"""The guide tells the truth: every command in it is run, every output is one that was printed, every table is made from the code's own.

One daemon stands behind all pages. An output is compared by its words: figures, times and the coins' order are of the day.
What needs systemd is run in a box by `tests/systemd/test_docs.py`. ``python tests/test_docs.py`` writes outputs and tables anew.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from cryptod import protocol
from cryptod.client import Client
from cryptod.config import load
from cryptod.replies import Forecast
from tests.integration.house import BIN, COINS, Daemon, SimulatedExchange, short_folder

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
HERE = ("cryptoctl", "cryptod", "python", "CRYPTOD_")
"""How the commands begin that are run beside the daemon of these tests."""
BOX = ("systemctl", "journalctl", "mv", "sed", "find", "systemd-tmpfiles", "cp")
"""How the commands begin that are run in a box with systemd: `tests/systemd/test_docs.py`."""
ELSEWHERE = {
    "make demo": "runs the README's session; slow, and watched by people",
    "make test": "is what runs this",
    "make install": "tests/systemd",
    "make deb": "make test-deb",
    "apt install": "make test-deb",
    "systemd-run": "make test-deb",
    "cryptod backtest": "tests/test_backtest.py; these candles are nobody's here",
    "python -m tests.bench": "tests/test_judge.py",
    "python -m pytest": "is what runs this",
    "cryptoctl train incremental --follow": "tests/systemd/test_docs.py",
    "cryptoctl restore": "tests/integration/test_backup.py: it wants the daemon stopped",
    "cryptoctl --instance": "tests/systemd/test_instances.py",
    "cryptoctl watch": "tests/integration/test_watch.py: it wants a terminal",
    "cryptoctl models rollback": "tests/systemd/test_docs.py: there is something to go back to",
}
"""Commands that are run by something else."""

MEASURED = {"scaling.svg"}
"""Pictures that `make figures` makes of what it measures: a checkout need not have them."""

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Step(NamedTuple):
    """One command of a page, and what the page says that it prints."""

    page: str
    block: int
    """Which of the page's blocks; those of one are typed one after the other."""
    command: str
    output: str

    @property
    def plain(self) -> str:
        """The command without the reasons after it and without sudo: whoever runs the tests may."""
        return re.sub(r"\s{2,}#.*", "", self.command).replace("sudo ", "").strip()

    def begins(self, *beginnings: str) -> bool:
        return self.plain.startswith(beginnings)

    @property
    def elsewhere(self) -> bool:
        return self.begins(*ELSEWHERE)


def blocks(language: str) -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for found in FENCE.finditer(page.read_text()):
            if found[1] == language:
                yield page.name, found[2]


def steps() -> Iterator[Step]:
    for number, (page, text) in enumerate(blocks("console")):
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield Step(page, number, command, output)


STEPS = list(steps())


# -------------------------------------------------------------------------------------------------------------- words


def words(output: str) -> set[str]:
    """The words of an output that are the program's own, by their beginnings: no figures, times, coins, endings."""
    output = re.sub(r"\b[A-Z0-9]+/[A-Z]+\b|\b(in|on|at) /\S+|http://\S+|/\S*/s\.sock", " ", output)
    output = re.sub(r"\d+\s+(?:ms|min|days?|[sdh])\b|\b(?:just now|ago|never|[kM]?B|GB|MB|kB)\b", " ", output)
    return {word[:4] for word in re.findall(r"[A-Za-z][A-Za-z_'-]{2,}", output)}


def differing(said: str, printed: str) -> set[str]:
    """The words that stand in one of the two only; an output that the page cuts short with ``...`` has only to be in the other."""
    cut = re.search(r"^\.\.\.$", said, re.MULTILINE)
    return words(said.replace("...", "")) - words(printed) if cut else words(said) ^ words(printed)


# ------------------------------------------------------------------------------------------------------------- the daemon


@contextmanager
def running() -> Iterator[Daemon]:
    """A daemon that has trained its coins, and no more to do for the next 40 minutes."""
    market = SimulatedExchange("--coins", str(COINS), "--history-days", "120")
    with short_folder() as folder, market as exchange, Daemon(folder, exchange, cryptod_train_epochs=5) as daemon:
        daemon.wait_for(trained, "forecasts by models of its own", seconds=300)
        yield daemon


def trained(client: Client) -> bool:
    """Whether the first training is over, and what it made is published."""
    status = client.status()
    training = status["training"]
    return bool(training["last_full"]) and training["running"] is None and status["models"]["coins"] == status["cache"]["entries"] == COINS


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running() as daemon:
        yield daemon


class Printed(NamedTuple):
    code: int
    text: str
    """Standard error, then standard output, as an installed daemon would have said it."""


def run(command: str, daemon: Daemon) -> Printed:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CRYPTOD_")}
    environ |= {"CRYPTOD_SOCKET": str(daemon.socket), "CRYPTOD_CONFIG": "etc/cryptod.toml", "COLUMNS": "80", "LANG": "C.UTF-8"}
    environ["PATH"] = f"{BIN}:{environ['PATH']}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    text = done.stderr + done.stdout
    for ours, installed in ((str(daemon.state), "/var/lib/cryptod"), (" etc/cryptod.toml", " /etc/cryptod/cryptod.toml")):
        text = text.replace(ours, installed)
    return Printed(done.returncode, text)


def refused(output: str) -> bool:
    """Whether a page shows a command that fails."""
    return output.startswith(("cryptoctl: ", "cryptod: "))


# ------------------------------------------------------------------------------------------------------------------ tests


def test_every_command_in_the_docs_is_run_by_something() -> None:
    assert [step for step in STEPS if not step.elsewhere and not step.begins(*HERE, *BOX)] == []
    unused = [beginning for beginning in ELSEWHERE if not any(step.begins(beginning) for step in STEPS)]
    assert unused == []


def test_what_the_docs_show_is_what_is_printed(daemon: Daemon) -> None:
    wrong = []
    for step in STEPS:
        if step.elsewhere or not step.begins(*HERE):
            continue
        if "| jq" in step.plain and shutil.which("jq") is None:
            continue  # nothing that the project needs
        done = run(step.plain, daemon)
        if done.code != 0 and not refused(step.output):
            wrong.append((step.page, step.command, f"ended with {done.code}", done.text))
        elif step.output and (found := differing(step.output, done.text)):
            wrong.append((step.page, step.command, f"differs in {sorted(found)}", done.text))
    assert wrong == [], "write them anew: python tests/test_docs.py"


@pytest.mark.parametrize(("page", "code"), [pytest.param(*block, id=f"{block[0]}-{i}") for i, block in enumerate(blocks("python"))])
def test_every_program_in_the_docs_runs(page: str, code: str, daemon: Daemon) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=daemon.folder, env=daemon.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, f"{page}: {done.stderr}"
    assert done.stdout


@pytest.mark.parametrize(("page", "text"), list(blocks("toml")))
def test_every_configuration_in_the_docs_is_one(page: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "cryptod.toml"
    file.write_text(text)
    assert len(load(file, {}).origins) == sum(len(section) for section in tomllib.loads(text).values()), page


def test_every_link_of_the_docs_leads_somewhere() -> None:
    broken = []
    for page in PAGES:
        text = page.read_text()
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE) if file.suffix == ".md" and file.is_file() else []
            slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            if path in MEASURED:
                continue
            if not file.exists() or (anchor and anchor not in slugs):
                broken.append((page.name, target))
    assert broken == []


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    assert [page.name for page in PAGES[1:] if page.name != "README.md" and f"({page.name})" not in index] == []


# -------------------------------------------------------------------------------------------------------------- the tables


def _commands() -> Iterator[str]:
    yield "| command | parameters | reply | |"
    yield "|---|---|---|---|"
    for command in protocol.COMMANDS.values():
        defaults = command.request._field_defaults
        parameters = [f"[{field}]" if field in defaults else field for field in command.request._fields]
        star = " *" if command.changes else ""
        yield f"| `{command.name}`{star} | {' '.join(f'`{part}`' for part in parameters)} | {_cell(command.reply)} | {command.doc} |"


def _cell(text: str) -> str:
    return f"`{text}`" if text.startswith(("{", "[")) else text


def _forecast() -> Iterator[str]:
    from inspect import getsource

    yield "| key | meaning |"
    yield "|---|---|"
    source = getsource(Forecast)
    for field in Forecast._fields:
        said = re.search(rf'^    {field}: [^\n]+\n    """(.*?)"""', source, re.MULTILINE | re.DOTALL)
        yield f"| `{field}` | {said[1] if said else _SAID[field]} |"


_SAID = {
    "symbol": "The coin, as in `BTC/USDT`.",
    "issued": "When it was made and written to the ledger.",
    "reason": "Why it is stale; nil when it is not.",
}


def _errors() -> Iterator[str]:
    yield "| code | meaning |"
    yield "|---|---|"
    yield from (f"| `{code}` | {text} |" for code, text in protocol.ERROR_CODES.items())


def _limits() -> Iterator[str]:
    yield "| what | how much |"
    yield "|---|---|"
    yield f"| bytes of a request | {protocol.MAX_REQUEST:,} |"
    yield f"| bytes of a reply | {protocol.MAX_REPLY:,} |"
    yield f"| requests of one connection that wait for an answer | {protocol.MAX_PENDING}, one more is `busy` |"
    yield f"| connections | {protocol.MAX_CONNECTIONS:,} |"
    yield f"| coins named in a request | {protocol.MAX_SYMBOLS:,} |"


def _topics() -> Iterator[str]:
    yield ", ".join(f"`{topic}`" for topic in protocol.EVENT_TOPICS) + "."


TABLES = {"commands": _commands, "forecast": _forecast, "errors": _errors, "limits": _limits, "topics": _topics}
MARK = re.compile(r"(<!-- (\w+) -->\n)(.*?)(<!-- /\2 -->)", re.DOTALL)


def with_tables(text: str) -> str:
    return MARK.sub(lambda found: found[1] + "\n".join(TABLES[found[2]]()) + "\n" + found[4], text)


def test_the_tables_are_the_protocols_own() -> None:
    text = (ROOT / "docs" / "wire-protocol.md").read_text()
    assert {found[1] for found in MARK.findall(text)} == set(TABLES)
    assert text == with_tables(text), "write them anew: python tests/test_docs.py"


# -------------------------------------------------------------------------------------------------------------- written anew


def rewrite(daemon: Daemon) -> None:
    """Put into the pages what the commands print now, where a page shows an output, and the tables."""

    def block(found: re.Match[str]) -> str:
        if found[1] != "console":
            return found[0]
        parts = re.split(r"^\$ ", found[2], flags=re.MULTILINE)
        for number, part in enumerate(parts[1:], 1):
            command, _, output = part.partition("\n")
            step = Step("", 0, command, output)
            if output and not step.elsewhere and step.begins(*HERE) and "\n...\n" not in f"\n{output}":  # cut short by hand
                parts[number] = f"{command}\n{run(step.plain, daemon).text}"
        return f"```console\n{'$ '.join(parts)}```"

    for page in PAGES[1:]:
        page.write_text(with_tables(FENCE.sub(block, page.read_text())))


if __name__ == "__main__":
    with running() as found:
        rewrite(found)
