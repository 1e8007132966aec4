"""Checkpoints: trained models on disk, which of them serve, and the way back.

Knows the folder and the safetensors format (numbers only: a file in it cannot run code); knows nothing of what the
arrays mean. The training child writes checkpoints; the daemon alone decides which serve.

    <root>/<name>/weights.safetensors   the arrays
    <root>/<name>/meta.json             schema, name, created, size and SHA-256 of the weights, the caller's meta; sealed
    <root>/manifests/<generation>.json  what served, since when, and what served before; sealed, never changed
    <root>/current.json                 a copy of the one that serves: replacing it is the one step that promotes
    <root>/.tmp-<random>                being written, or being removed

A manifest lists checkpoints oldest first; a coin is served by the latest that contains it. A roll back is a new
generation that lists what an earlier one listed, so the newest manifest always says what serves, and a damaged
``current.json`` costs nothing. A damaged checkpoint costs only itself: each of its coins is served by the checkpoint
that was promoted before it for that coin, from this manifest or from the ones it descends from. Never by one that
was rolled back.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from cryptod.errors import CheckpointError
from cryptod.store import files
from cryptod.store.manifest import Manifest

SCHEMA: Final = 1
WEIGHTS: Final = "weights.safetensors"
META: Final = "meta.json"
CURRENT: Final = "current.json"
MANIFESTS: Final = "manifests"
MAX_WEIGHTS: Final = 64 << 20
"""Bytes. Honest weights have a few hundred thousand, and the daemon may live in 512 MB."""

Arrays = dict[str, npt.NDArray[Any]]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class NothingToRollBackTo(CheckpointError):
    """No earlier models are kept, or not so many generations of them."""

    code = "conflict"


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """``arrays`` own their memory; ``meta`` is the caller's, as JSON keeps it; ``created`` is in UTC epoch ms."""

    name: str
    arrays: Arrays
    meta: dict[str, Any]
    created: int | None = None

    @property
    def symbols(self) -> tuple[str, ...]:
        """The coins that it can serve."""
        symbols = self.meta.get("symbols")
        return tuple(map(str, symbols)) if isinstance(symbols, list) else ()


def write_checkpoint(
    root: Path, name: str, arrays: Mapping[str, npt.NDArray[Any]], meta: Mapping[str, Any], *, created: int | None = None
) -> Path:
    """Write a checkpoint; when this returns it is complete and on disk.

    ``meta`` is what JSON can hold (no NaN, no numpy scalars); to be promoted it must list its coins as ``symbols``.
    A name that is taken (a resumed job does its batch again) gets a suffix: the name of the folder that is returned
    is the checkpoint's name. Raises `CheckpointError`, and then leaves nothing.
    """
    _check_name(name)
    with files.translated(root):
        root.mkdir(files.MODE_FOLDER, parents=True, exist_ok=True)
    name = _free_name(root, name)
    try:
        weights = safetensors.numpy.save({key: np.asarray(array, order="C") for key, array in arrays.items()})
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"the arrays of checkpoint {name} cannot be written: {error}", hint="plain numeric arrays only") from error
    if len(weights) > MAX_WEIGHTS:
        raise CheckpointError(f"checkpoint {name} has {len(weights):,} bytes of weights", hint=f"the limit is {MAX_WEIGHTS:,}")
    document = {
        "schema": SCHEMA,
        "name": name,
        "created": created,
        "weights": {"size": len(weights), "sha256": hashlib.sha256(weights).hexdigest()},
        "meta": dict(meta),
    }
    sealed = files.sealed(document, f"the meta of checkpoint {name}")
    private = files.private_name(root)
    with files.translated(root / name):
        try:
            files.make_folder(private)
            files.write_file(private / WEIGHTS, weights)
            files.write_file(private / META, sealed)
            files.sync_folder(private)
            private.rename(root / name)
        except OSError:
            shutil.rmtree(private, ignore_errors=True)
            raise
        files.sync_folder(root)
    return root / name


def read_checkpoint(root: Path, name: str) -> tuple[Arrays, dict[str, Any]]:
    """Arrays and meta of a checkpoint whose sizes and checksums are right. Raises `CheckpointError`."""
    checkpoint = load_checkpoint(root, name)
    return checkpoint.arrays, checkpoint.meta


