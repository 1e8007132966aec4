"""Where a daemon has its files, and which daemon a client asks: by user, by instance, by what is said."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from cryptod.asyncclient import AsyncClient
from cryptod.client import Client
from cryptod.config import check_config, load
from cryptod.errors import ConfigError
from cryptod.places import SYSTEM, instance, of_daemon, socket_of, unit_of, user
from ctl.main import main
from tests.integration.house import short_folder

UID = os.geteuid()
OWN = Path("cryptod/cryptod.sock")


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A user's runtime folder with the socket of a daemon of his own in it."""
    with short_folder() as folder:
        runtime = folder / "runtime"
        (runtime / "cryptod").mkdir(parents=True)
        runtime.chmod(0o700)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(runtime / OWN))
            yield runtime


def chosen(runtime: Path, **environ: str) -> str:
    return socket_of(None, None, {"HOME": "/h/ann", "XDG_RUNTIME_DIR": str(runtime), **environ}, UID)


def test_an_ordinary_users_daemon_has_its_files_in_the_xdg_folders() -> None:
    named = {"XDG_STATE_HOME": "/s", "XDG_CONFIG_HOME": "/c", "XDG_RUNTIME_DIR": "/r"}
    assert user({"HOME": "/h/ann", **named}, 1000)[:3] == ("/c/cryptod/cryptod.toml", "/s/cryptod", "/r/cryptod/cryptod.sock")
    usual = user({"HOME": "/h/ann"}, 4_000_000)
    assert usual[:2] == ("/h/ann/.config/cryptod/cryptod.toml", "/h/ann/.local/state/cryptod")
    assert usual.socket == "/h/ann/.local/state/cryptod/cryptod.sock", "without a runtime folder"
    assert user({"HOME": "/h/ann", "XDG_STATE_HOME": "relative"}, 4_000_000).state == usual.state
    assert user({}, 4_000_000).state == "/.local/state/cryptod", "a user that the system does not know may still set everything else"


def test_whose_a_daemon_is_follows_from_who_starts_it() -> None:
    home = {"HOME": "/h/ann"}
    handed = home | {"LISTEN_PID": "7", "LISTEN_FDS": "1"}
    assert of_daemon(home, 0, 7) == SYSTEM
    assert of_daemon(home, 1000, 7) == user(home, 1000)
    assert of_daemon(handed, 1000, 7) == SYSTEM, "a system service with a user of its own"
    assert of_daemon(handed, 1000, 8) == user(home, 1000), "the socket is another process's"
    assert of_daemon(handed | {"MANAGERPID": "5"}, 1000, 7) == user(home, 1000)
    assert of_daemon(handed | {"MANAGERPID": "5"}, 0, 7) == user(home, 0)


