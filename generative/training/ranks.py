"""What the processes of a distributed training tell each other; of a single process, the value itself."""

import torch
from torch import distributed


def together() -> bool:
    """Whether there are several processes."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def summed(tensor: torch.Tensor) -> torch.Tensor:
    """Sum over the processes."""
    if together():
        tensor = tensor.clone()
        distributed.all_reduce(tensor)
    return tensor


def gathered(tensor: torch.Tensor) -> torch.Tensor:
    """The processes' tensors, of one shape, one after the other along the first axis."""
    if not together():
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def any_of(flag: bool, device: torch.device) -> bool:
    """Whether it is true in any process."""
    return bool(summed(torch.tensor([float(flag)], device=device)).item()) if together() else flag


def of_first(number: float, device: torch.device) -> float:
    """The first process's number: what is decided by it is decided alike."""
    if not together():
        return number
    tensor = torch.tensor([number], device=device, dtype=torch.float64)
    distributed.broadcast(tensor, src=0)
    return tensor.item()
