"""Pictures written away as they are drawn, into a folder that grows over as many runs as it takes.

Work goes on in ``<folder>.part``: each picture is whole there or absent, so that after any interruption, a kill
included, the same call goes on with those that are missing. ``recipe.json`` in it names, by a hash, all that the
pictures depend on. Only when the last picture and the transforms files are written is the part renamed to
``<folder>``, so nobody ever reads half a capture.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..cameras import Cameras
from ..errors import InputError, OutputError
from ..files import hash_json, write_aside, write_json
from .orbit import iterate_pictures

PNG = {"compress_level": 6, "compress_type": 3}
"""Run-length matching only (zlib's Z_RLE). Measured on the avatar at 1024x1024, against level 4, the best of the nine
levels for speed times size: 30 instead of 45 ms and 288 instead of 295 kB a picture (level 9: 468 ms, 275 kB)."""

_IEND = b"\0\0\0\0IEND\xaeB`\x82"  # how every whole PNG file ends


@contextlib.contextmanager
def growing_folder(
    folder: Path,
    recipe: dict[str, Any],
    maker: str,
    *,
    overwrite: bool,
    note: dict[str, Any] | None = None,
    progress: bool = True,
) -> Iterator[Path]:
    """Give ``<folder>.part``, with what earlier runs of this recipe left there; it becomes ``folder`` at the end.

    What a ``folder`` of the same recipe holds (in which then something is missing, or to be changed) goes back into
    the part, but for its transforms files. When the block fails, the part stays, unless it holds no picture.

    Args:
        recipe: JSON. maker: a key that recipes of this maker have; folders of others are never touched.
        overwrite: replace a folder or a part of another recipe; the folder only when the new one is whole.
        note: JSON that is kept in ``recipe.json`` beside the recipe and its hash.
        progress: say what an interrupted run keeps.

    Raises:
        InputError: the folder or the part holds another recipe or something else, or another process works there.
        OutputError: it cannot be written.
    """
    folder = folder.absolute()  # so that it has a name, "." too
    part = folder.with_name(folder.name + ".part")
    for place in (folder, part):
        _check_place(place, recipe, maker, overwrite)
    content = {"hash": hash_json(recipe), **(note or {}), "recipe": recipe}
    with _output_errors(folder):
        part.mkdir(parents=True, exist_ok=True)
        with _alone(part):
            try:
                _prepare(part, folder, content)
                yield part
            except BaseException:
                kept = sum(1 for _ in _pictures(part))
                if kept:
                    say(progress, f"stopped: {kept} pictures are kept in {part.resolve()}; the same call goes on there")
                else:
                    shutil.rmtree(part, ignore_errors=True)
                raise
            count = sum(1 for _ in _pictures(part))
            write_json(part / "recipe.json", {"hash": content["hash"], "pictures": count, **content})
            old = folder.with_name(f".{folder.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            if folder.exists():
                os.replace(folder, old)
            os.replace(part, folder)
            shutil.rmtree(old, ignore_errors=True)


def _prepare(part: Path, folder: Path, content: dict[str, Any]) -> None:
    """Leave in the part what this recipe's earlier runs have whole, in the part or in the folder, and nothing else."""
    if read_recipe(part).get("hash") != content["hash"]:
        for there in part.iterdir():
            shutil.rmtree(there) if there.is_dir() else there.unlink()
    write_json(part / "recipe.json", content)
    for file in [*part.glob("transforms*.json"), *part.rglob(".*")]:
        if file.is_file():
            file.unlink()  # the transforms come last again; and what a kill left half written
    if read_recipe(folder).get("hash") == content["hash"]:
        for file in folder.glob("transforms*.json"):
            file.unlink()
        for there in folder.iterdir():
            if not (part / there.name).exists():
                os.replace(there, part / there.name)


def stream_pictures(
    mesh: Any,
    cameras: Cameras,
    files: Sequence[Sequence[str]],
    folder: Path,
    *,
    develop: Callable[[int, np.ndarray], Sequence[np.ndarray]] | None = None,
    png: dict[str, int] = PNG,
    progress: bool = True,
    description: str = "pictures",
    **drawing: Any,
) -> int:
    """Draw what is missing and write it away as it comes, each PNG aside and then renamed.

    Args:
        cameras: C. files: C tuples of paths in ``folder``, those that come of one drawing.
        develop: from a drawing's number and picture [H, W, 4] to as many pictures as it has files; None: itself.
        png: for PIL. drawing: for `iterate_pictures`.

    Returns:
        How many drawings of the C were there already.
    """
    missing = [
        index
        for index, (names, size) in enumerate(zip(files, cameras.sizes.tolist(), strict=True))
        if not all(is_whole(folder / name, size) for name in names)
    ]
    kept = len(files) - len(missing)
    if kept:
        say(progress, f"{description}: {kept} of {len(files)} pictures were drawn before and are kept")
    if not missing:
        return kept
    # All cameras at one time, then the next: a mesh is posed once a time, not once a picture.
    times = cameras.times.double().numpy()[missing]
    order = [missing[place] for place in np.argsort(np.where(np.isnan(times), -1, times), kind="stable")]
    pictures = iterate_pictures(mesh, cameras[order], progress=progress, description=description, done=kept, **drawing)
    workers = min(4, os.cpu_count() or 1)
    pending: deque[Future] = deque()
    with ThreadPoolExecutor(workers) as pool, contextlib.closing(pictures):
        for index, picture in zip(order, pictures, strict=True):
            developed = (picture,) if develop is None else develop(index, picture)
            for name, pixels in zip(files[index], developed, strict=True):
                pending.append(pool.submit(write_png, folder / name, pixels, png))
            while len(pending) > 2 * workers:  # pictures come faster than some disks take them
                pending.popleft().result()
        for result in pending:
            result.result()
    return kept


def write_png(path: Path, picture: np.ndarray, png: dict[str, int] = PNG) -> None:
    """A uint8 picture [H, W, 3 or 4] as PNG, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    with write_aside(path) as aside:
        Image.fromarray(picture).save(aside, format="PNG", **png)


def _check_place(place: Path, recipe: dict[str, Any], maker: str, overwrite: bool) -> None:
    """Raise InputError where a folder holds what must not be touched."""
    if not place.exists() or (place.is_dir() and all(file.name.startswith(".") for file in place.iterdir())):
        return
    there = read_recipe(place)
    old = there.get("recipe")
    if not isinstance(old, dict) or maker not in old:
        raise InputError("holds something else", file=place, field="folder", remedy="choose another folder")
    if there.get("hash") != hash_json(recipe) and not overwrite:
        differs = sorted(key for key in {*old, *recipe} if old.get(key) != recipe.get(key))
        count = there.get("pictures")
        state = f"{count} pictures" if count else f"{sum(1 for _ in _pictures(place))} pictures of a capture begun"
        raise InputError(
            f"holds {state} with another recipe (another {', '.join(differs)})",
            file=place,
            field="folder",
            remedy="ask for that recipe again, choose another folder, or overwrite=True",
        )


def _pictures(folder: Path) -> Iterator[Path]:
    """The whole ones; a picture that is being written has a hidden name."""
    return (path for path in folder.rglob("*.png") if not path.name.startswith("."))


def read_recipe(folder: Path) -> dict[str, Any]:
    """What ``recipe.json`` says; {} where there is none that can be read."""
    try:
        content = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def is_whole(path: Path, size: Sequence[int]) -> bool:
    """Whether a PNG file is there from its first to its last bytes, with these (width, height)."""
    try:
        with open(path, "rb") as handle:
            head = handle.read(24)
            handle.seek(-len(_IEND), os.SEEK_END)
            tail = handle.read()
    except OSError:  # it is not there, or shorter than the tail
        return False
    place = [int.from_bytes(head[start : start + 4], "big") for start in (16, 20)]
    return head[:8] == b"\x89PNG\r\n\x1a\n" and place == list(size) and tail == _IEND


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second process out of a folder; the lock goes with this process, however it ends."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            remedy = "wait for it, or end it"
            raise InputError("another process is at work there", file=folder, field="folder", remedy=remedy) from error
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _output_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        remedy = "free some space or choose another output folder"
        raise OutputError(f"{folder}: cannot be written: {error.strerror or error} ({remedy})") from error


def say(progress: bool, words: str) -> None:
    """Print words without breaking a bar."""
    if progress:
        from tqdm.auto import tqdm

        tqdm.write(words)
