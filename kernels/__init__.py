"""Public operations of the networks: one function each, the same call on every device.

So far every operation is its plain PyTorch reference, on CPU and CUDA alike. Needs torch only.
"""

from nnunet_difftumor.kernels.depth_attention import depth_attention
from nnunet_difftumor.kernels.group_norm_modulate_silu import group_norm_modulate_silu
from nnunet_difftumor.kernels.spatial_linear_attention import spatial_linear_attention
from nnunet_difftumor.kernels.vector_quantize import Quantized, vector_quantize

__all__ = [
    "Quantized",
    "depth_attention",
    "group_norm_modulate_silu",
    "spatial_linear_attention",
    "vector_quantize",
]
