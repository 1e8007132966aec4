"""`cryptod run` on a machine whose clock somebody steps: the wall clock is the machine's plus the seconds that stand in a file.

    python -m tests.integration.stepped FILE

Nothing of cryptod is replaced, only what Python tells it of the time; the monotonic clock, which nobody can step, is left alone.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path


class SteppedClock:
    """The machine's wall clock and a step, in seconds, that is read again whenever the file has changed."""

    def __init__(self, path: Path) -> None:
        self._path, self._time_ns = path, time.time_ns
        self._seen = -1
        self._step = 0

    def time_ns(self) -> int:
        changed = os.stat(self._path).st_mtime_ns
        if changed != self._seen:
            self._seen, self._step = changed, int(float(self._path.read_text() or "0") * 1e9)
        return self._time_ns() + self._step

    def time(self) -> float:
        return self.time_ns() / 1e9


if __name__ == "__main__":
    clock = SteppedClock(Path(sys.argv[1]))
    time.time, time.time_ns = clock.time, clock.time_ns
    from cryptod.__main__ import main  # after the clock: who keeps `time.time` for later must keep this one

    sys.exit(main(["run"]))
