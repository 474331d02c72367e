"""Distance of two slices in the features of a fixed network, as LPIPS (Zhang et al., CVPR 2018) measures it.

No package carries weights that would serve here, and none are downloaded. Without a file the features are those of
random convolutions from a fixed seed: these too respond to edges and texture, though they know nothing of what is in
the image (He et al., 2016: A powerful generative model using random weights for the deep image representation). With a
file of VGG16 weights it is LPIPS's network.
"""

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from nnunet_difftumor.errors import InputError

_SEED = 20240617
_RANDOM_WIDTHS = (16, 32, 64, 64)
# Convolutions of VGG16 by its blocks; between the blocks the image is halved. LPIPS takes the last map of each block.
_VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
# Of ImageNet, for images in [0, 1].
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_EPS = 1e-10


class PerceptualDistance(nn.Module):
    """Distance of features, each position scaled to unit length.

    Random features: half the squared distance, that is 1 minus the cosine, averaged over positions and layers: 0 to 1.
    VGG16: as LPIPS, the squared distance averaged over positions and summed over layers.

    Args:
        file: VGG16 weights under torchvision's names (features.0.weight ...), .pth or .safetensors; if it also has
            LPIPS's weights of channels (lin0.model.1.weight ...), they are used. None: random features.
    """

    def __init__(self, file: Path | None = None):
        super().__init__()
        self._random = file is None
        self.blocks = nn.ModuleList()
        channels = 1 if file is None else 3
        for widths in [(width,) for width in _RANDOM_WIDTHS] if file is None else _VGG16:
            layers = []
            for width in widths:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            self.blocks.append(nn.Sequential(*layers))
        self.importance: list[torch.Tensor | None] = [None] * len(self.blocks)
        if file is None:
            self._fill_randomly()
        else:
            self._fill_from(Path(file))
        for name, weight in enumerate(self.importance):
            self.register_buffer(f"importance{name}", weight, persistent=False)
        mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _DEVIATION))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("deviation", deviation, persistent=False)
        self.requires_grad_(False)

    def forward(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        """Scalar, of images (n, 1, h, w) in [-1, 1]; any size of at least 1."""
        distance = real.new_zeros(())
        for number, (of_real, of_fake) in enumerate(zip(self._features(real), self._features(fake), strict=True)):
            squared = (_unit(of_real) - _unit(of_fake)).square()
            weight = getattr(self, f"importance{number}")
            distance = distance + (squared.sum(1) if weight is None else (squared * weight).sum(1)).mean()
        return distance / (2 * len(self.blocks)) if self._random else distance

    def _features(self, image: torch.Tensor) -> list[torch.Tensor]:
        if self.blocks[0][0].in_channels == 3:
            image = ((image + 1) / 2 - self.mean) / self.deviation
        features = []
        for number, block in enumerate(self.blocks):
            if number and min(image.shape[2:]) > 1:
                image = functional.max_pool2d(image, 2)
            image = block(image)
            features.append(image)
        return features

    def _convolutions(self) -> list[nn.Conv2d]:
        return [layer for block in self.blocks for layer in block if isinstance(layer, nn.Conv2d)]

    def _fill_randomly(self) -> None:
        generator = torch.Generator().manual_seed(_SEED)
        for convolution in self._convolutions():
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(convolution.bias)

    def _fill_from(self, file: Path) -> None:
        tensors = _read(file)
        # ReLUs and poolings count in torchvision's numbering.
        number = 0
        for block in self.blocks:
            for layer in block:
                if isinstance(layer, nn.Conv2d):
                    for part in ("weight", "bias"):
                        name = f"features.{number}.{part}"
                        expected = getattr(layer, part)
                        if name not in tensors or tensors[name].shape != expected.shape:
                            seen = tuple(tensors[name].shape) if name in tensors else "nothing"
                            raise InputError(
                                f"{file}: expected VGG16 with {name} of {tuple(expected.shape)}, found {seen}"
                            )
                        expected.data.copy_(tensors[name])
                number += 1
            number += 1
        for index in range(len(self.blocks)):
            weight = tensors.get(f"lin{index}.model.1.weight")
            self.importance[index] = None if weight is None else weight.float().view(1, -1, 1, 1)


def _unit(features: torch.Tensor) -> torch.Tensor:
    # The root of 0 has no gradient.
    return features / (features.square().sum(1, keepdim=True) + _EPS).sqrt()


def _read(file: Path) -> dict[str, torch.Tensor]:
    import safetensors
    from safetensors.torch import load_file

    if not file.is_file():
        raise InputError(f"perceptual_file: {file}: no such file")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, RuntimeError, EOFError, ValueError) as error:
        raise InputError(f"perceptual_file: {file}: not weights as .safetensors or .pth ({error})") from error
    except Exception as error:  # pickle.UnpicklingError: torch refuses what is no plain tensor
        raise InputError(f"perceptual_file: {file}: holds more than tensors, and is not read ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"perceptual_file: {file}: expected names and tensors, got {type(content).__name__}")
    return content
