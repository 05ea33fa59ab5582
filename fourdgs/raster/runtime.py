"""How the CPU kernels are compiled and cached, and how a call is spread over threads.

A kernel is a numba function ``kernel(start, stop, *arguments)`` that works on a range of items. No result depends on
how the items are cut into ranges: every item (a tile, a block of Gaussians) writes only its own part of the output.

`run` does not use numba's own threads. They don't follow torch's thread count; they abort when two Python threads call
at once (workqueue) or die after a fork (omp); and they fight for the cores with torch's OpenMP threads, which go on
spinning for milliseconds after each of torch's operations. Instead the ranges are handed to torch's own OpenMP team,
through ``GOMP_parallel``, the entry point that compilers call for ``#pragma omp parallel``. Where torch's library
does not offer it (Windows, macOS), and in a forked child, a pool of Python threads, or none, takes its place.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import itertools
import os
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
import torch

# NaN and infinity must keep their meaning (that is how bad input is found), so no nnan and no ninf.
_FAST = {"contract", "arcp", "nsz", "reassoc"}
_WORD_AFTER_S = 1.5


def plain() -> bool:
    """True if the kernels without explicit vectors are asked for: environment variable FOURDGS_RASTER=plain."""
    return os.environ.get("FOURDGS_RASTER") == "plain"


@functools.cache
def _fingerprint(file: str) -> str:
    """A hash of every source file of this package, and of the kernel's own file, which may lie elsewhere."""
    digest = hashlib.sha256()
    for path in sorted({*Path(__file__).parent.glob("*.py"), Path(file)}):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def kernel(function: Callable | None = None, *, inline: bool = False) -> Any:
    """`numba.njit` with the options that all kernels share: disk cache, no GIL, relaxed float32 arithmetic.

    ``inline`` is for small helpers that other kernels call; they are compiled into their callers.
    """
    if function is None:
        return functools.partial(kernel, inline=inline)
    options = {"nogil": True, "error_model": "numpy", "fastmath": _FAST}
    if inline:
        return numba.njit(forceinline=True, **options)(function)
    compiled = numba.njit(cache=True, **options)(function)
    # numba's cache looks only at the kernel's own file; an edited helper elsewhere would be missed.
    with contextlib.suppress(AttributeError):
        compiled._cache._cache_file._source_stamp = _fingerprint(function.__code__.co_filename)
    return compiled


