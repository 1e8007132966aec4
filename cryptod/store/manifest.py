"""A manifest: which checkpoints serve, since when, and what a roll back leads to.

Knows names and coins, and how they stand in a file; nothing of checkpoints themselves. Files of manifests are sealed
with a checksum and never changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptod.store import files

SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """What serves from ``promoted_at`` (UTC epoch ms) on: names of checkpoints, oldest first, each with its coins."""

    generation: int
    promoted_at: int
    entries: tuple[tuple[str, tuple[str, ...]], ...]
    ancestors: tuple[int, ...] = ()
    """The generations that a roll back leads to, nearest first."""
    run: str = ""
    """The job whose batches it promotes: they are promoted one by one, and rolled back as one."""
    restores: int | None = None
    """The generation that a roll back has brought back."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.entries)

    def sealed(self) -> bytes:
        document = {
            "schema": SCHEMA,
            "generation": self.generation,
            "promoted_at": self.promoted_at,
            "checkpoints": [{"name": name, "symbols": list(symbols)} for name, symbols in self.entries],
            "ancestors": list(self.ancestors),
            "run": self.run,
            "restores": self.restores,
        }
        return files.sealed(document, f"manifest {self.generation}")

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Raises `CheckpointError`."""
        with files.translated(path):
            document = files.unsealed(files.read_file(path), path)
        if document.get("schema") != SCHEMA:
            raise files.other_schema(document, path, SCHEMA)
        try:
            return cls(
                generation=int(document["generation"]),
                promoted_at=int(document["promoted_at"]),
                entries=tuple((str(row["name"]), tuple(map(str, row["symbols"]))) for row in document["checkpoints"]),
                ancestors=tuple(map(int, document["ancestors"])),
                run=str(document["run"]),
                restores=document["restores"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise files.damaged(path, "it lacks a manifest's fields") from error
