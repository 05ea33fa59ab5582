"""Sixteen float32 numbers as one value in numba kernels: the only place with LLVM code written by hand.

numba has no type for a vector register, and leaves it to LLVM to find vectors in scalar loops, which works for simple
loops only. `Vector` here is LLVM's ``<16 x float>``, and `Mask` its ``<16 x i1>``. LLVM maps them to what the machine
has: one register with AVX-512, two with AVX2, four with SSE or NEON. In a kernel they are used like numbers::

    dx = ramp() + (x0 - record[0])         # Vector + float32: the number is spread over all lanes
    p = (a * dx + b * dy) * dx
    alpha = choose(p <= 0.0, opacity * exp2(p), 0.0)
    store(row, 0, load(row, 0) + alpha)    # 16 neighbours of a float32 array, from an index on

Indices are not checked.
"""

from __future__ import annotations

import operator

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, lower_cast, models, register_model
from numba.np.arrayobj import make_array

from .runtime import kernel

LANES = 16
_FLAGS = ("contract", "arcp", "nsz", "reassoc")
_FLOATS, _BITS = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(ir.IntType(1), LANES)
_INTS = ir.VectorType(ir.IntType(32), LANES)


class _VectorType(types.Type):
    def __init__(self) -> None:
        super().__init__(name="float32x16")


class _MaskType(types.Type):
    def __init__(self) -> None:
        super().__init__(name="bool x16")


vector, mask = _VectorType(), _MaskType()


@register_model(_VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, _FLOATS)


@register_model(_MaskType)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, _BITS)


# Operators. An operand that is a number is spread over the lanes by numba's own casting of arguments.


def _spread(builder, number):
    one = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, ir.Constant(_FLOATS, ir.Undefined), ir.Constant(_INTS, [0] * LANES))


@lower_cast(types.Float, vector)
@lower_cast(types.Integer, vector)
def _cast(context, builder, kind, _, value):
    return _spread(builder, context.cast(builder, value, kind, types.float32))


def _define(function, result, build):
    """Type and lower ``function(vector or number, vector or number)``."""

    @infer_global(function)
    class _Template(AbstractTemplate):
        def generic(self, arguments, _):
            known = all(kind == vector or isinstance(kind, (types.Float, types.Integer)) for kind in arguments)
            if vector in arguments and known and len(arguments) == 2:
                return signature(result, vector, vector)

    @lower_builtin(function, vector, vector)
    def _lower(context, builder, _, arguments):
        return build(builder, *arguments)


_ARITHMETIC = {operator.add: "fadd", operator.sub: "fsub", operator.mul: "fmul", operator.truediv: "fdiv"}
for _function, _name in _ARITHMETIC.items():
    for _same in (_function, getattr(operator, f"i{_function.__name__}")):
        _define(_same, vector, lambda builder, a, b, name=_name: getattr(builder, name)(a, b, flags=_FLAGS))
for _function, _sign in ((operator.lt, "<"), (operator.le, "<="), (operator.gt, ">"), (operator.ge, ">=")):
    _define(_function, mask, lambda builder, a, b, sign=_sign: builder.fcmp_ordered(sign, a, b))


@infer_global(operator.and_)
class _And(AbstractTemplate):
    def generic(self, arguments, _):
        if arguments == (mask, mask):
            return signature(mask, mask, mask)


@lower_builtin(operator.and_, mask, mask)
def _lower_and(context, builder, _, arguments):
    return builder.and_(*arguments)


# Functions.


def _pointer(context, builder, kind, array, index):
    data = make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _FLOATS.as_pointer())


@intrinsic
def load(typing, array, index):
    """array[index : index + 16] of a contiguous float32 array of one axis."""

    def build(context, builder, sig, arguments):
        return builder.load(_pointer(context, builder, sig.args[0], *arguments), align=4)

    return vector(array, types.intp), build


@intrinsic
def store(typing, array, index, value):
    """array[index : index + 16] = value."""

    def build(context, builder, sig, arguments):
        builder.store(arguments[2], _pointer(context, builder, sig.args[0], *arguments[:2]), align=4)
        return context.get_dummy_value()

    return types.none(array, types.intp, vector), build


@intrinsic
def fetch(typing, array, row):
    """Ask for row ``array[row]`` of a contiguous array of two axes to be in the cache soon."""

    def build(context, builder, sig, arguments):
        view = make_array(sig.args[0])(context, builder, arguments[0])
        width = builder.extract_value(view.shape, 1)
        start = builder.gep(view.data, [builder.mul(arguments[1], width)])
        start = builder.bitcast(start, ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        options = [ir.Constant(number, value) for value in (0, 3, 1)]  # to read, in every level, data
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), [start, *options])
        return context.get_dummy_value()

    return types.none(array, types.intp), build


