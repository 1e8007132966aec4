"""The README tells the truth about the tree: every source file has its line, which is the file's own first sentence.

`python tests/test_readme.py` writes the tree anew.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
FLOORS = ("backtest", "daemon", "worker", "training", "report", "forecast", "ingest", "store", "simulator")
PACKAGES = ("cryptod", *(f"cryptod/{name}" for name in FLOORS), "ctl")
OTHERS = """models/             shipped base models (weights and meta data, no code)
etc/                cryptod.toml: every key, commented, at its default
packaging/          systemd/ (units, sysusers, tmpfiles), pages/ (manual pages, completions), debian/ (a package), container/ (an image)
tests/              test_<module>.py; integration/ (real processes), systemd/ (systemd in a box), fresh/ (a new Debian), bench/, demo.py"""
BLOCK = re.compile(r"(### The tree\n\n```text\n)(.*?)(\n```)", re.DOTALL)


def first_sentence(file: Path) -> str:
    text = (ast.get_docstring(ast.parse(file.read_text())) or "").split("\n\n")[0].replace("\n", " ")
    return re.split(r"(?<=[.;])\s", text)[0].rstrip(".;")


def tree() -> str:
    lines = []
    for package in PACKAGES:
        lines.append(f"{package}/")
        files = sorted(file for file in (ROOT / package).glob("*.py") if file.name != "__init__.py")
        lines += [f"  {file.name:<16} {first_sentence(file)}" for file in files]
    return "\n".join([*lines, OTHERS])


def test_the_readmes_tree_is_the_tree_that_there_is() -> None:
    found = BLOCK.search(README.read_text())
    assert found is not None
    assert found[2] == tree(), "write it anew: python tests/test_readme.py"


def test_the_two_commands_that_set_everything_up_come_first() -> None:
    text = README.read_text()
    assert text.index("make demo") < text.index("make test") < text.index("make install")


def test_every_command_of_cryptoctl_that_the_readme_shows_exists() -> None:
    from ctl.main import VERBS

    shown = set(re.findall(r"^\$ (?:sudo )?cryptoctl (\w+)", README.read_text(), re.MULTILINE))
    assert shown
    assert shown <= {verb.split()[0] for verb in VERBS}


if __name__ == "__main__":
    README.write_text(BLOCK.sub(lambda found: found[1] + tree() + found[3], README.read_text()))
