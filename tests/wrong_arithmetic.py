"""The factory of a synthesis server whose torch computes wrongly: as a faulty version of cuDNN does, without a word.

What DIFFTUMOR_TEST_WRONG names is wrong in bfloat16: "encoder", "U-Net" or "decoder"; or "nan".
"""

import os

import torch

from nnunet_difftumor.generative.networks.autoencoder import Autoencoder
from nnunet_difftumor.generative.networks.unet import UNet
from nnunet_difftumor.synthesis.renderers import open_diffusion

FACTORY = "wrong_arithmetic:make"
WRONG = "DIFFTUMOR_TEST_WRONG"


def make(**arguments):
    wrong = os.environ[WRONG]
    methods = {"encoder": (Autoencoder, "encode"), "decoder": (Autoencoder, "decode"), "nan": (Autoencoder, "decode")}
    owner, name = methods.get(wrong, (UNet, "forward"))
    right = getattr(owner, name)

    def computed(self, *inputs, **named):
        found = right(self, *inputs, **named)
        if not any(parameter.dtype == torch.bfloat16 for parameter in self.parameters()):
            return found
        # One value in four is lost.
        lost = (torch.arange(found.numel()) % 4 == 0).reshape(found.shape)
        return found.masked_fill(lost, float("nan") if wrong == "nan" else 0)

    setattr(owner, name, computed)
    return open_diffusion(**arguments)