def test_the_services_user_is_the_systems_also_without_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in `sudo -u cryptod cryptod check-config`."""
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: SimpleNamespace(pw_dir="/var/lib/cryptod" if uid == 998 else "/h/ann"))
    assert of_daemon({"HOME": "/h/ann"}, 998, 7) == SYSTEM
    assert of_daemon({"HOME": "/var/lib/cryptod"}, 1000, 7) == user({"HOME": "/var/lib/cryptod"}, 1000)


def test_a_users_configuration_is_read_and_a_copy_of_the_documented_one_does_not_name_the_systems_folders(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": "/run/user/1000"}
    place = user(environ, 1000)
    without = load(None, {}, place)
    assert (without.file, without.config.storage.directory) == (None, f"{tmp_path}/.local/state/cryptod")
    assert f"# file: none ({place.config} is not there)" in check_config(without)
    Path(place.config).parent.mkdir(parents=True)
    documented = Path(__file__).parent.parent / "etc/cryptod.toml"
    Path(place.config).write_text(documented.read_text().replace("size = 100", "size = 7"))
    loaded = load(None, {}, place)
    assert loaded.config.universe.size == 7
    assert (loaded.config.storage.directory, loaded.config.socket.path) == (place.state, "/run/user/1000/cryptod/cryptod.sock")
    assert "the usual place of your own daemon" in check_config(loaded)
    Path(place.config).write_text('[storage]\ndirectory = "/srv/mine"')
    assert load(None, {}, place).config.storage.directory == "/srv/mine"
    named = {"CRYPTOD_STORAGE_DIRECTORY": "/var/lib/cryptod", "CRYPTOD_SOCKET_PATH": SYSTEM.socket}
    told = load(None, named, place).config
    assert (told.storage.directory, told.socket.path) == ("/var/lib/cryptod", SYSTEM.socket), "the environment says what it means"


def test_the_systems_daemon_is_where_it_was() -> None:
    assert load(Path(__file__).parent.parent / "etc/cryptod.toml", {}, SYSTEM).config.storage.directory == "/var/lib/cryptod"


def test_an_instance_has_files_of_its_own_and_must_have_a_configuration() -> None:
    place = instance("kraken_EUR.2")
    assert place.config == "/etc/cryptod/kraken_EUR.2.toml"
    assert (place.state, place.socket) == ("/var/lib/cryptod@kraken_EUR.2", "/run/cryptod@kraken_EUR.2/cryptod.sock")
    with pytest.raises(ConfigError, match=r"no configuration file /etc/cryptod/kraken_EUR\.2\.toml") as caught:
        load(None, {}, place)
    assert "copy" in caught.value.hint


@pytest.mark.parametrize("name", ["", "a-b", "a/b", "..", ".hidden", "a b", "a@b", "a\\x2fb", "ü", "a\n", "x" * 33, "cryptod"])
def test_a_name_that_systemd_would_change_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="cannot be an instance's name"):
        instance(name)
    assert main(["--instance", name, "ping"]) == 2
    assert "cannot be an instance's name" in capsys.readouterr().err
    done = subprocess.run(
        [sys.executable, "-m", "cryptod", "run", "--instance", name], capture_output=True, text=True, cwd=Path(__file__).parent.parent
    )
    assert done.returncode == 78
    assert "cannot be an instance's name" in done.stderr


def test_the_client_asks_whom_it_is_told_to_then_the_users_own_daemon_then_the_systems(runtime: Path) -> None:
    said = {"CRYPTOD_SOCKET": "/e", "CRYPTOD_INSTANCE": "one", "HOME": "/h/ann", "XDG_RUNTIME_DIR": str(runtime)}
    assert socket_of("/p", "two", said, UID) == "/p"
    assert socket_of(None, "two", said, UID) == "/run/cryptod@two/cryptod.sock"
    assert socket_of(None, None, said, UID) == "/e"
    assert chosen(runtime, CRYPTOD_INSTANCE="one") == "/run/cryptod@one/cryptod.sock"
    assert chosen(runtime) == str(runtime / OWN)
    (runtime / OWN).unlink()
    assert chosen(runtime) == SYSTEM.socket


def test_the_clients_and_cryptoctl_choose_alike(runtime: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.delenv("CRYPTOD_SOCKET", raising=False)
    assert Client().path == AsyncClient().path == str(runtime / OWN)
    assert Client(instance="two").path == AsyncClient(instance="two").path == "/run/cryptod@two/cryptod.sock"
    monkeypatch.setenv("CRYPTOD_INSTANCE", "nobody_has_it")
    assert Client().path == "/run/cryptod@nobody_has_it/cryptod.sock"
    assert main(["ping"]) == 3
    assert "systemctl status cryptod@nobody_has_it" in capsys.readouterr().err
    assert main(["ping", "--socket", "/a", "--instance", "b"]) == 2
    assert "both say which daemon" in capsys.readouterr().err


@pytest.mark.parametrize("who", ["all may write above", "all may write", "a group may write", "a file", "a link"])
def test_a_socket_in_a_folder_that_others_can_change_is_not_taken_for_the_users_own(runtime: Path, who: str) -> None:
    folder = runtime / "cryptod"
    if who == "all may write above":
        runtime.chmod(0o777)
    elif who == "a file":
        (runtime / OWN).unlink()
        (runtime / OWN).touch()
    elif who == "a link":
        folder.rename(runtime / "else")
        folder.symlink_to("else")
    else:
        folder.chmod(0o777 if who == "all may write" else 0o770)
    assert chosen(runtime) == SYSTEM.socket


@pytest.mark.skipif(UID != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("given", ["", "cryptod", str(OWN)])
def test_another_users_socket_is_not_taken_for_ones_own(runtime: Path, given: str) -> None:
    """As when `sudo` keeps XDG_RUNTIME_DIR: root asks the system's daemon, not the user's."""
    os.chown(runtime / given, 1234, -1)
    assert chosen(runtime) == SYSTEM.socket
    os.chown(runtime / given, 0, -1)
    assert chosen(runtime) == str(runtime / OWN)


def test_errors_name_the_unit_to_look_at() -> None:
    assert unit_of(SYSTEM.socket) == ("", "cryptod")
    assert unit_of("/run/cryptod@one/cryptod.sock") == ("", "cryptod@one")
    assert unit_of("/run/user/1000/cryptod/cryptod.sock") == (" --user", "cryptod")
    assert unit_of("/tmp/s") == ("", "cryptod")
