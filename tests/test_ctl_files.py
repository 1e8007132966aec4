"""Files that are there when they are whole."""

from __future__ import annotations

import os
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
