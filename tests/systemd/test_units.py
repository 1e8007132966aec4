"""The unit files as files: what systemd thinks of them, and that they agree with the rest of the project."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cryptod.places import instance
from cryptod.protocol import DEFAULT_SOCKET

UNITS = Path(__file__).parent.parent.parent / "packaging" / "systemd"
EXPOSURE = 1.5
"""The highest that `systemd-analyze security` may say."""

needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def settings(name: str) -> dict[str, str]:
    """The settings of a unit file; of one that stands twice, the last."""
    return dict(re.findall(r"^([A-Za-z]+)=(.*)$", (UNITS / name).read_text(), re.M))


@needs_analyze
def test_exposure_is_low_and_what_is_left_of_it_is_explained_in_the_unit() -> None:
    unit = UNITS / "cryptod.service"
    command = ["systemd-analyze", "security", "--no-pager", "--offline=true", str(unit)]
    report = subprocess.run(command, capture_output=True, text=True, env={"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"})
    if "unrecognized option" in report.stderr:
        pytest.skip("this systemd-analyze has no --offline")
    overall = re.search(r"Overall exposure level for cryptod.service: ([\d.]+)", report.stdout)
    assert overall, report.stdout + report.stderr
    assert float(overall[1]) <= EXPOSURE, report.stdout
    comments = " ".join(line for line in unit.read_text().splitlines() if line.startswith("#"))
    for line in report.stdout.splitlines():
        if line.startswith("✗"):
            name = line.split()[1]
            assert name.split("/")[0] in comments, f"{name} costs points and the unit does not say why"


def test_the_units_name_the_socket_of_the_protocol() -> None:
    assert settings("cryptod.socket")["ListenStream"] == DEFAULT_SOCKET
    service = settings("cryptod.service")
    assert f"/run/{service['RuntimeDirectory']}" == str(Path(DEFAULT_SOCKET).parent)
    assert service["RuntimeDirectoryPreserve"] == "yes"


def test_the_unit_works_on_systemd_252_and_outlives_a_childs_memory() -> None:
    service = settings("cryptod.service")
    assert service["Type"] == "notify"
    assert service["NotifyAccess"] == "main"
    assert service["OOMPolicy"] == "continue"
    assert service["KillMode"] == "mixed"


def lines(name: str) -> list[str]:
    return [line for line in (UNITS / name).read_text().splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("kind", ["service", "socket"])
def test_an_instances_units_are_the_systems_but_for_the_names(kind: str) -> None:
    """systemd has no way to include a file, so a change of one has to be made in both."""
    names = {
        "ListenStream=/run/cryptod/cryptod.sock": "ListenStream=/run/cryptod@%i/cryptod.sock",
        "ExecStart=/opt/cryptod/bin/cryptod run": "ExecStart=/opt/cryptod/bin/cryptod run --instance %i",
        "Description=Calibrated crypto price forecasts": "Description=Calibrated crypto price forecasts of %i",
        "Description=Socket of the crypto price forecasts": "Description=Socket of the crypto price forecasts of %i",
        "StateDirectory=cryptod": "StateDirectory=cryptod@%i",
        "RuntimeDirectory=cryptod": "RuntimeDirectory=cryptod@%i",
    }
    changed = [names.get(line, line.replace("cryptod.socket", "cryptod@%i.socket")) for line in lines(f"cryptod.{kind}")]
    assert lines(f"cryptod@.{kind}") == changed


def test_the_units_of_an_instance_name_the_folders_that_the_program_looks_in() -> None:
    place, service = instance("one"), settings("cryptod@.service")
    assert settings("cryptod@.socket")["ListenStream"].replace("%i", "one") == place.socket
    assert f"/run/{service['RuntimeDirectory']}".replace("%i", "one") == str(Path(place.socket).parent)
    assert f"/var/lib/{service['StateDirectory']}".replace("%i", "one") == place.state


def test_a_users_units_keep_what_needs_no_root() -> None:
    mine, systems = settings("user/cryptod.service"), settings("cryptod.service")
    differing = {name for name, value in mine.items() if value != systems.get(name)}
    assert differing == {"After", "WantedBy", "SystemCallFilter"}
    assert "User" not in mine
    assert settings("user/cryptod.socket")["ListenStream"] == "%t/cryptod/cryptod.sock"