@intrinsic
def spread(typing, number):
    """A Vector of 16 times the same number."""
    return vector(types.float32), lambda context, builder, sig, arguments: _spread(builder, arguments[0])


@intrinsic
def ramp(typing):
    """0, 1, ..., 15."""
    return vector(), lambda context, builder, sig, arguments: ir.Constant(_FLOATS, [float(k) for k in range(LANES)])


@intrinsic
def choose(typing, condition, yes, no):
    """Lane by lane: ``yes`` where the Mask holds, else ``no``."""
    return vector(mask, vector, vector), lambda context, builder, sig, arguments: builder.select(*arguments)


@intrinsic
def some(typing, condition):
    """True if any lane of the Mask holds."""

    def build(context, builder, sig, arguments):
        bits = builder.bitcast(arguments[0], ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(mask), build


def _call(builder, name, result, arguments, **options):
    kinds = [argument.type for argument in arguments]
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, kinds), name)
    return builder.call(function, arguments, **options)


@intrinsic
def least(typing, a, b):
    """Lane by lane minimum."""

    def build(context, builder, sig, arguments):
        return builder.select(builder.fcmp_ordered("<", *arguments), *arguments)

    return vector(vector, vector), build


@intrinsic
def most(typing, a, b):
    """Lane by lane maximum."""

    def build(context, builder, sig, arguments):
        return builder.select(builder.fcmp_ordered(">", *arguments), *arguments)

    return vector(vector, vector), build


@intrinsic
def root(typing, a):
    """Lane by lane square root."""

    def build(context, builder, sig, arguments):
        return _call(builder, "llvm.sqrt.v16f32", _FLOATS, arguments)

    return vector(vector), build


@intrinsic
def magnitude(typing, a):
    """Lane by lane absolute value."""

    def build(context, builder, sig, arguments):
        return _call(builder, "llvm.fabs.v16f32", _FLOATS, arguments)

    return vector(vector), build


@intrinsic
def total(typing, a):
    """The sum of the lanes."""

    def build(context, builder, sig, arguments):
        zero = ir.Constant(ir.FloatType(), 0.0)
        return _call(builder, "llvm.vector.reduce.fadd.v16f32", ir.FloatType(), [zero, *arguments], fastmath=_FLAGS)

    return types.float32(vector), build


@intrinsic
def totals(typing, a, b, c, d, e, f, g, h):
    """The sums of the lanes of eight Vectors, as lanes 0, 2, ..., 14 of one.

    Cheaper than eight times `total`: three rounds put two Vectors into one each, the halves, quarters and eighths of
    one beside those of the other, and add what lies beyond.
    """

    def build(context, builder, sig, arguments):
        row, width = list(arguments), LANES // 2
        while len(row) > 1:
            starts = range(0, LANES, 2 * width)
            low = [start + k for start in starts for k in range(width)]
            picks = []
            for offset in (0, width):
                mine = [lane + offset for lane in low]
                picks.append(ir.Constant(_INTS, mine + [LANES + lane for lane in mine]))
            row = [
                builder.fadd(*(builder.shuffle_vector(x, y, pick) for pick in picks), flags=_FLAGS)
                for x, y in zip(row[::2], row[1::2], strict=True)
            ]
            width //= 2
        swap = ir.Constant(_INTS, [lane ^ 1 for lane in range(LANES)])
        return builder.fadd(row[0], builder.shuffle_vector(row[0], row[0], swap), flags=_FLAGS)

    return vector(*[vector] * 8), build


@intrinsic
def _round(typing, a):
    def build(context, builder, sig, arguments):
        return _call(builder, "llvm.rint.v16f32", _FLOATS, arguments)

    return vector(vector), build


@intrinsic
def _power(typing, whole):
    """2^whole of whole numbers, by writing the exponent's bits."""

    def build(context, builder, sig, arguments):
        bits = builder.fptosi(arguments[0], _INTS)
        bits = builder.add(bits, ir.Constant(_INTS, [127] * LANES))
        return builder.bitcast(builder.shl(bits, ir.Constant(_INTS, [23] * LANES)), _FLOATS)

    return vector(vector), build


@kernel(inline=True)
def exp2(p):
    """2^p for p <= 1, at least 2^-60; relative error under 2e-7."""
    p = most(p, spread(np.float32(-60.0)))
    whole = _round(p)
    f = p - whole
    # Least-squares fit at Chebyshev nodes of [-1/2, 1/2].
    value = f * 0.00132186724816 + 0.0096716979384
    value = value * f + 0.0555089295
    value = value * f + 0.240222380027412
    value = value * f + 0.6931468559416913
    value = value * f + 1.0
    return value * _power(whole)


@kernel(inline=True)
def room(size):
    """An uninitialised float32 array that starts on a cache line, so that no Vector at a multiple of 16 spans two."""
    array = np.empty(size + LANES, np.float32)
    skip = (-array.ctypes.data % 64) // 4
    return array[skip : skip + size]