def load_checkpoint(root: Path, name: str) -> Checkpoint:
    """The same with its name and age."""
    _check_name(name)
    path = root / name
    with files.translated(path):
        # The last step of the path may not be a link either; what stands above the root may (systemd makes such).
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
        document = files.unsealed(files.read_file(path / META), path / META)
        size, digest = _said_of_weights(document, path / META, name)
        weights = files.read_file(path / WEIGHTS, size)
    if len(weights) != size:
        raise files.damaged(path / WEIGHTS, f"{len(weights):,} of {size:,} bytes are left")
    if hashlib.sha256(weights).hexdigest() != digest:
        raise files.damaged(path / WEIGHTS, "its checksum is wrong")
    try:
        arrays = {key: array.copy() for key, array in safetensors.numpy.load(weights).items()}
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise files.damaged(path / WEIGHTS, f"it is not in the safetensors format: {error}") from error
    return Checkpoint(name, arrays, document["meta"], document["created"])


def _said_of_weights(document: dict[str, Any], path: Path, name: str) -> tuple[int, str]:
    """Size and checksum that the weights must have, after a look at all the rest of ``meta.json``."""
    if document.get("schema") != SCHEMA:
        raise files.other_schema(document, path, SCHEMA)
    match document:
        case {
            "name": str(called),
            "created": int() | None,
            "weights": {"size": int(size), "sha256": str(digest)},
            "meta": dict(),
        }:
            if called != name:
                raise files.damaged(path, f"it belongs to a checkpoint called {called[:100]!r}")
            if not 0 < size <= MAX_WEIGHTS:
                raise files.damaged(path, f"it promises {size:,} bytes of weights")
            return size, digest
    raise files.damaged(path, "it lacks a checkpoint's fields")


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name in (MANIFESTS, CURRENT):
        raise CheckpointError(f"{name[:100]!r} cannot be a checkpoint's name", hint="letters, digits and _.- only, at most 100")


def _free_name(root: Path, name: str) -> str:
    free, number = name, 1
    while os.path.lexists(root / free):
        number += 1
        free = f"{name[:90]}-{number}"
    return free


@dataclass(frozen=True, slots=True, eq=False)
class Current:
    """The checkpoints that serve, oldest first: a coin is served by the latest that contains it.

    ``generation`` is 0 when nothing was ever promoted. ``refused``: file or checkpoint -> why it could not be used;
    what stands in its place is among ``checkpoints``, if there is anything.
    """

    generation: int
    promoted_at: int
    checkpoints: tuple[Checkpoint, ...]
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(checkpoint.name for checkpoint in self.checkpoints)

    @property
    def serving(self) -> dict[str, str]:
        """symbol -> name of the checkpoint that serves it."""
        return {symbol: checkpoint.name for checkpoint in self.checkpoints for symbol in checkpoint.symbols}


