"""Small and read-only file systems, to see what happens when a write fails."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A file system of its own, of so many bytes (``64k``), on the new folder ``place``."""
    place.mkdir()
    with _mounted(place, "-t", "tmpfs", "-o", f"size={size}", "none"):
        yield place


@contextmanager
def read_only(place: Path) -> Iterator[None]:
    """The folder as on a file system that is mounted read-only."""
    with _mounted(place, "--bind", "-o", "ro", str(place)):
        yield


@contextmanager
def _mounted(place: Path, *how: str) -> Iterator[None]:
    if os.geteuid() != 0 or subprocess.run(["mount", *how, place], capture_output=True).returncode != 0:
        pytest.skip("mounting needs root and CAP_SYS_ADMIN")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)
