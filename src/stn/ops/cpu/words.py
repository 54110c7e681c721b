"""One array of int64 numbers that says all of a call to a kernel, and how a kernel reads it.

Numba unboxes a tuple of 13 arrays and 12 numbers in 4.2 us, one array in 0.2. So a call writes addresses, lengths and
numbers into words, and a kernel makes its named tuples of arrays from them: of a tensor it needs the address alone.

A `Record` describes a named tuple, field by field, for both sides. What its words hold:

- `Int`, `Flag`: the number.
- `Real`: the bits of a float64, read in the precision named.
- `Array`: how many bytes it lies beyond its base, then its lengths. Its base is 0 (so it is an address), the words
  themselves, or memory that a kernel names when it reads the record.
- another record: its words.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from llvmlite import ir
from numba import from_dtype, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

NOWHERE, WORDS, MEMORY = range(3)  # what the place of an array is counted from
WORD = ir.IntType(64)
WORD_BYTES = 8


@dataclass(frozen=True)
class Int:
    count: ClassVar[int] = 1

    def numba_type(self) -> Any:
        return types.int64

    def pack(self, value: int) -> list[int]:
        return [int(value)]

    def build(self, context: Any, builder: Any, at: Any, bases: Any) -> Any:
        return builder.load(at)


@dataclass(frozen=True)
class Flag:
    count: ClassVar[int] = 1

    def numba_type(self) -> Any:
        return types.boolean

    def pack(self, value: bool) -> list[int]:
        return [int(value)]

    def build(self, context: Any, builder: Any, at: Any, bases: Any) -> Any:
        return builder.icmp_signed("!=", builder.load(at), WORD(0))


@dataclass(frozen=True)
class Real:
    dtype: str
    count: ClassVar[int] = 1

    def numba_type(self) -> Any:
        return from_dtype(np.dtype(self.dtype))

    def pack(self, value: float) -> list[int]:
        return list(struct.unpack("q", struct.pack("d", value)))

    def build(self, context: Any, builder: Any, at: Any, bases: Any) -> Any:
        number = builder.bitcast(builder.load(at), ir.DoubleType())
        return context.cast(builder, number, types.float64, self.numba_type())


class Place(NamedTuple):
    """The place of an array, in bytes from its base, and its lengths."""

    offset: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Array:
    dtype: str
    ndim: int
    base: int

    @property
    def count(self) -> int:
        return 1 + self.ndim

    def numba_type(self) -> Any:
        return types.Array(from_dtype(np.dtype(self.dtype)), self.ndim, "C")

    def pack(self, value: Place) -> list[int]:
        return [value.offset, *value.shape]

    def build(self, context: Any, builder: Any, at: Any, bases: Any) -> Any:
        kind, size = self.numba_type(), np.dtype(self.dtype).itemsize
        words = [builder.load(cgutils.gep_inbounds(builder, at, i)) for i in range(self.count)]
        strides = [WORD(size)]
        for length in reversed(words[2:]):
            strides.insert(0, builder.mul(strides[0], length))
        array = make_array(kind)(context, builder)
        data = builder.inttoptr(builder.add(bases[self.base], words[0]), context.get_data_type(kind.dtype).as_pointer())
        populate_array(array, data=data, shape=words[1:], strides=strides, itemsize=WORD(size), meminfo=None)
        return array._getvalue()


class Record:
    """A named tuple in words: the class, and for each of its fields how it is written."""

    def __init__(self, kind: Any, fields: Mapping[str, Any]) -> None:
        self.kind = kind
        self.fields = {name: fields[name] for name in kind._fields}
        self.first, at = {}, 0  # the first word of each field
        for name, field in self.fields.items():
            self.first[name], at = at, at + field.count
        self.count = at

    def numba_type(self) -> Any:
        found = [field.numba_type() for field in self.fields.values()]
        return types.BaseTuple.from_types(found, self.kind)

    def pack(self, values: Any) -> list[int]:
        return [word for field, value in zip(self.fields.values(), values, strict=True) for word in field.pack(value)]

    def build(self, context: Any, builder: Any, at: Any, bases: Any) -> Any:
        found = []
        for name, field in self.fields.items():
            found.append(field.build(context, builder, cgutils.gep_inbounds(builder, at, self.first[name]), bases))
        return context.make_tuple(builder, self.numba_type(), found)

    def reader(self, first: int) -> Any:
        """For kernels: (address of the words, that of the memory) -> the named tuple, whose words begin at `first`."""

        @intrinsic
        def read(typing_context, words, memory):  # type: ignore[no-untyped-def]  # Numba types it
            def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
                words, memory = arguments
                at = builder.inttoptr(builder.add(words, WORD(first * WORD_BYTES)), WORD.as_pointer())
                return self.build(context, builder, at, (WORD(0), words, memory))

            return self.numba_type()(types.int64, types.int64), codegen

        return read


@intrinsic
def flat(typing_context, array):  # type: ignore[no-untyped-def]  # Numba types it
    """The numbers of an array of several dimensions, which lie one after the other. `ravel` takes 25 ns."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        whole = make_array(array)(context, builder, value=arguments[0])
        found = make_array(signature.return_type)(context, builder)
        populate_array(
            found, data=whole.data, shape=[whole.nitems], strides=[whole.itemsize], itemsize=whole.itemsize, meminfo=None
        )
        return found._getvalue()

    return types.Array(array.dtype, 1, "C")(array), codegen


@intrinsic
def call_at(typing_context, kernel, words, first, last):  # type: ignore[no-untyped-def]  # Numba types it
    """Call the kernel at an address: (address of the words, first chunk, last + 1)."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kernel = ir.FunctionType(ir.VoidType(), [WORD, WORD, WORD])
        builder.call(builder.inttoptr(arguments[0], kernel.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), codegen


@intrinsic
def call_with(typing_context, code, integers):  # type: ignore[no-untyped-def]  # Numba types it
    """Call the code at an address with a tuple of integers."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        given = [builder.extract_value(arguments[1], i) for i in range(len(integers))]
        function = ir.FunctionType(ir.VoidType(), [WORD] * len(integers))
        builder.call(builder.inttoptr(arguments[0], function.as_pointer()), given)
        return context.get_dummy_value()

    return types.void(types.int64, types.UniTuple(types.int64, len(integers))), codegen