class CheckpointStore:
    """The daemon's hand on the folder; there is one at a time. Its methods raise `CheckpointError`.

    ``keep``: how many earlier generations can be rolled back to.
    """

    def __init__(self, root: Path, keep: int = 3) -> None:
        self.root, self.keep = root, keep
        self._sound: dict[str, Checkpoint] = {}
        """What serves, as it was read and checked when it began to: a batch's promotion must not read those of all the others anew."""

    def load_current(self) -> Current:
        """What serves, read from disk and checked; the head of this file says what stands in for damage."""
        self._sound = {}
        return self._serves(self._load(*self._manifest()))

    def promote(self, add: Sequence[str], now: int, *, run: str = "", followed: Collection[str] | None = None) -> Current:
        """Let the checkpoints ``add`` (oldest first) serve their coins from ``now`` on, in one atomic step.

        Those that serve no coin (of ``followed``, if given) any more are dropped. Promotions of one ``run``, a job
        whose batches come one by one, are one generation to roll back. A damaged checkpoint among ``add`` is an
        error, and then nothing changes; one that serves already is left where it is.
        """
        manifest, refused = self._manifest()
        before = self._serves(self._load(manifest, refused))
        new = [load_checkpoint(self.root, name) for name in dict.fromkeys(add) if name not in before.names]
        if not new:
            return before
        for checkpoint in new:
            if not checkpoint.symbols:
                raise CheckpointError(f"checkpoint {checkpoint.name} does not say which coins it serves", hint="its meta must list symbols")
        serving = _that_serve([*before.checkpoints, *new], followed)
        amends = bool(run) and run == manifest.run
        after = Manifest(
            generation=self._next_generation(manifest),
            promoted_at=now,
            entries=tuple((checkpoint.name, checkpoint.symbols) for checkpoint in serving),
            ancestors=manifest.ancestors if amends else self._descent(manifest),
            run=run,
        )
        self._publish(after)
        if amends:
            with contextlib.suppress(OSError):  # it only takes up room
                self._path(manifest.generation).unlink()
        return self._serves(Current(after.generation, now, serving))

    def rollback(self, steps: int, now: int) -> Current:
        """Let serve again what served ``steps`` generations ago. Raises also `NothingToRollBackTo`."""
        manifest, _ = self._manifest()
        earlier = list(self._ancestors(manifest))
        if not 1 <= steps <= len(earlier):
            raise NothingToRollBackTo(
                f"cannot go back {steps} generations: {len(earlier)} are kept", hint="`cryptoctl models list` shows them"
            )
        target = earlier[steps - 1]
        restored = Manifest(
            generation=self._next_generation(manifest),
            promoted_at=now,
            entries=target.entries,
            ancestors=tuple(ancestor.generation for ancestor in earlier[steps:]),
            restores=target.generation,
        )
        current = self._load(restored, {})
        if not current.checkpoints:
            raise CheckpointError(f"no checkpoint of generation {target.generation} is sound", hint="go back further, or train")
        self._publish(restored)
        return self._serves(current)

    def retreat(self, to: int, now: int) -> Current:
        """Let no checkpoint serve whose cutoff is later than ``to``, and none of them be rolled back to.

        In their place serve the latest kept ones that are not, coin by coin; nothing may be left.
        """
        manifest, refused = self._manifest()
        order = dict(entry for m in (*reversed(list(self._ancestors(manifest))), manifest) for entry in m.entries)
        kept = []
        for name in order:
            with contextlib.suppress(CheckpointError):  # a damaged one is none to go back to
                kept.append(self._sound.get(name) or load_checkpoint(self.root, name))
        kept = [checkpoint for checkpoint in kept if int(checkpoint.meta.get("cutoff") or 0) <= to]
        serving = _that_serve(kept, None)
        after = Manifest(
            generation=self._next_generation(manifest),
            promoted_at=now,
            entries=tuple((checkpoint.name, checkpoint.symbols) for checkpoint in serving),
        )
        self._publish(after)
        return self._serves(Current(after.generation, now, serving, refused))

    def history(self) -> list[dict[str, Any]]:
        """The generations kept, newest first.

        ``steps``: how many to roll back to get there; 0 serves now, None was itself rolled back (or is too old).
        """
        manifest, _ = self._manifest()
        known = {manifest.generation: manifest} if manifest.generation else {}
        for generation, path in self._manifest_files().items():
            # A larger one was cut off before its last step: it never served.
            if generation < manifest.generation:
                with contextlib.suppress(CheckpointError):
                    known[generation] = Manifest.read(path)
        steps = {earlier.generation: number for number, earlier in enumerate((manifest, *self._ancestors(manifest)))}
        return [
            {
                "generation": generation,
                "promoted_at": shown.promoted_at,
                "checkpoints": list(shown.names),
                "coins": len({symbol for _, symbols in shown.entries for symbol in symbols}),
                "run": shown.run,
                "restores": shown.restores,
                "steps": steps.get(generation),
            }
            for generation, shown in sorted(known.items(), reverse=True)
        ]

    def prune(self, protect: Collection[str] = (), *, min_age: float = 3600.0) -> list[str]:
        """Remove manifests that can no longer be rolled back to, checkpoints that none of the others names, and
        what cut-off writers left; return their names.

        Nothing that ``protect`` names, or that was written in the last ``min_age`` seconds by the file system's
        clock (not the daemon's, which may be a simulated one), is touched: a child may just have written it.
        """
        if not self.root.is_dir():
            return []
        with files.translated(self.root):
            manifest, refused = self._manifest()
            if refused and not manifest.generation:
                return []  # no manifest can be read: what they name may still be wanted
            kept = {manifest.generation: manifest} | {m.generation: m for m in self._ancestors(manifest)}
            stored = self._manifest_files()
            for generation in sorted(stored, reverse=True)[: self.keep + 1]:
                with contextlib.suppress(CheckpointError):
                    kept.setdefault(generation, Manifest.read(stored[generation]))
            gone = [path for generation, path in stored.items() if generation not in kept]
            for path in gone:
                path.unlink()
            named = {name for m in kept.values() for name in m.names} | set(protect)
            for path in self._old(min_age):
                if path.name.startswith(files.TEMPORARY):
                    _remove(path)
                elif path.parent == self.root and path.name not in named and _is_checkpoint(path):
                    # Out of sight first: a removal that is cut off must not look like a damaged checkpoint.
                    away = files.private_name(self.root)
                    path.rename(away)
                    _remove(away)
                else:
                    continue
                gone.append(path)
        return sorted(path.name for path in gone)

    def _manifest(self) -> tuple[Manifest, dict[str, str]]:
        """The manifest that serves (generation 0: none), and what had to be refused on the way to it."""
        refused: dict[str, str] = {}
        stored = self._manifest_files()
        newest_first = [path for _, path in sorted(stored.items(), reverse=True)]
        if newest_first or os.path.lexists(self.root / CURRENT):
            for path in (self.root / CURRENT, *newest_first):
                try:
                    return Manifest.read(path), refused
                except CheckpointError as error:
                    refused[str(path.relative_to(self.root))] = str(error)
        return Manifest(0, 0, ()), refused

    def _load(self, manifest: Manifest, refused: Mapping[str, str]) -> Current:
        """The manifest's checkpoints, and for each damaged one those that served its coins before it."""
        ancestors = list(self._ancestors(manifest))
        # In the order of their promotion: a name stands where it first came up.
        order = dict(entry for m in (*reversed(ancestors), manifest) for entry in m.entries)
        wanted: set[str] = set()  # coins of damaged checkpoints that nothing sound serves yet
        covered: set[str] = set()
        sound: list[Checkpoint] = []
        refused = dict(refused)
        for name, symbols in reversed(order.items()):
            if name not in manifest.names and wanted.isdisjoint(symbols):
                continue
            try:
                sound.append(self._sound.get(name) or load_checkpoint(self.root, name))
            except CheckpointError as error:
                refused[name] = str(error)
                wanted |= set(symbols) - covered
            else:
                covered |= set(symbols)
                wanted -= covered
        return Current(manifest.generation, manifest.promoted_at, tuple(reversed(sound)), refused)

    def _serves(self, current: Current) -> Current:
        self._sound = {checkpoint.name: checkpoint for checkpoint in current.checkpoints}
        return current

    def _publish(self, manifest: Manifest) -> None:
        folder, data = self.root / MANIFESTS, manifest.sealed()
        with files.translated(self.root / CURRENT):
            if not folder.is_dir():
                files.make_folder(folder)
                files.sync_folder(self.root)
            files.replace_file(self._path(manifest.generation), data)
            try:
                files.replace_file(self.root / CURRENT, data)
            except OSError:
                if self._manifest()[0].generation != manifest.generation:
                    self._path(manifest.generation).unlink()
                raise

    def _ancestors(self, manifest: Manifest) -> Iterator[Manifest]:
        for generation in manifest.ancestors[: self.keep]:
            # A damaged one cannot be gone back to; those before it can.
            with contextlib.suppress(CheckpointError):
                yield Manifest.read(self._path(generation))

    def _descent(self, manifest: Manifest) -> tuple[int, ...]:
        return (manifest.generation, *manifest.ancestors)[: self.keep] if manifest.generation else ()

    def _next_generation(self, manifest: Manifest) -> int:
        return max(manifest.generation, *self._manifest_files(), 0) + 1

    def _path(self, generation: int) -> Path:
        return self.root / MANIFESTS / f"{generation}.json"

    def _manifest_files(self) -> dict[int, Path]:
        folder = self.root / MANIFESTS
        with files.translated(folder):
            paths = list(folder.iterdir()) if folder.is_dir() else []
        return {int(path.stem): path for path in paths if re.fullmatch(r"[0-9]{1,15}\.json", path.name)}

    def _old(self, min_age: float) -> list[Path]:
        """What stands in the folders and was written more than ``min_age`` seconds ago. Raises `OSError`."""
        probe = files.private_name(self.root)
        files.write_file(probe, b"")
        now = probe.stat().st_mtime
        probe.unlink()
        found = [path for folder in (self.root, self.root / MANIFESTS) if folder.is_dir() for path in folder.iterdir()]
        # A child may rename its own meanwhile.
        return [path for path in found if os.path.lexists(path) and path.lstat().st_mtime <= now - min_age]


def _that_serve(checkpoints: Sequence[Checkpoint], followed: Collection[str] | None) -> tuple[Checkpoint, ...]:
    """Those that are the latest to contain some coin (of ``followed``, if given); both oldest first."""
    covered: set[str] = set()
    kept: list[Checkpoint] = []
    for checkpoint in reversed(checkpoints):
        coins = set(checkpoint.symbols) if followed is None else set(checkpoint.symbols).intersection(followed)
        if not coins <= covered:
            covered |= coins
            kept.append(checkpoint)
    return tuple(reversed(kept))


def _is_checkpoint(path: Path) -> bool:
    """Whether a folder holds what a checkpoint holds and nothing else: others are not ours to remove."""
    return path.is_dir() and not path.is_symlink() and {entry.name for entry in path.iterdir()} <= {WEIGHTS, META}


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
