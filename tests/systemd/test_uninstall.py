"""`make uninstall` on a machine where the daemon runs: what goes, what stays, what PURGE=1 takes as well."""

from pathlib import Path

import pytest

from tests.systemd.box import Box

ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.systemd

PROGRAM = (
    "/opt/cryptod",
    "/usr/local/bin/cryptod",
    "/usr/local/bin/cryptoctl",
    "/usr/lib/systemd/system/cryptod.service",
    "/usr/lib/systemd/system/cryptod.socket",
    "/usr/lib/systemd/system/cryptod@.service",
    "/usr/lib/systemd/system/cryptod@.socket",
    "/usr/lib/systemd/user/cryptod.service",
    "/usr/lib/systemd/user/cryptod.socket",
    "/usr/lib/systemd/system/cryptod-metrics.socket",
    "/usr/lib/systemd/system/cryptod-metrics@.service",
    "/usr/lib/sysusers.d/cryptod.conf",
    "/usr/lib/tmpfiles.d/cryptod.conf",
    "/usr/local/share/man/man8/cryptod.8.gz",
    "/usr/local/share/man/man1/cryptoctl.1.gz",
    "/usr/local/share/man/man5/cryptod.toml.5.gz",
    "/usr/local/share/bash-completion/completions/cryptoctl",
    "/usr/local/share/zsh/site-functions/_cryptoctl",
    "/usr/local/share/fish/vendor_completions.d/cryptoctl.fish",
)


def test_uninstall_keeps_state_and_configuration_and_purge_leaves_nothing(box: Box) -> None:
    for name in ("Makefile", "constraints.txt"):  # the checkout itself may lie where the box has a folder of its own
        box.write(f"/srv/cryptod/{name}", (ROOT / name).read_text())
    box.run("cp /etc/cryptod/cryptod.toml /etc/cryptod/one.toml")
    box.run("systemctl enable -q --now cryptod cryptod@one && cryptoctl ping && cryptoctl --instance one ping")
    for path in PROGRAM:
        box.run(f"test -e {path}")

    # The program's folder is a mount of the box's own making; it can be emptied, not removed.
    box.run('make -C /srv/cryptod uninstall || test -z "$(ls /opt/cryptod)"')
    assert box.run("systemctl is-active cryptod.service cryptod.socket", check=False).stdout.split() == ["inactive", "inactive"]
    assert box.run("pgrep -u cryptod", check=False).stdout == ""
    assert box.run("ls /etc/systemd/system/*.wants | grep cryptod", check=False).stdout == ""
    box.run("umount /opt/cryptod")
    box.run("make -C /srv/cryptod uninstall")
    for path in PROGRAM:
        box.run(f"test ! -e {path}")
    box.run("test -e /etc/cryptod/cryptod.toml && test -e /var/lib/cryptod/serving && test -e /var/lib/cryptod@one/serving")

    box.run("make -C /srv/cryptod uninstall PURGE=1")
    box.run("test ! -e /etc/cryptod && ! ls -d /var/lib/cryptod* /run/cryptod* && ! getent passwd cryptod")
