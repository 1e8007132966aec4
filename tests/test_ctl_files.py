"""Files that are there when they are whole."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cryptod.errors import CryptodError
from ctl.files import written


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_once_all_is_written(tmp_path: Path) -> None:
    place = tmp_path / "out"
    place.write_text("old")
    with written(place) as stream:
        stream.write(b"ne")
        stream.flush()
        assert place.read_text() == "old"
        stream.write(b"w")
    assert place.read_text() == "new"
    assert names(tmp_path) == ["out"]


def test_what_breaks_off_leaves_what_stood_there(tmp_path: Path) -> None:
    place = tmp_path / "out"
    place.write_text("old")

    def interrupted() -> None:
        with written(place) as stream:
            stream.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert place.read_text() == "old"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize(("mode", "wanted"), [(None, 0o640), (0o644, 0o644)])
def test_its_rights_are_those_that_were_asked_for_or_what_the_umask_leaves(tmp_path: Path, mode: int | None, wanted: int) -> None:
    before = os.umask(0o027)
    try:
        with written(tmp_path / "out", mode=mode) as stream:
            stream.write(b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == wanted


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with written(tmp_path / "link") as stream:
        stream.write(b"x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"x"


def test_what_is_no_regular_file_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    """`--output /dev/null` as root would otherwise put a file in its place."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    with written(pipe) as stream:
        stream.write(b"through")
    reader.join(10)
    assert read == [b"through"]
    assert pipe.is_fifo()
    assert names(tmp_path) == ["pipe"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(CryptodError, match=r"the page cannot be written to .*no/file") as refused,
        written(tmp_path / "no" / "file", "the page"),
    ):
        pass
    assert "a folder that exists" in refused.value.hint
    with pytest.raises(CryptodError, match="cannot be written: Is a directory"), written(tmp_path):
        pass
    assert names(tmp_path) == []


def test_a_file_that_is_replaced_keeps_its_mode(tmp_path: Path) -> None:
    for mode in (0o600, 0o640, 0o664):
        place = tmp_path / f"{mode:o}"
        place.write_text("old")
        place.chmod(mode)
        with written(place) as stream:
            stream.write(b"new")
        assert place.stat().st_mode & 0o777 == mode


def shared(folder: Path) -> Path:
    """A folder like /tmp."""
    place = folder / "shared"
    place.mkdir()
    place.chmod(0o1777)
    return place


@pytest.mark.skipif(os.geteuid() != 0, reason="plays other users: needs root")
@pytest.mark.parametrize("victim", [0, 4322])
@pytest.mark.parametrize("planted", ["link", "link/file"])
def test_a_link_that_another_user_has_planted_is_not_followed(tmp_path: Path, victim: int, planted: str) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "file").write_text("precious")
    os.chown(own, victim, victim)
    os.chown(own / "file", victim, victim)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    link = shared(tmp_path) / "link"
    link.symlink_to(own / "file" if planted == "link" else own)
    os.lchown(link, 4321, 4321)
    code = (
        "import os, sys\nfrom cryptod.errors import CryptodError\nfrom ctl.files import written\n"
        f"os.setgroups([]); os.setgid({victim}); os.setuid({victim})\n"
        "try:\n    with written(sys.argv[1]) as stream:\n        stream.write(b'x')\n"
        "except CryptodError as error:\n    print(error.message)\n"
    )
    said = subprocess.run([sys.executable, "-c", code, str(link.parent / planted)], capture_output=True, text=True)
    assert "is a link that another user has put there" in said.stdout, said.stderr
    assert (own / "file").read_text() == "precious"
    assert link.is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="plays other users: needs root")
def test_one_s_own_link_and_the_folder_s_owner_s_are_followed(tmp_path: Path) -> None:
    place = shared(tmp_path)
    (place / "mine").symlink_to(tmp_path / "out")
    with written(place / "mine") as stream:
        stream.write(b"x")
    assert (tmp_path / "out").read_bytes() == b"x"
    os.chown(place, 4321, 4321)
    os.lchown(place / "mine", 4321, 4321)
    with written(place / "mine") as stream:
        stream.write(b"y")
    assert (tmp_path / "out").read_bytes() == b"y"


@pytest.mark.skipif(os.geteuid() != 0, reason="plays other users: needs root")
def test_another_user_s_file_lends_no_rights(tmp_path: Path) -> None:
    place = tmp_path / "out"
    for theirs, expected in ((0o666, 0o644), (0o600, 0o600)):
        place.write_text("old")
        place.chmod(theirs)
        os.chown(place, 4321, 4321)
        before = os.umask(0o022)
        try:
            with written(place) as stream:
                stream.write(b"new")
        finally:
            os.umask(before)
        assert (place.stat().st_mode & 0o777, place.stat().st_uid) == (expected, 0)


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(CryptodError, match="cannot be written"), written(tmp_path / "a"):
        pass


def test_a_pipe_on_standard_output_can_be_named(tmp_path: Path) -> None:
    code = "from ctl.files import written\nwith written('/dev/stdout') as stream:\n    stream.write(b'through')\n"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "through"
