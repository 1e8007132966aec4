"""What failed, on what, and what to do about it.

Knows nothing of the rest of the project. Every error that leaves a module is one of these: a dependency's own
exception is translated once, in the file that owns the dependency.
"""

from __future__ import annotations

import sys


class CryptodError(Exception):
    """An error with a sentence (what failed, on what) and a hint (what to do).

    ``code`` is the stable, machine-readable name that goes over the socket; see ``protocol.ERROR_CODES``.
    """

    code = "internal"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class MissingPackage(CryptodError):
    """Something needs a package that this environment is without. ``need``: who needs it, with the verb."""

    def __init__(self, need: str, package: str, *, instead: str = "") -> None:
        hint = f"python3 -m pip --python {sys.executable} install {package}{instead and f', or {instead}'}"
        super().__init__(f"{need} the package {package}, which is not installed", hint=hint)


class ConfigError(CryptodError):
    """A setting is misspelt, of the wrong type or out of range."""

    code = "bad_config"


class ExchangeError(CryptodError):
    """The exchange could not be asked, refused, or answered nonsense.

    ``retry_after`` (seconds) is set when the exchange said, or implied, when to come back.
    """

    code = "exchange"

    def __init__(self, message: str, *, hint: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class StoreError(CryptodError):
    """A store is damaged, full, or of a schema that this version does not know."""

    code = "store"


class DamagedError(StoreError):
    """The file of a store is damaged: it cannot be mended, only set aside."""


class CheckpointError(StoreError):
    """A checkpoint is damaged, missing, or made for another network."""

    code = "checkpoint"


class DataError(CryptodError):
    """Candles that cannot be used: too few, flat, not finite, or contradicting themselves."""

    code = "data"


class WorkerError(CryptodError):
    """A child died, hung, ran over its deadline or out of its memory cap."""

    code = "worker"


class LoadError(WorkerError):
    """A child could not load what it runs: a library is missing, broken, too large for it, or made for another processor."""


class RequestError(CryptodError):
    """A request on the socket was refused. ``code`` says why; the client raises the same class."""

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class DaemonUnreachable(CryptodError):
    """Nobody answers on the socket."""

    code = "unreachable"


_NO_MEMORY = ("can't allocate memory", "can't start new thread", "std::bad_alloc", "Cannot allocate memory")
"""How torch, Python's threads, C++ and the C library say that there is no more memory."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception, of whatever library, means that memory ran out."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY)
