"""The commands of the guide that want systemd: run in a box, block by block, in the order in which a reader types them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.box import Box
from tests.test_docs import BOX, STEPS

ROOT = Path(__file__).parent.parent.parent
OURS = (*BOX, "cryptoctl train incremental --follow", "cryptoctl models rollback")
SMALL = {"size = 100": "size = 5", "months_back = 6": "months_back = 2", "epochs = 50": "epochs = 2"}
URL = 'url = "http://127.0.0.1:8099"'

pytestmark = pytest.mark.systemd

# `make test-deb` begins where nothing is installed: with the README's first block.
WANTED = [step for step in STEPS if step.begins(*OURS) and step.block > 0]


@pytest.fixture
def machine(box: Box) -> Iterator[Box]:
    """A daemon that has trained, by the documented configuration made small."""
    text = (ROOT / "etc/cryptod.toml").read_text().replace('url = ""', URL)
    for usual, small in SMALL.items():
        assert usual in text
        text = text.replace(usual, small)
    box.write("/etc/cryptod/cryptod.toml", text)
    simulate = "systemd-run -q --unit=exchange /opt/cryptod/bin/cryptod simulate --port 8099 --coins 5 --history-days 90"
    box.run(f"systemctl is-active -q exchange || {simulate}")
    box.run("systemctl reset-failed; systemctl enable -q --now cryptod")
    box.wait(
        """cryptoctl --json status | python3 -c 'import json, sys; sys.exit(not json.load(sys.stdin)["training"]["last_full"])'""",
        seconds=120,
    )
    yield box
    box.run("systemctl stop cryptod.service cryptod.socket 'cryptod@*.service' 'cryptod@*.socket'; rm -rf /var/lib/cryptod.old")


@pytest.mark.parametrize(("page", "block"), sorted({(step.page, step.block) for step in WANTED}))
def test_a_pages_commands_do_what_they_say(page: str, block: int, machine: Box) -> None:
    for step in WANTED:
        if (step.page, step.block) == (page, block):
            machine.run(step.plain, timeout=120)
