"""The repository as a whole: what stands where, what is pinned, and what must never be in it."""

import ast
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import tomllib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

TOP = {
    ".ci", ".gitignore", "CHANGELOG.md", "LICENSE", "Makefile", "README.md", "constraints.txt", "cryptod", "ctl", "docs", "etc", "models",
    "packaging", "pyproject.toml", "tests",
}  # fmt: skip
"""Nothing else stands at the top: a new file belongs into one of these folders."""

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = dict(re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M))


def tracked() -> list[Path]:
    """The files under version control."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).exists()]


def texts() -> list[tuple[Path, str]]:
    found = []
    for path in tracked():
        try:
            found.append((path.relative_to(ROOT), path.read_text()))
        except UnicodeDecodeError:
            continue
    return found


def test_the_top_level_is_fixed() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in tracked()} <= TOP


def test_every_file_of_the_project_opens_by_saying_what_it_is() -> None:
    silent = [
        path.relative_to(ROOT)
        for path in tracked()
        if path.suffix == ".py" and path.name != "__init__.py" and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_no_file_is_called_after_nothing() -> None:
    empty = {"utils", "util", "common", "helpers", "helper", "base", "manager", "misc", "core"}
    assert [path for path in tracked() if path.suffix == ".py" and path.stem in empty] == []


def test_nothing_names_a_machine_or_a_package_index() -> None:
    forbidden = re.compile(
        r"/home/\w+/|/work/|/root/\.|pypi\.org|pythonhosted|download\.pytorch|BEGIN [A-Z ]*PRIVATE KEY|(?i:api[_-]?secret\s*=\s*['\"])"
    )
    # One exception: pip's own index has no builds of torch for processors alone, so the default of the Makefile names the one that has.
    default = "TORCH_INDEX ?= https://download.pytorch.org/whl/cpu\n"
    makefile = Path("Makefile")
    read = [(path, text.replace(default, "", 1) if path == makefile else text) for path, text in texts()]
    wrong = [f"{path}: {hit[0]}" for path, text in read if path != Path(__file__).relative_to(ROOT) for hit in forbidden.finditer(text)]
    assert wrong == []
    assert default in (ROOT / makefile).read_text()


def index_of(folder: Path, default: str, *variables: str) -> str:
    """The option that make hands to pip, where the Makefile's default is this."""
    text = (ROOT / "Makefile").read_text()
    (folder / "Makefile").write_text(re.sub(r"^TORCH_INDEX \?= .*$", f"TORCH_INDEX ?= {default}", text, flags=re.M))
    (folder / "constraints.txt").write_text("torch==2.13.0\n")
    ask = 'ask: ; @index="$(call index,$(PYTHON))"; echo "[$$index]"'
    environ = {name: value for name, value in os.environ.items() if name != "TORCH_INDEX"}
    command = ["make", "--no-print-directory", "--eval", ask, "ask", f"PYTHON={sys.executable}", *variables]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=20, env=environ)
    return done.stdout.strip().replace("[ ", "[")


def test_make_takes_torch_from_the_default_index_where_that_answers_and_does_not_wait_for_one_that_does_not(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, socket.create_server(("127.0.0.1", 0)) as silent:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        answers = f"http://127.0.0.1:{server.server_port}"
        assert index_of(tmp_path, answers) == f"[--index-url {answers}]"
        assert index_of(tmp_path, f"{answers}/nothing") == "[]"
        assert index_of(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}") == "[]"
        assert index_of(tmp_path, answers, "TORCH_INDEX=") == "[]"
        assert index_of(tmp_path, answers, "TORCH_INDEX=https://index.invalid/cpu") == "[--index-url https://index.invalid/cpu]"
        server.shutdown()


def test_nothing_is_pickled() -> None:
    calls = {"pickle.load", "pickle.loads", "pickle.dump", "pickle.dumps", "torch.load", "torch.save", "marshal.loads", "eval", "exec"}
    wrong = []
    for path in tracked():
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in ("cryptod", "ctl"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in calls:
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} calls {ast.unparse(node.func)}")
                if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
                    wrong.append(f"{path.relative_to(ROOT)}:{node.value.lineno} allows pickle")
    assert wrong == []
    assert [path for path in tracked() if path.suffix in (".pkl", ".pickle", ".pt", ".pth", ".joblib")] == []


def test_except_exception_stands_in_three_places_at_most() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in tracked()
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in ("cryptod", "ctl")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
        and not (isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None)  # one that only tidies up hides nothing
    ]
    assert len(found) <= 3, f"a periodic turn, a control request, a child's top, and no more: {found}"


def requirements(extra: str) -> list[str]:
    project = PROJECT["project"]
    lines = project["dependencies"] if not extra else project["optional-dependencies"][extra]
    return [match[0] for line in lines if (match := re.match(r"[A-Za-z0-9_.-]+", line))]


@pytest.mark.parametrize("extra", ["", "daemon", "metrics", "watch", "png", "frames", "parquet", "test", "bench"])
def test_every_dependency_is_pinned(extra: str) -> None:
    known = {re.sub(r"[-_.]+", "-", name).lower() for name in PINS}
    assert [name for name in requirements(extra) if name.lower() not in known] == []


def test_torch_is_pinned_to_a_public_release() -> None:
    assert PINS["torch"] == "2.13.0"
    assert [version for version in PINS.values() if "+" in version] == []


def test_the_light_client_needs_msgpack_only() -> None:
    assert requirements("") == ["msgpack"]


def test_what_is_installed_is_what_is_pinned() -> None:
    from importlib.metadata import PackageNotFoundError, version

    differing = {}
    for name, pinned in PINS.items():
        try:
            found = version(name).split("+")[0]
        except PackageNotFoundError:
            continue  # of another extra
        if found != pinned:
            differing[name] = (found, pinned)
    assert differing == {}


def test_the_changelog_keeps_what_is_not_released() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


def test_make_says_what_it_can_do_without_making_anything() -> None:
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.split()[1] for line in said.splitlines()} >= {"demo", "test", "run", "bench", "install", "uninstall", "clean", "help"}


@pytest.mark.parametrize(("python", "words"), [("/bin/false", "older than Python 3.11"), ("no-such-python", "is missing")])
def test_make_stops_with_a_sentence_where_python_will_not_do(python: str, words: str, tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    made = subprocess.run(["make", "test", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode != 0
    assert words in made.stderr
    assert "make PYTHON=" in made.stderr
    assert not (tmp_path / ".venv").exists()


def test_a_python_without_venv_is_named_with_the_package_to_install(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    made = subprocess.run(["make", "test", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode != 0
    assert "apt install python3-venv" in made.stderr
