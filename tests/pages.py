"""Pages as a reader and as a browser see them: sound by themselves, and moved by their script in a real Chromium, where there is one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; on Debian: apt install chromium")

VOID = {"meta", "input", "br", "link", "img"}


class Reader(HTMLParser):
    """Checks that every element that is opened is closed, and keeps the text that a person sees."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.outside += [f"{name}={value}" for name, value in attributes if name in ("src", "href") and not str(value).startswith("#")]
        self.seen += [
            str(value) for name, value in attributes if name in ("aria-label", "placeholder", "d", "points", "cx", "cy", "data-value")
        ]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.seen.append(data)


def read(page: str) -> str:
    """All that the page shows; fails where it is not sound by itself."""
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert reader.outside == []
    assert not re.search(r"https?:|@import|url\(", page)
    for drawing in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(drawing)
    text = "\n".join(reader.seen)
    assert not re.search(r"\b(nan|inf|None|NaT)\b", text, re.IGNORECASE)
    return text


def browse(page: Path, script: str, *flags: str) -> Any:
    """What ``script`` (an expression) finds in the page, in a real browser; errors of the page's own script fail."""
    watch, ask = (
        "<script>onerror = e => document.title = 'ERROR ' + e</script>",
        f"<script>document.title = JSON.stringify({script})</script>",
    )
    asked = page.with_suffix(".asked.html")
    asked.write_text(watch + page.read_text() + ask)
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={page.parent / 'profile'}", *flags, "--dump-dom"]
    done = subprocess.run([*command, asked.as_uri()], capture_output=True, text=True, timeout=120)
    found = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert found, done.stderr
    assert not found[1].startswith("ERROR"), found[1]
    return json.loads(unescape(found[1]))
