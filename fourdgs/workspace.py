"""Where things lie: the same relative path means the same place from the project's root and from ``notebooks/``."""

from __future__ import annotations

from pathlib import Path


def root() -> Path:
    """The nearest folder, from the working directory upwards, that has a ``notebooks`` folder; else that directory."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "notebooks").is_dir() and (folder / "pyproject.toml").is_file():
            return folder
    return here


def place(path: str | Path) -> Path:
    """An absolute path: an absolute one as it is, one that exists from the working directory, else below `root`."""
    path = Path(path)
    if path.is_absolute():
        return path
    return path.resolve() if path.exists() else root() / path
