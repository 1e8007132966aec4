"""The README's five minutes, typed into a box: from a package to forecasts."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.systemd.box import Box

README: Final = Path(__file__).parent.parent.parent / "README.md"
SECONDS: Final = 300


def commands() -> list[str]:
    """What the quick start tells a stranger to type, without the reasons."""
    block = re.search(r"## Five minutes.*?```console\n(.*?)```", README.read_text(), re.DOTALL)
    assert block is not None
    return [re.sub(r"\s{2,}#.*", "", line[2:]) for line in block[1].splitlines() if line.startswith("$ ")]


def spend(box: Box, typed: Callable[[str], str] = str) -> float:
    """Do what the README says, but for `make deb`, and return after how many seconds BTC had a forecast. ``typed`` may change a command.

    It must be there within five minutes, for everybody, and no unit may have failed meanwhile.
    """
    began, failed = time.monotonic(), box.run("systemctl --failed --no-legend").stdout
    found = commands()
    assert any("apt install" in command for command in found)
    assert any("systemctl enable" in command for command in found)
    for command in found:
        if command.startswith("make deb"):
            continue  # that is done
        if command.startswith("cryptoctl get"):
            box.wait(typed(command), seconds=SECONDS - (time.monotonic() - began))  # a stranger asks again
        else:
            box.run(typed(command), timeout=SECONDS)
    took = time.monotonic() - began
    assert took < SECONDS
    assert box.show("cryptod", "ActiveState") == "active"
    box.run("cryptoctl get ETH", user="nobody")
    assert box.run("systemctl --failed --no-legend").stdout == failed
    return took
