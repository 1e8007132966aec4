"""Completion for bash, zsh and fish: ``python packaging/pages/completion.py bash FOLDER ...`` writes them.

The verbs, options and choices are the commands' own. Coins are asked from the daemon when the key is pressed, for a second at
most; when nobody answers, none are offered and nothing is said.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from commands import Argument, Command, Verb, control, daemon
from cryptod.protocol import EVENT_TOPICS, PERIODIC_JOBS

INSTANCES: Final = "INSTANCE"
"""The option's value that is a file's name: each instance has its configuration in /etc/cryptod."""
SYMBOLS: Final = "SYMBOL"
"""The operand and the option's value that the daemon knows the words for."""
WORDS: Final = {"NAME": PERIODIC_JOBS, "TOPIC": EVENT_TOPICS}
"""What stands for a value -> the words that it may be, where it is the daemon that refuses others."""
FILES: Final = re.compile(r"PATH|DIR|FILE.*")
SHELLS: Final = {"bash": "{}", "zsh": "_{}", "fish": "{}.fish"}
"""Shell -> what it calls the file of a command."""


def groups(verbs: Iterable[Verb]) -> dict[str, list[Verb]]:
    """First word -> the verbs of two words that begin with it."""
    found: dict[str, list[Verb]] = {}
    for verb in verbs:
        first, _, second = verb.words.partition(" ")
        if second:
            found.setdefault(first, []).append(verb)
    return found


def first_words(verbs: Iterable[Verb]) -> dict[str, str]:
    """The words that may come first, and what is said of them."""
    parts = groups(verbs)
    return {
        first: " or ".join(verb.words.split()[1] for verb in parts[first]).capitalize() if first in parts else verb.doc
        for verb in verbs
        for first in verb.words.split()[:1]
    }


def quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def brief(text: str) -> str:
    """The first sentence, without its stop: there is room for a line."""
    return re.split(r"(?<=[a-z)])[.;:] | \(default", text)[0].removesuffix(".")


# ------------------------------------------------------------------------------------------------------------ bash

BASH: Final = """# Completion of {command} for bash; made by packaging/pages/completion.py.

_{command}() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD - 1]}}
    local verb= which= given= word words number options= operands= kind=
    COMPREPLY=()
    if [[ $cur == = ]]; then cur=; elif [[ $prev == = ]]; then prev=${{COMP_WORDS[COMP_CWORD - 2]}}; fi
    for ((number = 1; number < COMP_CWORD; number++)); do
        word=${{COMP_WORDS[number]}}
        case $word in
        --socket | --instance)
            [[ ${{COMP_WORDS[number + 1]}} == = ]] && ((number++))
            ((number++))
            which=$word=${{COMP_WORDS[number]}}
            ;;
        -* | =) ;;
        *)
            case $verb in
            '' {groups}) verb=${{verb:+$verb }}$word ;;
            *) given=$word ;;
            esac
            ;;
        esac
    done
    case $verb in
    '') options=--version operands={first} ;;
{verbs}
    esac
    case $verb:$prev in
{values}
    *)
        if [[ $cur == -* ]]; then
            mapfile -t COMPREPLY < <(compgen -W {everywhere}" $options" -- "$cur")
            return
        fi
        kind=$operands
        ;;
    esac
    case $kind in
    @files) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
    @coins)
        words=$(timeout 1 cryptoctl ${{which:+"$which"}} symbols --names 2>/dev/null)
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "${{cur^^}}")
        ;;
    @instances)
        words=$(cd /etc/cryptod 2>/dev/null && ls -- *.toml 2>/dev/null)
        mapfile -t COMPREPLY < <(compgen -W "${{words//.toml/}}" -X cryptod -- "$cur")
        ;;
    @any) ;;
    *) mapfile -t COMPREPLY < <(compgen -W "$kind" -- "$cur") ;;
    esac
}}

complete -F _{command} {command}
"""


def kind(argument: Argument) -> str:
    """What the values of an argument are: words, or one of the kinds that the shell has to find."""
    if words := argument.choices or WORDS.get(argument.value, ()):
        return " ".join(words)
    if argument.value == INSTANCES:
        return "@instances"
    return "@coins" if argument.value == SYMBOLS else "@files" if FILES.fullmatch(argument.value) else "@any"


