"""The manual pages cryptod(8), cryptoctl(1) and cryptod.toml(5): ``python packaging/pages/manual.py FOLDER`` writes them.

What a command takes comes from its own parser, what a key means from the settings, what is wrong from the table of
conditions; only what no table says is written here.
"""

from __future__ import annotations

import gzip
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from commands import Argument, control, daemon, sentence
from cryptod import __version__
from cryptod.config import DEFAULT_PATH, NOT_SETTINGS
from cryptod.daemon.monitor import CONDITIONS
from cryptod.protocol import DEFAULT_SOCKET
from cryptod.settings import SECTIONS, SETTINGS, toml
from ctl.main import HEALTH_CODES
from roff import Page, bold, italic, literal

DOTS: Final = r"\&.\|.\|.\&"
SEE_ALSO: Final = {"cryptod": 8, "cryptoctl": 1, "cryptod.toml": 5}

FILES: Final = (
    (str(DEFAULT_PATH), "The configuration, see `cryptod.toml`(5)."),
    ("/var/lib/cryptod", "What is kept: candles, forecasts, the ledger of what was issued, checkpoints. It can be deleted while the"
    " daemon is"
     " stopped, and is then collected and trained anew; only the ledger, the proof of past forecasts, cannot be had again."),
    (DEFAULT_SOCKET, "The socket that `cryptoctl` and programs connect to. Everyone may read; root, the service's user and the group"
     " `socket.group` may change things."),
    ("/etc/cryptod/INSTANCE.toml, /var/lib/cryptod@INSTANCE, /run/cryptod@INSTANCE/cryptod.sock", "The same three of an instance, which"
     " `systemctl enable --now cryptod@INSTANCE` runs beside the others."),
    ("~/.config/cryptod/cryptod.toml, ~/.local/state/cryptod, $XDG_RUNTIME_DIR/cryptod/cryptod.sock", "The same three of a daemon that"
     " a user runs without root, with `systemctl --user enable --now cryptod` or `cryptod run`. XDG_CONFIG_HOME and XDG_STATE_HOME are"
     " honoured."),
    ("/opt/cryptod", "The program, in a Python environment of its own."),
)  # fmt: skip

DAEMON_CODES: Final = {
    0: "Done.",
    1: "Failed; standard error or the journal says what, on what, and what to do.",
    2: "Wrong usage.",
    78: "The configuration is wrong. systemd does not start it again.",
}
CONTROL_CODES: Final = {
    0: "Done.",
    1: "Refused by the daemon; standard error says why.",
    2: "Wrong usage.",
    3: "The daemon cannot be reached.",
    130: "Interrupted.",
}

CONTROL_EXAMPLES: Final = (
    ("The price ranges of the next hours, and a drawing of them:", ("cryptoctl get BTC", "cryptoctl plot BTC/USDT")),
    ("The five coins that may move most within four hours:", ("cryptoctl top 5 --by volatility --horizon 4",)),
    ("An update of the models now, watched to its end:", ("sudo cryptoctl train incremental --follow",)),
    ("For a monitor: says what is wrong, and ends with 0, 1 or 2:", ("cryptoctl health",)),
    ("For a program: the width of the 80 % interval of each coin a day ahead:", (
        "cryptoctl --json get $(cryptoctl symbols --names) |",
        "    jq -r '.forecasts[] | [.symbol, .prices[23][6] - .prices[23][2]] | @tsv'",
    )),
)  # fmt: skip


def new_page(name: str, what: str, manual: str) -> Page:
    """A page with its date: that of SOURCE_DATE_EPOCH when a package is built reproducibly, else today."""
    moment = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH") or time.time()))
    date = time.strftime("%Y-%m-%d", moment)
    return Page(name, SEE_ALSO[name], what=what, date=date, source=f"cryptod {__version__}", manual=manual)


def value(argument: Argument) -> str:
    """What stands for the value of an argument, in roff; empty for a switch."""
    word = italic(argument.value) if argument.value else "|".join(map(bold, argument.choices))
    return f"{word} {DOTS}" if argument.several else word


def term(argument: Argument) -> str:
    """An argument as the head of its description."""
    return " ".join(part for part in (", ".join(map(bold, argument.names)), value(argument)) if part)


