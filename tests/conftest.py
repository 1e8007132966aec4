"""What holds for every test: Ctrl-C works, also in the processes that tests start.

A shell that runs the tests in the background leaves SIGINT ignored, and every child would inherit that.
"""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
