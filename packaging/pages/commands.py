"""What `cryptod` and `cryptoctl` take on their command lines, read from their own parsers, for manual pages and completion.

Knows argparse's insides, so that no page has to.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cryptod.__main__ import parser as daemon_parser
from cryptod.protocol import COMMANDS
from ctl.main import VERBS
from ctl.main import parser as control_parser


class Argument(NamedTuple):
    """An option, or, without names, an operand."""

    names: tuple[str, ...]
    value: str
    """What stands for its value: ``PATH``; empty for a switch, and where the choices say it."""
    choices: tuple[str, ...]
    several: bool
    """Takes more than one value."""
    needed: bool
    doc: str


class Verb(NamedTuple):
    """One verb of a command: its words, what it does, whether it changes something, what it takes beside what every verb takes."""

    words: str
    doc: str
    changes: bool
    arguments: tuple[Argument, ...]

    @property
    def operands(self) -> tuple[Argument, ...]:
        return tuple(argument for argument in self.arguments if not argument.names)


class Command(NamedTuple):
    """A command: its name, what every verb of it takes, and its verbs."""

    name: str
    everywhere: tuple[Argument, ...]
    verbs: tuple[Verb, ...]


def control() -> Command:
    """`cryptoctl`."""
    rows = []
    for verb in VERBS.values():
        made = control_parser(verb)
        changes = verb.command in COMMANDS and COMMANDS[verb.command].changes
        rows.append(Verb(verb.words, made.description or "", changes, tuple(_arguments(made))))
    return _command("cryptoctl", rows)


def daemon() -> Command:
    """`cryptod`."""
    rows = []
    for verb in _verbs(daemon_parser("")).choices:
        # What a verb takes is there when it is the verb that is asked for.
        verbs = _verbs(daemon_parser(verb))
        doc = next(choice.help for choice in verbs._choices_actions if choice.dest == verb)
        rows.append(Verb(verb, sentence(doc or ""), False, tuple(_arguments(verbs.choices[verb]))))
    return _command("cryptod", rows)


def _command(name: str, verbs: Sequence[Verb]) -> Command:
    everywhere = tuple(argument for argument in verbs[0].arguments if all(argument in verb.arguments for verb in verbs))
    own = (verb._replace(arguments=tuple(argument for argument in verb.arguments if argument not in everywhere)) for verb in verbs)
    return Command(name, everywhere, tuple(own))


def _verbs(parser: argparse.ArgumentParser) -> argparse._SubParsersAction[argparse.ArgumentParser]:
    return next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))


def _arguments(parser: argparse.ArgumentParser) -> Iterator[Argument]:
    """What a parser takes, in its order, without what it hides."""
    for action in parser._actions:
        if action.help == argparse.SUPPRESS:
            continue
        metavar = action.metavar or ("" if action.nargs == 0 or action.choices else action.dest.upper())
        assert isinstance(metavar, str)
        yield Argument(
            names=tuple(action.option_strings),
            value=metavar,
            choices=tuple(map(str, action.choices or ())),
            several=action.nargs in ("+", "*"),
            needed=action.required if action.option_strings else action.nargs not in ("?", "*"),
            doc=sentence(parser._get_formatter()._expand_help(action)),
        )


def sentence(text: str) -> str:
    """Help texts are phrases; on a page they are sentences."""
    first = text.split()[0].rstrip(",")
    head = text[0].upper() if first.isalpha() and first.islower() else text[0]
    return head + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
