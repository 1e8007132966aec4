"""What `make test-fresh` takes along from a machine, and what it leaves there."""

import pytest

from tests.fresh.__main__ import checkout, pip_settings


def test_a_fresh_machine_gets_pips_way_to_the_index_and_nothing_that_lies_on_this_disk() -> None:
    said = """\
:env:.cert='/etc/ssl/certs/ca-certificates.crt'
:env:.find-links='/opt/wheels'
global.constraint='/etc/xdg/pip/constraints.txt'
global.default-timeout='180'
global.extra-index-url='file:///opt/one/simple https://second.invalid/simple /opt/three'
global.index-url='https://first.invalid/simple'
install.no-index='true'
"""
    assert pip_settings(said) == {
        "cert": "/etc/ssl/certs/ca-certificates.crt",
        "default-timeout": "180",
        "extra-index-url": "https://second.invalid/simple",
        "index-url": "https://first.invalid/simple",
    }
    assert pip_settings("global.extra-index-url='file:///opt/one'\n") == {}


@pytest.mark.parametrize("path", ["/usr/bin:/bin", "/nowhere"])
def test_a_fresh_machine_gets_the_checkout_and_nothing_that_was_made_in_it(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", path)  # with git, where it is, and without
    found = checkout()
    assert {"Makefile", "README.md", "cryptod/__main__.py", "packaging/debian/build", "tests/test_fresh.py"} <= set(found)
    assert [name for name in found if name.startswith((".venv", "dist/", "build/", ".git/", "cryptod.egg-info"))] == []
