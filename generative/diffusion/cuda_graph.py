"""Functions of CUDA tensors, captured once and replayed as CUDA graphs. Not run on a GPU yet."""

from collections.abc import Callable, Sequence

import torch

# A function of tensors, to one or several.
Part = Callable[..., torch.Tensor | tuple[torch.Tensor, ...]]


class GraphChain:
    """Functions of CUDA tensors, one after the other, each as one CUDA graph: for these shapes and dtypes only.

    What the parts leave to each other stays where it is. Between two of them another process gets its turn on the
    device.

    Args:
        parts: each takes what the one before returned, and the last returns a tensor; wait for nothing from their
            second call on.
        inputs: of the first call; a copy of them on the device is what the graphs read.
        device: a CUDA device.
        pool: of another chain, to share the memory for all that is between input and output; they must not run at the
            same time.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        inputs: Sequence[torch.Tensor],
        *,
        device: torch.device,
        pool: tuple[int, int] | None = None,
    ):
        self.inputs = tuple(torch.empty_like(given, device=device).copy_(given) for given in inputs)
        self.device, self.graphs, self._kept = device, [], []
        with torch.cuda.device(device):
            # Tables, compiled kernels and algorithms are made before the capture, on another stream, as CUDA wants it.
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(2):
                    values = self.inputs
                    for part in parts:
                        values = _tuple(part(*values))
            torch.cuda.current_stream().wait_stream(stream)
            values = self.inputs
            for part in parts:
                graph = torch.cuda.CUDAGraph()
                # Of this thread: others may use the device meanwhile, as those that load a training's data do.
                with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                    values = _tuple(part(*values))
                pool = graph.pool()
                self.graphs.append(graph)
                # As long as they are here, no later graph of the pool writes into their memory.
                self._kept.append(values)
        (self.output,) = values

    def pool(self) -> tuple[int, int]:
        """The memory between input and output, for other chains."""
        return self.graphs[0].pool()

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """What the last part gives; the next call overwrites it."""
        with torch.cuda.device(self.device):
            for own, given in zip(self.inputs, inputs, strict=True):
                own.copy_(given, non_blocking=True)
            for graph in self.graphs:
                graph.replay()
            return self.output


def _tuple(values: torch.Tensor | tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return values if isinstance(values, tuple) else (values,)
