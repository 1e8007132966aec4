"""How a manual page is spelt: the few macros of man(7) that the pages need, and the escapes of groff.

Knows no page. Text is plain but for one mark: what stands in `backquotes` is set in bold.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

_ESCAPES = str.maketrans({"\\": r"\e", "-": r"\-", "'": r"\(aq", "~": r"\(ti", "^": r"\(ha", "`": r"\(ga"})


def literal(text: str) -> str:
    """Text that means itself, character by character, also when it is copied out of the page."""
    return text.translate(_ESCAPES)


def prose(text: str) -> str:
    """A paragraph's text: words with `literals` in bold. A hyphen between words stays one, so that lines may break there."""
    pieces = re.split(r"`([^`]+)`", text)
    return "".join(rf"\fB{literal(piece)}\fR" if index % 2 else _plain(piece) for index, piece in enumerate(pieces))


def _plain(text: str) -> str:
    escaped = text.translate({code: escape for code, escape in _ESCAPES.items() if code != ord("-")})
    return re.sub(r"(?<!\w)-|-(?!\w)", r"\\-", escaped)  # a minus or the dashes of an option


def bold(text: str) -> str:
    return rf"\fB{literal(text)}\fR"


def italic(text: str) -> str:
    return rf"\fI{literal(text)}\fR"


class Page:
    """A page as it grows; `text` is its roff."""

    def __init__(self, name: str, section: int, *, what: str, date: str, source: str, manual: str) -> None:
        self.name, self.section = name, section
        self._lines = [f'.TH {name.upper()} {section} "{date}" "{source}" "{manual}"', ".SH NAME", rf"{literal(name)} \- {_plain(what)}"]

    def heading(self, text: str, *, capital: bool = True) -> None:
        self._lines.append(f".SH {text.upper() if capital else text}")

    def subheading(self, text: str) -> None:
        self._lines.append(f".SS {literal(text)}")

    def paragraph(self, text: str) -> None:
        # A macro without a text before it, as right after a heading, is nothing to groff and a fault to mandoc.
        if not self._lines[-1].startswith((".SH", ".SS")):
            self._lines.append(".PP")
        self._lines += _filled(prose(text))

    def usage(self, words: str, pieces: Iterable[str]) -> None:
        """How a command is written: its words, then pieces, which are roff already and stay whole where the line breaks."""
        self._lines += [f'.SY "{literal(words)}"', *(_shielded(piece.replace(" ", "\\ ")) for piece in pieces), ".YS"]

    def item(self, term: str, *texts: str) -> None:
        """A term, which is roff already, and what is said of it, indented; each text is a paragraph."""
        self._lines += [".TP", term]
        for number, text in enumerate(texts):
            if number:
                self._lines.append(".IP")
            self._lines += _filled(prose(text))

    def example(self, lines: Iterable[str]) -> None:
        self._lines += [".PP", ".RS 4", ".nf", *(_shielded(literal(line)) for line in lines), ".fi", ".RE"]

    @property
    def text(self) -> str:
        return "\n".join(self._lines) + "\n"


def _filled(text: str) -> list[str]:
    """Roff in lines of a terminal's width: where they break means nothing."""
    return [_shielded(line) for line in textwrap.wrap(text, 78, break_long_words=False, break_on_hyphens=False)]


def _shielded(line: str) -> str:
    """A line of text is not a request, whatever it begins with."""
    return rf"\&{line}" if line.startswith(".") else line
