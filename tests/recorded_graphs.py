"""CUDA graphs without a GPU: operations that no graph may have, and a capture that is recorded and run again."""

from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nnunet_difftumor.kernels.implementation import implementation


class NoWaiting(TorchDispatchMode):
    """Raises at what would make the CPU wait for a GPU, or copy to it from memory that a graph cannot read again."""

    REFUSED = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "lift_fresh", "unique")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.__name__.split(".")[0]
        if name in self.REFUSED or (name == "index" and any(is_mask(index) for index in args[1])):
            raise AssertionError(f"{name} waits for the device")
        return function(*args, **(kwargs or {}))


def is_mask(index) -> bool:
    return index is not None and index.dtype == torch.bool


class RecordedGraph:
    """As torch.cuda.CUDAGraph: the operations of a capture, which run again on the same memory."""

    def __init__(self):
        self.operations = []

    def pool(self):
        return 0, 1

    def replay(self):
        for function, args, kwargs, out in self.operations:
            for again, kept in zip(tree_leaves(function(*args, **kwargs)), tree_leaves(out), strict=True):
                if isinstance(kept, torch.Tensor) and kept.data_ptr() != again.data_ptr():
                    kept.copy_(again)


class Recording(TorchDispatchMode):
    """As torch.cuda.graph."""

    def __init__(self, graph, *, pool, capture_error_mode):
        super().__init__()
        self.graph = graph

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.graph.operations.append((function, args, kwargs or {}, out))
        return out


class Stream:
    def wait_stream(self, other):
        pass


@pytest.fixture
def recorded_graphs(monkeypatch):
    """Every tensor says that it is on a GPU, whose graphs are recorded on the CPU."""
    for name, stand_in in {
        **{"Stream": Stream, "current_stream": Stream, "CUDAGraph": RecordedGraph, "graph": Recording},
        **{"stream": nullcontext, "device": nullcontext},
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    with implementation("reference"):
        yield
