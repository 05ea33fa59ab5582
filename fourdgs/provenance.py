"""What a result was made with: versions, hardware, the state of the code."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from .files import hash_file

_PACKAGES = (
    "fourdgs-lab", "torch", "numpy", "numba", "scipy", "pandas", "matplotlib", "pillow", "gsplat", "anny", "pyvista",
    "papermill", "ipykernel",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a number or a picture; those not installed are left out."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Processor, cores that may be used, memory, GPUs, system. No names of hosts or people."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    system = f"{platform.system()} {platform.machine()}"
    found: dict[str, Any] = {"processor": _processor(), "cores": cores, "system": system}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    import torch

    found["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return found


def code_state() -> dict[str, Any] | None:
    """The commit of the repository that the library lies in, and whether files differ from it; None without one."""
    folder = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "modified": bool(git("status", "--porcelain", "--", str(folder)))}
    except (OSError, subprocess.SubprocessError):
        return None


def lock_hash() -> str | None:
    """The SHA-256 of ``requirements.lock`` beside the library or in the working directory; None where there is none."""
    for folder in (Path(__file__).parents[1], Path.cwd()):
        if (folder / "requirements.lock").is_file():
            return hash_file(folder / "requirements.lock")
    return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