def bash(command: Command) -> str:
    name, everywhere, verbs = command
    rows, values = [], []
    parts = groups(verbs)
    rows += [
        f"    {first}) operands={quoted(' '.join(verb.words.split()[1] for verb in found))} ;;"
        for first, found in parts.items()
        if not any(verb.words == first for verb in verbs)
    ]
    for verb in verbs:
        options = " ".join(argument.names[-1] for argument in verb.arguments if argument.names)
        # A first word may be a verb of its own too: `symbols`, and `symbols add`.
        second = " ".join(other.words.split()[1] for other in parts.get(verb.words, ()))
        operands = second or (kind(verb.operands[0]) if verb.operands else "@any")
        later = f"; [[ $given ]] && operands={quoted(kind(verb.operands[1]))}" if len(verb.operands) > 1 else ""
        rows.append(f"    {quoted(verb.words)}) options={quoted(options)} operands={quoted(operands)}{later} ;;")
        for argument in verb.arguments:
            if argument.names and (argument.value or argument.choices):
                patterns = " | ".join(quoted(f"{verb.words}:{option}") for option in argument.names)
                values.append(f"    {patterns}) kind={quoted(kind(argument))} ;;")
    values += [f"    *:{argument.names[-1]}) kind={kind(argument)} ;;" for argument in everywhere if argument.value]
    return BASH.format(
        command=name,
        groups=" ".join(f"| {first}" for first in parts),
        everywhere=quoted(" ".join(argument.names[-1] for argument in everywhere)),
        first=quoted(" ".join(first_words(verbs))),
        verbs="\n".join(rows),
        values="\n".join(values),
    )


# ------------------------------------------------------------------------------------------------------------- zsh

ZSH: Final = """#compdef {command}
# Completion of {command} for zsh; made by packaging/pages/completion.py.

_{command}_coins() {{
    local -a coins
    local socket=${{opt_args[--socket]:-$given}} name=${{opt_args[--instance]:-$instance}}
    coins=(${{(f)"$(timeout 1 cryptoctl ${{socket:+--socket=$socket}} ${{name:+--instance=$name}} symbols --names 2>/dev/null)"}})
    (( $#coins )) && compadd -M 'm:{{a-z}}={{A-Z}}' -a coins
}}

_{command}_instances() {{
    local -a names
    names=(/etc/cryptod/*.toml(N:t:r))
    names=(${{names:#cryptod}})
    (( $#names )) && compadd -a names
}}

_{command}() {{
    local curcontext=$curcontext state line context given= instance=
    local -A opt_args
    local -a verbs everywhere
    everywhere=({everywhere})
    verbs=(
{first}
    )
    _arguments -C $everywhere '--version[Say which version this is]' '1: :->verb' '*:: :->rest'
    given=${{opt_args[--socket]}} instance=${{opt_args[--instance]}}
    case $state in
    verb) _describe verb verbs ;;
    rest)
        case $words[1] in
{verbs}
        esac
        ;;
    esac
}}

_{command} "$@"
"""


def _zsh_value(command: str, argument: Argument) -> str:
    """The message and the action of an argument's values."""
    found = kind(argument)
    action = {"@coins": f"_{command}_coins", "@instances": f"_{command}_instances", "@files": "_files", "@any": " "}.get(
        found, f"({found})"
    )
    return f":{_zsh_plain(argument.value) or 'value'}:{action}"


def _zsh_plain(text: str) -> str:
    """Text without what `_arguments` takes for its own marks."""
    return re.sub(r"([\[\]:\\])", r"\\\1", text)


def _zsh_options(command: str, arguments: Iterable[Argument]) -> Iterator[str]:
    for argument in arguments:
        value = _zsh_value(command, argument) if argument.value or argument.choices else ""
        yield from (quoted(f"{name}[{_zsh_plain(brief(argument.doc))}]{value}") for name in argument.names)


def _zsh_arguments(command: str, verb: Verb) -> str:
    operands = [f"{'*' if operand.several else number}{_zsh_value(command, operand)}" for number, operand in enumerate(verb.operands, 1)]
    return " ".join(["_arguments $everywhere", *_zsh_options(command, verb.arguments), *map(quoted, operands)])


