"""A function of CUDA tensors, captured once and replayed as one CUDA graph. Not run on a GPU yet."""

from collections.abc import Callable, Sequence

import torch


class Graph:
    """A function of CUDA tensors as one CUDA graph: for inputs of these shapes, dtypes and device only.

    Args:
        function: of tensors, to a tensor; waits for nothing from its second call on.
        inputs: of the first call.
        pool: of another graph, to share the memory for all that is between input and output; they must not run at the
            same time.
    """

    def __init__(
        self,
        function: Callable[..., torch.Tensor],
        inputs: Sequence[torch.Tensor],
        *,
        pool: tuple[int, int] | None = None,
    ):
        self.inputs = [given.clone() for given in inputs]
        self.device = self.inputs[0].device
        with torch.cuda.device(self.device):
            # Tables, compiled kernels and algorithms are made before the capture, on another stream, as CUDA wants it.
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(2):
                    function(*self.inputs)
            torch.cuda.current_stream().wait_stream(stream)
            self.graph = torch.cuda.CUDAGraph()
            # Of this thread: others may use the device meanwhile, as those that load a training's data do.
            with torch.cuda.graph(self.graph, pool=pool, capture_error_mode="thread_local"):
                self.output = function(*self.inputs)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        with torch.cuda.device(self.device):
            for own, given in zip(self.inputs, inputs, strict=True):
                own.copy_(given)
            self.graph.replay()
            return self.output.clone()
