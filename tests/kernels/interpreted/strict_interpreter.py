"""Triton's interpreter, made strict: what is silently wrong or undefined on a GPU fails on a CPU too.

`install()` once, in a process that was started with TRITON_INTERPRET=1, before the first launch. It fixes the
interpreter where its numbers are wrong:

- bfloat16 is stored as its bits: products, sums and dots of it computed with the bits; here with the values, rounded to
  nearest even.
- Loop bounds that are known at run time only fail with NumPy 2.4 and newer.

and turns it into a checker. A launch raises `KernelFaultError` when it

- reads or writes outside the tensors that were passed to it,
- writes what another program of the launch has read or written, or reads what another has written, atomics among
  themselves excepted,
- reduces over fewer than 16 elements in a dot (the tensor cores' least).

Lanes that a mask without `other` switches off read NaN or a huge number. Operands of dots in tf32 lose the bits that
the hardware drops.

It replaces private functions of Triton, so that the version is pinned for tests (constraints.txt), and
test_strict_interpreter.py shows that every check still fires. Bounds are those of the storages: an overrun from one
view into another of the same storage is not seen.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import triton.language as tl
from torch.utils._pytree import tree_leaves
from triton.runtime import interpreter


class KernelFaultError(RuntimeError):
    """What a kernel did that would be undefined on a GPU."""


# What a cell of memory remembers: the program that touched it, or one of these.
_NOBODY, _ATOMICS, _MANY = -1, -2, -3
_CELL_BYTES = 2


class _Memory:
    """Storages of one launch, and which program read and wrote each cell of two bytes."""

    def __init__(self) -> None:
        self._storages: dict[int, tuple[int, np.ndarray, np.ndarray]] = {}

    def add(self, storage: Any) -> None:
        start, size = storage.data_ptr(), storage.nbytes()
        if size:
            cells = -(-size // _CELL_BYTES)
            self._storages[start] = (size, np.full(cells, _NOBODY, np.int32), np.full(cells, _NOBODY, np.int32))
            self._starts = np.array(sorted(self._storages), np.uint64)
            self._sizes = np.array([self._storages[int(a)][0] for a in self._starts], np.uint64)

    def touch(self, pointers: np.ndarray, mask: np.ndarray, *, size: int, kind: str, program: int) -> None:
        shape = np.broadcast_shapes(pointers.shape, mask.shape)
        active = np.broadcast_to(pointers, shape)[np.broadcast_to(mask, shape).astype(bool)].ravel()
        if not active.size:
            return
        which = np.searchsorted(self._starts, active, side="right").astype(np.int64) - 1
        found = np.maximum(which, 0)
        outside = (which < 0) | (active + np.uint64(size) > self._starts[found] + self._sizes[found])
        if outside.any():
            raise KernelFaultError(
                f"out of bounds: {kind} of {int(outside.sum())} of {active.size} lanes, program {program}"
            )
        for index in np.unique(which):
            _, readers, writers = self._storages[int(self._starts[index])]
            cells = ((active[which == index] - self._starts[index]) // np.uint64(_CELL_BYTES)).astype(np.int64)
            self._remember(readers, writers, cells, kind=kind, program=program)

    @staticmethod
    def _remember(readers: np.ndarray, writers: np.ndarray, cells: np.ndarray, *, kind: str, program: int) -> None:
        wrote, read = writers[cells], readers[cells]
        written = (wrote != _NOBODY) & (wrote != program)
        used = (read != _NOBODY) & (read != program)
        if kind == "load":
            if written.any():
                raise KernelFaultError(f"race: program {program} reads what another program of the launch wrote")
            readers[cells] = np.where((read == _NOBODY) | (read == program), program, _MANY)
        elif kind == "store":
            if written.any() or used.any():
                raise KernelFaultError(
                    f"race: program {program} writes what another program of the launch read or wrote"
                )
            writers[cells] = program
        else:
            if (written & (wrote != _ATOMICS)).any() or used.any():
                raise KernelFaultError(f"race: program {program} mixes atomics with plain accesses of another program")
            writers[cells] = _ATOMICS


_memory: _Memory | None = None


def install() -> None:
    """Replaces what is needed in Triton's interpreter; for the whole process."""
    builder = interpreter.InterpreterBuilder
    if getattr(builder, "strict", False):
        return
    builder.strict = True
    _fix_loops()
    _fix_bfloat16(builder)
    _check_dots(builder)
    _check_memory(builder)
    _patch_language_once()


