"""The three standard streams, which a program may be started without (``2>&-``).

Knows file descriptors. Without them Python has None for a stream, and the next file that is opened, a store perhaps, is given the
number that libraries write their complaints to.
"""

from __future__ import annotations

import os
import sys


def ensure() -> None:
    """Let each of the three that is closed be /dev/null, for this process and those that it starts."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - it stays open as long as the process
