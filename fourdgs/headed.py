"""Safetensors files with a JSON header of ours: models and rigs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .errors import InputError
from .files import write_aside

_HEADER = "fourdgs"


def save_headed(path: str | Path, about: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors, and what they are as JSON values, whole or not at all."""
    held = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    with write_aside(path) as aside:
        save_file(held, aside, metadata={_HEADER: json.dumps(about)})


@contextlib.contextmanager
def headed(path: str | Path, what: str, remedy: str) -> Iterator[tuple[dict[str, Any], dict[str, torch.Tensor]]]:
    """The header and the tensors that `save_headed` wrote; what the block makes of them may fail as the file may.

    Args:
        what: it should be, with its article, for the error.

    Raises:
        InputError: the file is missing or damaged, or the block could not use it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})[_HEADER])
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        yield about, tensors
    except FileNotFoundError:
        raise InputError("there is no such file", file=path, remedy=remedy) from None
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"is not {what} that can be read: {error}", file=path, remedy=remedy) from error
