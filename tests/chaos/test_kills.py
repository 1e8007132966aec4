"""The short form of the kills; `make chaos` is the long one."""

from __future__ import annotations

from tests.chaos.kills import defects, rage


def test_whoever_is_killed_nothing_that_was_seen_is_lost_and_nobody_is_left_behind() -> None:
    toll = rage(kills=50, seed=3)
    assert toll.wrong == []
    assert toll.silences == 0, "a killed child costs no answer"
    assert set(toll.killed) == {"daemon", "start", "forkserver", "cryptod-train", "cryptod-collect"}
    assert toll.sights > 100
    assert toll.compared > 100_000


ORPHANED = """Traceback (most recent call last):
  File "<string>", line 1, in <module>
  File "/usr/lib/python3.11/multiprocessing/forkserver.py", line 258, in main
    fds = reduction.recvfds(s, MAXFDS_TO_SEND + 1)
          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/usr/lib/python3.11/multiprocessing/reduction.py", line 159, in recvfds
    raise EOFError
EOFError
"""


def test_what_a_forkserver_says_whose_daemon_was_killed_is_no_defect_and_any_other_trace_is() -> None:
    assert defects(f"info ready\n{ORPHANED}info ready\n") == []
    (found,) = defects(f"{ORPHANED}info ready\n{ORPHANED.replace('forkserver.py', 'pool.py')}info stopped\n")
    assert found.startswith("Traceback")
    assert found.endswith("EOFError\ninfo stopped")
