"""The errors that a user can act on: each names the file, the field and the remedy."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


class InputError(ValueError):
    """Something that the user handed over cannot be used.

    The text reads ``<file>: <field>: <what is wrong> (<what to do>)``, with the parts that are known.
    """

    def __init__(self, message: str, *, file: str | Path | None = None, field: str | None = None, remedy: str = ""):
        self.file = None if file is None else Path(file)
        self.field = field
        self.remedy = remedy
        text = ": ".join(str(part) for part in (file, field, message) if part is not None)
        super().__init__(f"{text} ({remedy})" if remedy else text)


class OutputError(OSError):
    """A result could not be written: the folder is read-only, or the disk is full."""


class MissingDependency(ImportError):
    """An optional package or system library is not on the machine; the text names what to install."""


class OutOfMemory(RuntimeError):
    """The GPU's memory is too small for what was asked; the text names what to lower."""


def command_line(main: Callable[..., int]) -> Callable[..., int]:
    """The ``main`` of a command line, which returns the exit status, with the errors above told in one line on stderr.

    Then the status is 1, and 130, as a shell has it, where the work was interrupted.
    """

    @functools.wraps(main)
    def told(*arguments: Any, **options: Any) -> int:
        try:
            return main(*arguments, **options)
        except KeyboardInterrupt:
            return 130
        except (InputError, OutputError, MissingDependency, OutOfMemory) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1

    return told
