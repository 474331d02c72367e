"""How often code asks a GPU for something, counted without one: kernels that it would launch, and copies.

Every Triton launch counts as one, and so does every ATen operation that writes memory, copies included; a convolution
with a bias counts as two, because cuDNN's bias is a kernel of its own. An operation of this package counts what it
launches, with what it does around it. Views and memory that is only reserved cost nothing. An ATen operation of several
kernels, such as a sort, counts as one: the count is a lower bound, and what a GPU's profiler says is what counts.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from torch._library.custom_ops import OPDEFS
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from triton.runtime import interpreter

_OWN = "nnunet_difftumor"
_FREE = ("aten::empty", "aten::new_empty", "aten::_unsafe_view", "aten::detach", "aten::lift_fresh", "aten::resize_")


class Launches(TorchDispatchMode):
    """What ran within it: launches by the name of the kernel or operation."""

    def __init__(self) -> None:
        super().__init__()
        self.by_name: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        with self:
            if func.namespace == _OWN:
                return OPDEFS[name]._backend_fns[None](*args, **kwargs)
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        if cost := _cost(func, args, kwargs):
            self.by_name[name] += cost
        return func(*args, **kwargs)


def _cost(func: Any, args: tuple, kwargs: dict) -> int:
    schema = func._schema
    # A view names its input's memory, without writing it.
    is_view = any(returned.alias_info is not None and not returned.alias_info.is_write for returned in schema.returns)
    if is_view or schema.name.startswith(_FREE):
        return 0
    given = dict(zip((argument.name for argument in schema.arguments), args, strict=False)) | kwargs
    return 2 if schema.name == "aten::convolution" and given["bias"] is not None else 1


@contextmanager
def counted(*, run: bool = True) -> Iterator[Counter]:
    """Counts launches within it; with Triton kernels in a process with TRITON_INTERPRET=1.

    Without `run` kernels are counted and not run, which is much quicker: what they would have written holds anything.
    """
    mode, interpret = Launches(), interpreter.InterpretedFunction.run

    def count(self, *args, **kwargs):
        mode.by_name[self.fn.__name__] += 1
        if run:
            with _disable_current_modes():  # how the interpreter does it is not what a GPU does
                return interpret(self, *args, **kwargs)

    with patch.object(interpreter.InterpretedFunction, "run", count), mode:
        yield mode.by_name