def usage(page: Page, words: str, arguments: Sequence[Argument]) -> None:
    """A line of a synopsis."""
    pieces = []
    for argument in arguments:
        piece = " ".join(part for part in (*map(bold, argument.names[-1:]), value(argument)) if part)
        pieces.append(piece if argument.needed else f"[{piece}]")
    page.usage(words, pieces)


def takes(page: Page, arguments: Sequence[Argument]) -> None:
    """What a verb takes, as items."""
    for argument in arguments:
        page.item(term(argument), argument.doc)


def exit_codes(page: Page, codes: Mapping[int, str]) -> None:
    page.heading("Exit status")
    for code, text in codes.items():
        page.item(bold(str(code)), text)


def see_also(page: Page, *others: str) -> None:
    page.heading("See also")
    names = [f"`{name}`({section})" for name, section in SEE_ALSO.items() if name != page.name]
    page.paragraph(", ".join((*names, *others)) + ".")


def files(page: Page) -> None:
    page.heading("Files")
    for path, text in FILES:
        page.item(italic(path), text)


def daemon_page() -> Page:
    """cryptod(8)."""
    page = new_page("cryptod", "calibrated crypto price forecasts, always fresh, on a small machine", "System Administration")
    command = daemon()
    page.heading("Synopsis")
    for verb in command.verbs:
        usage(page, f"cryptod {verb.words}", verb.arguments)
    page.usage("cryptod", [bold("--version")])
    page.heading("Description")
    page.paragraph(
        "The daemon collects closed hourly candles of about 100 coins from an exchange, trains small models in children of low"
        " priority, and"
        " keeps for each coin a forecast of the next 1 to 24 hours: quantiles of the price, P(up), the expected volatility. Programs"
        " and `cryptoctl`(1) read them from a Unix socket. Every forecast goes into an append-only ledger before anybody can read it,"
        " and is"
        " scored when its outcome is known."
    )
    page.paragraph(
        "It is run by systemd: `systemctl enable --now cryptod`. Settings are read from"
        f" `{DEFAULT_PATH}`, then from the environment. It needs no key and no account: only public market data are asked for."
    )
    page.heading("Commands")
    for verb in command.verbs:
        page.subheading(f"cryptod {verb.words}")
        page.paragraph(verb.doc)
        takes(page, verb.arguments)
    page.heading("Signals")
    page.item(bold("SIGHUP"), "Reads the configuration again (`systemctl reload cryptod`): takes what a running daemon can take, and"
    " names in"
              " the log what waits for a restart. A wrong configuration changes nothing.")  # fmt: skip
    page.item(f"{bold('SIGTERM')}, {bold('SIGINT')}", "Ends children, writes what is to be written, and exits within 5 seconds.")
    exit_codes(page, DAEMON_CODES)
    page.heading("Environment")
    page.item(rf"{bold('CRYPTOD_')}{italic('SECTION')}{bold('_')}{italic('KEY')}",
              "A setting; it wins over the file. Lists are comma separated. `cryptod.toml`(5) has the keys.")  # fmt: skip
    for name, text in NOT_SETTINGS.items():
        page.item(bold(name), sentence(text))
    files(page)
    page.heading("Health")
    page.paragraph(
        "`cryptoctl health` shows what is wrong, by these names. A condition shows when it has lasted for the time that is given, and"
        " clears by"
        " itself when its cause is gone."
    )
    for condition in CONDITIONS:
        lasting = f", after {condition.after:g} seconds" if condition.after else ""
        page.item(bold(condition.name), f"({condition.severity}{lasting}) {sentence(condition.remedy)}")
    see_also(page, "`systemctl`(1)", "`journalctl`(1)", "`systemd.exec`(5)")
    return page