def bfloat16_values(bits: np.ndarray) -> np.ndarray:
    """float32 of bfloat16 bits."""
    return (np.ascontiguousarray(bits).astype(np.uint32) << 16).view(np.float32)


def bfloat16_bits(values: np.ndarray) -> np.ndarray:
    """bfloat16 bits of float32, rounded to nearest even."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def _is_bfloat16(handle: Any) -> bool:
    return not isinstance(handle.dtype, tl.pointer_type) and handle.dtype.scalar == tl.bfloat16


def _values(handle: Any) -> np.ndarray:
    return bfloat16_values(handle.data) if _is_bfloat16(handle) else handle.data


def _handle(data: np.ndarray, dtype: Any) -> Any:
    if dtype == tl.bfloat16 and data.dtype.kind == "f":
        data = bfloat16_bits(data)
    return interpreter.TensorHandle(data, dtype)


def _fix_loops() -> None:
    patch = interpreter._patch_lang_tensor

    def with_index(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(np.asarray(self.handle.data).item()))

    interpreter._patch_lang_tensor = with_index


def _fix_bfloat16(builder: Any) -> None:
    binary, unary, cast, convert = builder.binary_op, builder.unary_op, builder.cast_impl, builder.create_fp_to_fp
    total = interpreter.ReduceOps.sum

    def binary_op(self: Any, lhs: Any, rhs: Any, operation: Callable) -> Any:
        if _is_bfloat16(lhs) or _is_bfloat16(rhs):
            return _handle(operation(_values(lhs), _values(rhs)), tl.bfloat16)
        return binary(self, lhs, rhs, operation)

    def unary_op(self: Any, value: Any, operation: Callable) -> Any:
        if _is_bfloat16(value):
            return _handle(operation(_values(value)), tl.bfloat16)
        return unary(self, value, operation)

    def cast_impl(self: Any, source: Any, wanted: Any) -> Any:
        seen, wanted_scalar = source.dtype.scalar, wanted.scalar
        if seen == wanted_scalar or tl.bfloat16 not in (seen, wanted_scalar):
            return cast(self, source, wanted)
        if wanted_scalar == tl.bfloat16:
            return _handle(source.data.astype(np.float32), tl.bfloat16)
        return interpreter.TensorHandle(
            bfloat16_values(source.data).astype(interpreter._get_np_dtype(wanted)), wanted_scalar
        )

    def fp_to_fp(self: Any, source: Any, wanted: Any, rounding: Any) -> Any:
        if tl.bfloat16 in (source.dtype.scalar, wanted.scalar):
            return cast_impl(self, source, wanted)
        return convert(self, source, wanted, rounding)

    def reduce_sum(self: Any, value: Any) -> Any:
        if value.dtype == tl.bfloat16:
            data = np.sum(bfloat16_values(value.handle.data), axis=self.axis, keepdims=self.keep_dims)
            return self.to_tensor(bfloat16_bits(data), value.dtype)
        return total(self, value)

    builder.binary_op, builder.unary_op, builder.cast_impl = binary_op, unary_op, cast_impl
    builder.create_fp_to_fp = fp_to_fp
    interpreter.ReduceOps.sum = reduce_sum


def _check_dots(builder: Any) -> None:
    plain = builder.create_dot

    def dot(self: Any, a: Any, b: Any, accumulator: Any, precision: Any, imprecise: Any) -> Any:
        left, right = _values(a), _values(b)
        if left.dtype == np.float32 and not _is_bfloat16(a) and str(precision).endswith("TF32"):
            left, right = (_tf32(operand) for operand in (left, right))
        if left.dtype in (np.float16, np.float32):
            # Summed in double precision: equal columns give equal sums, as they do on a GPU, wherever they stand.
            product = np.matmul(left.astype(np.float64), right.astype(np.float64)) + accumulator.data
            return interpreter.TensorHandle(product.astype(accumulator.data.dtype), accumulator.dtype.scalar)
        return plain(self, a, b, accumulator, precision, imprecise)

    builder.create_dot = dot

    def least_dot(lhs: Any, _rhs: Any) -> tuple[int, int, int]:
        return (1, 1, 32 if lhs.scalar.primitive_bitwidth == 8 else 16)

    interpreter.interpreter_builder.codegen_fns["min_dot_size"] = least_dot


def _tf32(operand: np.ndarray) -> np.ndarray:
    """The 10 leading bits of the mantissa, as the tensor cores take them."""
    return (np.ascontiguousarray(operand).view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)


def _check_memory(builder: Any) -> None:
    load, store, atomic = builder.create_masked_load, builder.create_masked_store, builder.create_atomic_rmw
    collect, execute = interpreter.GridExecutor._init_args_hst, interpreter.GridExecutor.__call__

    def check(pointers: Any, mask: Any, kind: str) -> None:
        if _memory is None:
            return
        x, y, z = interpreter.interpreter_builder.grid_idx
        _, of_y, of_z = interpreter.interpreter_builder.grid_dim
        size = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
        _memory.touch(pointers.data, mask.data, size=size, kind=kind, program=(x * of_y + y) * of_z + z)

    def masked_load(self: Any, pointers: Any, mask: Any, other: Any, *options: Any) -> Any:
        check(pointers, mask, "load")
        return load(self, pointers, mask, _poison(pointers) if other is None else other, *options)

    def masked_store(self: Any, pointers: Any, value: Any, mask: Any, *options: Any) -> Any:
        check(pointers, mask, "store")
        return store(self, pointers, value, mask, *options)

    def atomic_rmw(self: Any, operation: Any, pointers: Any, value: Any, mask: Any, *options: Any) -> Any:
        check(pointers, mask, "atomic")
        return atomic(self, operation, pointers, value, mask, *options)

    def init_arguments(self: Any, arguments: Any, named: Any) -> Any:
        global _memory
        host, named_host = collect(self, arguments, named)
        _memory = _Memory()
        for argument in tree_leaves((host, named_host)):
            argument = interpreter._unwrap_tensor(argument)
            if hasattr(argument, "untyped_storage"):
                _memory.add(argument.untyped_storage())
        return host, named_host

    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        global _memory
        try:
            return execute(self, *arguments, **named)
        finally:
            _memory = None

    builder.create_masked_load, builder.create_masked_store = masked_load, masked_store
    builder.create_atomic_rmw = atomic_rmw
    interpreter.GridExecutor._init_args_hst, interpreter.GridExecutor.__call__ = init_arguments, call


def _poison(pointers: Any) -> Any:
    """What a lane reads that its mask switches off."""
    dtype = pointers.get_element_ty()
    numbers = interpreter._get_np_dtype(dtype)
    if dtype == tl.bfloat16:
        value: Any = 0x7FC0
    elif numbers.kind == "f":
        value = np.nan
    else:
        value = True if numbers.kind == "b" else np.iinfo(numbers).max // 3
    return interpreter.TensorHandle(np.full(pointers.data.shape, value, dtype=numbers), dtype)


def _patch_language_once() -> None:
    """Every call of a device function patches triton.language again, and leaves it so: slow, and wrong afterwards."""
    patch, execute = interpreter._patch_lang, interpreter.GridExecutor.__call__
    scopes: list[Any] = []
    patched: set[int] = set()

    class Kept:
        def restore(self) -> None:
            pass

    def patch_lang(function: Any) -> Any:
        modules = {
            id(value) for value in function.__globals__.values() if inspect.ismodule(value) and value in (tl, tl.core)
        }
        if not modules <= patched:
            patched.update(modules)
            scopes.append(patch(function))
        return Kept()

    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        try:
            return execute(self, *arguments, **named)
        finally:
            while scopes:
                scopes.pop().restore()
            patched.clear()

    interpreter._patch_lang, interpreter.GridExecutor.__call__ = patch_lang, call
