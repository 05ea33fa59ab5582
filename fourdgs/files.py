"""Files that are whole or absent: write aside, then rename. Locks. Content hashes."""

from __future__ import annotations

import contextlib
import ctypes
import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .errors import OutputError

try:
    import fcntl
except ImportError:  # no POSIX system: nothing is locked there
    fcntl = None

_REMEDY = "free some space or choose another output folder"
_FRESH_S = 60.0  # a folder that is younger than this is not swept


@contextlib.contextmanager
def write_aside(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` when the block ends well.

    On any error the temporary file is removed and ``path`` is left as it was.

    Raises:
        OutputError: the folder cannot be written or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error} ({_REMEDY})") from error
    aside = Path(name)
    try:
        yield aside
        # mkstemp makes private files; a result is an ordinary file.
        aside.chmod(0o666 & ~_umask())
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{path}: cannot be written: {error.strerror or error} ({_REMEDY})") from error
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def folder_aside(path: str | Path) -> Iterator[Path]:
    """Like `write_aside` for a whole folder, which takes the place of ``path`` when the block ends well.

    A process that is killed leaves ``path`` as it was, or replaced as a whole; where the file system cannot exchange
    two folders (Linux's common ones can), a kill between two renames leaves the earlier one hidden beside ``path``.
    What a killed process left aside is removed by the next one.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        aside = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error} ({_REMEDY})") from error
    try:
        with _owned(aside):
            yield aside
            aside.chmod(0o777 & ~_umask())
            if not path.exists():
                os.replace(aside, path)
            else:
                if not _exchange(aside, path):
                    old = Path(tempfile.mkdtemp(prefix=f".{path.name}-old-", dir=path.parent)) / path.name
                    os.replace(path, old)
                    os.replace(aside, path)
                    aside = old.parent
                shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{path}: cannot be written: {error.strerror or error} ({_REMEDY})") from error
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step; False where the system cannot."""
    at_cwd, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of <fcntl.h> and <linux/fs.h>
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return rename(at_cwd, os.fsencode(one.absolute()), at_cwd, os.fsencode(other.absolute()), exchange) == 0


@contextlib.contextmanager
def _owned(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, which ends with this process however it ends."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _sweep(path: Path) -> None:
    """Remove what killed processes left aside of ``path``: folders of that name that nobody holds any more."""
    if fcntl is None:
        return  # nobody can say whether one is held
    for folder in path.parent.glob(f".{glob.escape(path.name)}-*"):
        # Not a fresh one: it may be between its making and its lock. Nor one that holds a replaced folder.
        if not re.fullmatch(r"[a-z0-9_]{8}", folder.name[len(path.name) + 2 :]) or not folder.is_dir():
            continue
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _FRESH_S:
                with _owned(folder):
                    shutil.rmtree(folder)


@contextlib.contextmanager
def locked(path: str | Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock file ``path``, which is made; who comes second, process or thread, waits.

    The system lets go of it when its holder dies, in whatever way. The file stays: to remove it would let two in. Not
    to be entered again within the block. Where the system or the file system knows no locks, nobody waits.

    Args:
        waiting: called once, before a wait.

    Raises:
        OutputError: the folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error} ({_REMEDY})") from error
    try:
        if fcntl is not None:
            _lock(handle, waiting)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, waiting: Callable[[], None] | None) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if waiting is not None:
            waiting()
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:
        return


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all."""
    with write_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON (NaN refused), whole or not at all."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def hash_json(value: Any) -> str:
    """A SHA-256 of a JSON value that does not depend on the order of its keys, as 64 hex digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=True).encode()).hexdigest()


def hash_file(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hex digits."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def cache_folder() -> Path:
    """Where what can be made again is kept between runs: $FOURDGS_CACHE, or else ~/.cache/fourdgs."""
    folder = os.environ.get("FOURDGS_CACHE", "")
    return Path(folder).expanduser() if folder else Path.home() / ".cache" / "fourdgs"
