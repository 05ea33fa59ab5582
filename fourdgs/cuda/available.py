"""Whether the fused kernels can run here, asked once a process; said once where they can't."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import warnings

import torch

SWITCH = "FOURDGS_FUSED"


@functools.cache
def why_not_fused() -> str | None:
    """What the fused CUDA kernels lack on this machine, with the remedy; None where nothing."""
    if os.environ.get(SWITCH) == "0":
        return f"{SWITCH}=0 turns them off"
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed: pip install triton (torch's CUDA wheels for Linux bring it)"
    compiler = os.environ.get("CC") or next((name for name in ("gcc", "clang", "cc") if shutil.which(name)), None)
    if compiler is None or shutil.which(compiler) is None:
        return "Triton needs a C compiler: install one (apt install gcc), or set CC"
    return None


@functools.cache
def fused() -> bool:
    """Whether CUDA tensors go through the fused kernels; warns once where they could but for something missing."""
    reason = why_not_fused()
    if reason is not None and torch.cuda.is_available() and os.environ.get(SWITCH) != "0":
        warnings.warn(f"the fused CUDA kernels are left out, training is slower: {reason}", stacklevel=3)
    return reason is None