def zsh(command: Command) -> str:
    name, everywhere, verbs = command
    parts = groups(verbs)
    alone = {verb.words: verb for verb in verbs if " " not in verb.words}
    rows = [f"        {words}) {_zsh_arguments(name, verb)} ;;" for words, verb in alone.items() if words not in parts]
    for first, found in parts.items():
        described = " ".join(quoted(f"{verb.words.split()[1]}:{brief(verb.doc)}") for verb in found)
        rows += [f"        {first})", f"            verbs=({described})"]
        # A first word may be a verb of its own too: `symbols`, and `symbols add`.
        options = f" $everywhere {' '.join(_zsh_options(name, alone[first].arguments))}" if first in alone else ""
        rows += [f"            _arguments -C{options} '1: :->verb' '*:: :->rest'"]
        rows += [
            "            case $state in",
            "            verb) _describe verb verbs ;;",
            "            rest)",
            "                case $words[1] in",
        ]
        rows += [f"                {verb.words.split()[1]}) {_zsh_arguments(name, verb)} ;;" for verb in found]
        rows += ["                esac", "                ;;", "            esac", "            ;;"]
    return ZSH.format(
        command=name, everywhere=" ".join(_zsh_options(name, everywhere)), verbs="\n".join(rows),
        first="\n".join(f"        {quoted(f'{first}:{brief(doc)}')}" for first, doc in first_words(verbs).items()),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ fish


def fish(command: Command) -> str:
    return "\n".join(_fish_lines(*command)) + "\n"


def _fish_lines(command: str, everywhere: Iterable[Argument], verbs: Iterable[Verb]) -> Iterator[str]:
    yield f"# Completion of {command} for fish; made by packaging/pages/completion.py."
    yield f"function __{command}_coins"
    yield "    timeout 1 cryptoctl symbols --names 2>/dev/null"
    yield "end"
    yield f"function __{command}_instances"
    yield "    for file in /etc/cryptod/*.toml"
    yield "        string replace -r '.*/(.*)[.]toml$' '$1' $file | string match -v cryptod"
    yield "    end"
    yield "end"
    yield f"complete -c {command} -f"
    yield from (_fish_argument(command, argument) for argument in everywhere)
    yield f"complete -c {command} -n __fish_use_subcommand -l version -d 'Say which version this is'"
    parts = groups(verbs)
    for first, doc in first_words(verbs).items():
        yield f"complete -c {command} -n __fish_use_subcommand -a {first} -d {quoted(brief(doc))}"
    for verb in verbs:
        first, _, second = verb.words.partition(" ")
        seen = f"__fish_seen_subcommand_from {first}"
        if second:
            others = " ".join(other.words.split()[1] for other in parts[first])
            when = quoted(f"{seen}; and not __fish_seen_subcommand_from {others}")
            yield f"complete -c {command} -n {when} -a {second} -d {quoted(brief(verb.doc))}"
            seen += f"; and __fish_seen_subcommand_from {second}"
        yield from (_fish_argument(command, argument, seen) for argument in verb.arguments if argument.names or kind(argument) != "@any")


def _fish_argument(command: str, argument: Argument, when: str = "") -> str:
    parts = [f"complete -c {command}", f"-n {quoted(when)}" if when else ""]
    parts += [f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in argument.names]
    if argument.value or argument.choices:
        functions = {"@coins": f"(__{command}_coins)", "@instances": f"(__{command}_instances)"}
        words = {**functions, "@files": "(__fish_complete_path)", "@any": ""}.get(kind(argument), kind(argument))
        parts += ["-x" if argument.names else "", f"-a {quoted(words)}" if words else ""]
    if argument.names:
        parts.append(f"-d {quoted(brief(argument.doc))}")
    return " ".join(filter(None, parts))


MAKERS: Final = {"bash": bash, "zsh": zsh, "fish": fish}


def write(shell: str, folder: Path) -> None:
    """Write a shell's files, as it wants them to be called."""
    folder.mkdir(parents=True, exist_ok=True)
    for command in (control(), daemon()):
        (folder / SHELLS[shell].format(command.name)).write_text(MAKERS[shell](command))


if __name__ == "__main__":
    for shell, folder in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        write(shell, Path(folder))