def split(items: int, smallest: int) -> list[tuple[int, int]]:
    """Cut ``range(items)`` into ranges for torch's number of threads, none (but the last) below ``smallest``."""
    threads = torch.get_num_threads()
    parts = min(4 * threads, items // smallest) if threads > 1 else 1
    if parts <= 1:
        return [(0, items)] if items else []
    return [(items * part // parts, items * (part + 1) // parts) for part in range(parts)]


def run(function: Any, ranges: list[tuple[int, int]], *arguments: Any) -> None:
    """Call ``function(start, stop, *arguments)`` for every range, on as many threads as torch uses.

    ``arguments``: C-contiguous arrays and CPU tensors, ints and np.float32s.
    """
    if not ranges:
        return
    call, job = _job(function, ranges, arguments)
    address, threads = ctypes.addressof(job), min(torch.get_num_threads(), len(ranges))
    if threads == 1:
        call(address)
    elif (parallel := _parallel()) is not None:
        parallel(call, address, threads, 0)
    else:
        futures = [_helpers(threads - 1).submit(call, address) for _ in range(threads - 1)]
        call(address)
        for future in futures:
            future.result()
    if job[8 * _FAILED] != b"\0":
        raise MemoryError(f"the kernel {function.__name__} ran out of memory")


# A job is a row of 8-byte words: the next range to take, the number of ranges, at which word the ranges stand, whether
# a kernel failed, then the kernel's arguments as numba passes them (an array as seven or more words), then the ranges.
_FAILED, _HEAD = 3, 4

_BODY = """
define void @body(ptr %job) {{
  %result = alloca ptr
  %error = alloca ptr
  store ptr null, ptr %error
  %count_at = getelementptr i64, ptr %job, i64 1
  %count = load i64, ptr %count_at
  %ranges_at = getelementptr i64, ptr %job, i64 2
  %offset = load i64, ptr %ranges_at
  %ranges = getelementptr i64, ptr %job, i64 %offset
  %failed_at = getelementptr i64, ptr %job, i64 3
  {loads}
  br label %next
next:
  %i = atomicrmw add ptr %job, i64 1 monotonic
  %more = icmp slt i64 %i, %count
  br i1 %more, label %work, label %done
work:
  %place = shl i64 %i, 1
  %start_at = getelementptr i64, ptr %ranges, i64 %place
  %start = load i64, ptr %start_at
  %stop_at = getelementptr i64, ptr %start_at, i64 1
  %stop = load i64, ptr %stop_at
  %status = call i32 inttoptr (i64 {address} to ptr)(ptr %result, ptr %error, i64 %start, i64 %stop{passed})
  %well = icmp eq i32 %status, 0
  br i1 %well, label %next, label %fail
fail:
  store i64 1, ptr %failed_at
  br label %next
done:
  ret void
}}
"""

_bodies: dict[tuple, tuple[Callable, struct.Struct]] = {}
_compile_lock = threading.RLock()


def _job(function: Any, ranges: list[tuple[int, int]], arguments: tuple) -> tuple[Callable, Any]:
    """What to call, and the job whose address it takes."""
    values, kinds = [], [function]
    for argument in arguments:
        if isinstance(argument, torch.Tensor):
            assert argument.is_contiguous(), function.__name__
            kind, before, behind = _array_words(argument.dtype, argument.shape)
            values += before
            values.append(argument.data_ptr())
            values += behind
            kinds.append(kind)
        elif isinstance(argument, np.ndarray):
            assert argument.flags.c_contiguous, function.__name__
            kind, before, behind = _array_words(argument.dtype, argument.shape)
            values += before
            values.append(argument.ctypes.data)
            values += behind
            kinds.append(kind)
        else:
            assert type(argument) in (int, np.float32), (function.__name__, argument)
            values.append(argument)
            kinds.append(type(argument))
    key = tuple(kinds)
    if key not in _bodies:
        with _compile_lock:
            if key not in _bodies:
                _bodies[key] = _make_body(function, arguments)
    body, layout = _bodies[key]
    packed = layout.pack(0, len(ranges), layout.size // 8, 0, *values)
    bounds = struct.pack(f"={2 * len(ranges)}q", *itertools.chain.from_iterable(ranges))
    return body, ctypes.create_string_buffer(packed + bounds)


@functools.lru_cache(maxsize=4096)  # a call has about 30 different shapes, few of which change from call to call
def _array_words(dtype: Any, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    """The kind of a contiguous array, and its words before and behind its address.

    numba's layout of an array: owner (twice), size, bytes an item, address, shape, strides.
    """
    bytes_an_item = dtype.itemsize
    strides, size = [], 1
    for length in reversed(shape):
        strides.append(bytes_an_item * size)
        size *= length
    kind = f"{str(dtype).removeprefix('torch.')} {len(shape)}"
    return sys.intern(kind), (0, 0, size, bytes_an_item), (*shape, *reversed(strides))


def _make_body(function: Any, arguments: tuple) -> tuple[Callable, struct.Struct]:
    """Compile a kernel (or load it from the cache), and the C function that runs it on the ranges of a job."""
    kinds = (numba.int64, numba.int64, *(_kind(argument) for argument in arguments))
    with _say_if_slow(function.__name__):
        try:
            function.compile(kinds)
        except Exception as error:
            advice = "set the environment variable FOURDGS_RASTER=plain to do without explicit vectors"
            raise RuntimeError(f"the kernel {function.__name__} does not compile here; {advice}") from error
    compiled = function.overloads[kinds]
    address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    words = function.targetctx.call_conv.get_function_type(numba.types.none, kinds).args[4:]
    names = [("ptr" if str(word).endswith("*") or str(word) == "ptr" else str(word)) for word in words]
    codes = {"ptr": "Q", "i64": "q", "float": "f4x"}
    loads = [
        f"%at{k} = getelementptr i64, ptr %job, i64 {_HEAD + k}\n  %value{k} = load {name}, ptr %at{k}"
        for k, name in enumerate(names)
    ]
    passed = "".join(f", {name} %value{k}" for k, name in enumerate(names))
    module = llvm.parse_assembly(_BODY.format(loads="\n  ".join(loads), address=address, passed=passed))
    engine = llvm.create_mcjit_compiler(module, llvm.Target.from_default_triple().create_target_machine())
    engine.finalize_object()
    body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(engine.get_function_address("body"))
    body.engine = engine  # owns the code
    return body, struct.Struct("=4q" + "".join(codes[name] for name in names))


def _kind(argument: Any) -> numba.types.Type:
    if isinstance(argument, torch.Tensor):
        argument = argument.detach().numpy()
    if isinstance(argument, np.ndarray):
        return numba.types.Array(numba.from_dtype(argument.dtype), argument.ndim, "C")
    return numba.int64 if type(argument) is int else numba.float32


@contextlib.contextmanager
def _say_if_slow(what: str) -> Iterator[None]:
    """Print one line on stderr, once in a process, if the block takes so long that it must be compiling."""

    def say() -> None:
        if not _said:
            _said.append(what)
            words = "fourdgs: compiling the CPU kernels for this machine, once (about 20 s) ..."
            print(words, file=sys.stderr, flush=True)

    timer = threading.Timer(_WORD_AFTER_S, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


_said: list[str] = []
_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_forked = False


@functools.cache
def _openmp() -> Callable | None:
    """``GOMP_parallel`` of the OpenMP library that torch has loaded."""
    try:
        function = ctypes.CDLL(None).GOMP_parallel
    except (OSError, TypeError, AttributeError):
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    function.restype = None
    return function


def _parallel() -> Callable | None:
    return None if _forked else _openmp()


def _helpers(count: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    with _compile_lock:
        if _pool is None or _pool_size < count:
            _pool, _pool_size = ThreadPoolExecutor(count, thread_name_prefix="fourdgs-raster"), count
        return _pool


def _after_fork() -> None:
    """A forked child has none of its parent's threads, so it must not wait for them; and GNU's OpenMP would."""
    global _pool, _pool_size, _forked, _compile_lock
    _pool, _pool_size, _forked, _compile_lock = None, 0, True, threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
