"""Public operations of the networks: one function each, the same call on every device.

On CUDA they run as Triton kernels, elsewhere in PyTorch: inference on a CPU in forms that keep what they work on in its
cache, all else as plain references. `implementation` chooses otherwise.

Needs torch, and triton on CUDA.
"""

from nnunet_difftumor.kernels.attention_blocks import depth_block, linear_block, spatial_block
from nnunet_difftumor.kernels.convolution_weight import ConvolutionWeight, pack_convolution
from nnunet_difftumor.kernels.convolve import convolve
from nnunet_difftumor.kernels.counter_noise import standard_normal
from nnunet_difftumor.kernels.denoise_step import denoise_step
from nnunet_difftumor.kernels.depth_attention import depth_attention
from nnunet_difftumor.kernels.group_norm_modulate_silu import group_norm_modulate_silu
from nnunet_difftumor.kernels.implementation import implementation
from nnunet_difftumor.kernels.known_norm import norm_of_moments, norm_silu
from nnunet_difftumor.kernels.latent_condition import latent_condition
from nnunet_difftumor.kernels.moments import Affine, PartialMoments
from nnunet_difftumor.kernels.spatial_linear_attention import spatial_linear_attention
from nnunet_difftumor.kernels.vector_quantize import Quantized, prepare_codes, vector_quantize

__all__ = [
    "Affine",
    "ConvolutionWeight",
    "PartialMoments",
    "Quantized",
    "convolve",
    "denoise_step",
    "depth_attention",
    "depth_block",
    "group_norm_modulate_silu",
    "implementation",
    "latent_condition",
    "linear_block",
    "norm_of_moments",
    "norm_silu",
    "pack_convolution",
    "prepare_codes",
    "spatial_block",
    "spatial_linear_attention",
    "standard_normal",
    "vector_quantize",
]
