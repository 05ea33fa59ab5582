"""The errors that a user can act on: each names the file, the field and the remedy."""

from __future__ import annotations

from pathlib import Path


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