def control_page() -> Page:
    """cryptoctl(1)."""
    page = new_page("cryptoctl", "ask the cryptod daemon, and tell it what to do", "User Commands")
    page.heading("Synopsis")
    command = control()
    which = f"[{bold('--instance')} {italic('INSTANCE')}|{bold('--socket')} {italic('PATH')}]"
    page.usage("cryptoctl", [f"[{bold('--json')}]", which, italic("VERB"), DOTS])
    page.usage("cryptoctl", [italic("VERB"), bold("--help")])
    page.heading("Description")
    page.paragraph(
        "Asks the `cryptod`(8) daemon on its Unix socket, and prints tables for people or, with `--json`, the daemon's reply for"
        " programs. A coin"
        " is found by `BTC/USDT`, `btcusdt`, `btc-usdt` or `BTC`. Verbs that change something are for root, the service's user and"
        " the members"
        " of `socket.group`; the kernel says who is at the other end."
    )
    page.heading("Options")
    page.paragraph("Every verb takes these, before or after its name:")
    takes(page, command.everywhere)
    page.heading("Verbs")
    for verb in command.verbs:
        page.subheading(verb.words)
        if verb.arguments:
            usage(page, f"cryptoctl {verb.words}", verb.arguments)
        page.paragraph(verb.doc)
        if verb.changes:
            page.paragraph("It changes something: not everybody may.")
        takes(page, verb.arguments)
    exit_codes(page, CONTROL_CODES)
    codes = ", ".join(f"{code} {severity}" for severity, code in HEALTH_CODES.items())
    page.paragraph(f"Those of `cryptoctl health`: {codes}; 3 the daemon cannot be reached.")
    page.heading("Environment")
    page.item(bold("CRYPTOD_SOCKET"), "The daemon's socket, where neither `--socket` nor `--instance` is given.")
    page.item(bold("CRYPTOD_INSTANCE"), "The instance to ask, where `CRYPTOD_SOCKET` is not set either. Where none of these says which"
              " daemon, it is your own, if its socket is in `$XDG_RUNTIME_DIR/cryptod` and nobody but you or root can change that"
              f" folder, and else the system's at `{DEFAULT_SOCKET}`.")  # fmt: skip
    page.item(bold("NO_COLOR"), "Whatever it says: no colours. There are none either when the output is not a terminal.")
    page.item(bold("COLUMNS"), "How wide a page may be when the output is not a terminal.")
    page.heading("Examples")
    for text, lines in CONTROL_EXAMPLES:
        page.paragraph(text)
        page.example(lines)
    see_also(page)
    return page


def settings_page() -> Page:
    """cryptod.toml(5)."""
    page = new_page("cryptod.toml", "the configuration of cryptod", "File Formats")
    page.heading("Synopsis")
    page.usage(str(DEFAULT_PATH), [])
    page.heading("Description")
    page.paragraph(
        "A TOML file of sections and keys; whatever it leaves out stands at its default, and an empty file is one. Variables"
        " `CRYPTOD_<SECTION>_<KEY>` of the environment come after it and win; lists are comma separated there. A misspelt key or a"
        " value out"
        " of range stops the start, with its line and what is allowed."
    )
    page.paragraph(
        "`cryptod check-config` prints what is in force and where it came from. `systemctl reload cryptod` takes the keys marked"
        " [reload]; the"
        " others are taken at the next start."
    )
    for name, section in SECTIONS.items():
        page.heading(f"[{name}]", capital=False)
        page.paragraph(section.__doc__ or "")
        for setting in SETTINGS.values():
            if setting.section == name:
                page.item(
                    rf"{bold(setting.name)} = {literal(toml(setting.default))}",
                    setting.key.meaning + (" [reload]" if setting.key.live else ""),
                    f"Allowed: {setting.allowed}. Default because: {setting.key.why}. Variable: `{setting.variable}`.",
                )
    page.heading("Examples")
    page.paragraph("Fifty coins, two of them always, and members of the group `trading` may start a training:")
    page.example(["[universe]", "size = 50", 'include = ["BTC/USDT", "ETH/USDT"]', "", "[socket]", 'group = "trading"'])
    page.paragraph("A simulated exchange, as `cryptod simulate --port 8099` serves it:")
    page.example(["[exchange]", 'url = "http://127.0.0.1:8099"'])
    see_also(page)
    return page


def pages() -> Iterator[Page]:
    yield from (daemon_page(), control_page(), settings_page())


def main(folder: Path) -> None:
    """Write each page as ``FOLDER/man<section>/<name>.<section>.gz``, the same bytes for the same page."""
    for page in pages():
        path = folder / f"man{page.section}" / f"{page.name}.{page.section}.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(page.text.encode(), mtime=0))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
