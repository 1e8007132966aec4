"""The commands of the guide that want systemd: run in a box, page by page, in the order in which a reader types them."""

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

WANTED = [step for step in STEPS if step.begins(*OURS)]


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
    box.run("systemctl stop cryptod.service cryptod.socket; rm -rf /var/lib/cryptod.old")


@pytest.mark.parametrize("page", sorted({step.page for step in WANTED}))
def test_a_pages_commands_do_what_they_say(page: str, machine: Box) -> None:
    steps = [step for step in WANTED if step.page == page and not step.begins("sed -i 's|^url = .*|url = \"http", "systemd-run")]
    assert steps
    for step in steps:
        machine.run(step.plain, timeout=120)
