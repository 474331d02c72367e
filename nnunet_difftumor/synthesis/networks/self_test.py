"""Whether a device computes the networks as they are: at their real shape, against float32 on the CPU.

Some versions of cuDNN multiply wrongly in bfloat16, for some shapes, and say nothing: the tumors are then noise.
"""

import copy
import time
from collections.abc import Sequence

import torch

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.diffusion.latent_diffusion import LatentDiffusion
from nnunet_difftumor.synthesis.networks.modes import EXACT, FAST

# Greatest relative L2 distance that is rounding. Measured: 0.016 in bfloat16 (docs/checks.md), 3e-6 in float32. A wrong
# product is wrong by about 1.
TOLERANCES = {FAST: 0.05, EXACT: 1e-3}
NOT_NEEDED = "exact on a CPU is what the networks would be compared with: they are not tested"
_SEED = 0


def check_networks(
    networks: LatentDiffusion,
    exact: LatentDiffusion,
    *,
    patch_size: Sequence[int],
    mode: str,
    batches: Sequence[int] = (1,),
    what: str,
) -> str:
    """Compares networks with themselves in float32 on the CPU: encoder, one step of the U-Net, and decoder.

    Args:
        networks: as they draw, on their device.
        exact: the same networks, float32.
        patch_size: voxels that they were trained on, along their axes.
        mode: "exact" or "fast".
        batches: sizes of batches, in each of which every sample is compared.
        what: they are, for messages.

    Returns:
        The greatest distances, in words.

    Raises:
        InputError: naming device, versions, stage and distance, and what to do.
    """
    start, device = time.monotonic(), networks.code_min.device
    inputs = _inputs(exact, patch_size)
    reference = copy.deepcopy(exact).to("cpu")
    seen = {}
    for stage in ("encoder", "U-Net", "decoder"):
        expected = _computed(reference, stage, inputs)
        distances = []
        for batch in batches:
            given = {name: tensor.repeat_interleave(batch, 0).to(device) for name, tensor in inputs.items()}
            distances += [_distance(one, expected[0]) for one in _computed(networks, stage, given).cpu()]
        seen[stage] = max(distances, key=lambda distance: (distance != distance, distance))
        if not seen[stage] <= TOLERANCES[mode]:
            raise InputError(_message(what, stage, seen[stage], device, mode))
    found = ", ".join(f"{stage} {distance:.1g}" for stage, distance in seen.items())
    return (
        f"networks of {what} compute rightly on {_device(device)}, {mode}: distance to float32 {found} (at most "
        f"{TOLERANCES[mode]:g}), {time.monotonic() - start:.1f} s"
    )


def _inputs(model: LatentDiffusion, patch_size: Sequence[int]) -> dict[str, torch.Tensor]:
    """A volume with a tumor, a noisy latent, and one that consists of codes, each of one sample."""
    generator = torch.Generator().manual_seed(_SEED)
    coarse = torch.rand((1, 1, *(max(2, n // 8) for n in patch_size)), generator=generator) * 2 - 1
    volume = torch.nn.functional.interpolate(coarse, size=tuple(patch_size), mode="trilinear")
    tumor = torch.zeros(volume.shape, dtype=torch.bool)
    tumor[(0, 0, *(slice(n // 3, n - n // 3) for n in patch_size))] = True
    shape = model.latent_shape(volume.shape)
    codes = model.autoencoder.codebook.embeddings.detach().float().cpu()
    chosen = codes[torch.randint(len(codes), (shape[1] * shape[2] * shape[3],), generator=generator)]
    latent = 2 * (chosen - model.code_min.cpu()) / model.code_range.cpu() - 1
    condition = torch.randn((1, shape[0] + 1, *shape[1:]), generator=generator).clamp_(-1, 1)
    return {
        "volume": volume,
        "tumor": tumor,
        "noisy": torch.randn((1, *shape), generator=generator),
        "condition": condition,
        # Codes themselves: rounding cannot make another one the nearest.
        "latent": latent.T.reshape(1, *shape),
    }


@torch.inference_mode()
def _computed(model: LatentDiffusion, stage: str, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """What a stage makes of the inputs, float32."""
    if stage == "encoder":
        return model.condition(inputs["volume"], inputs["tumor"])[:, :-1].float()
    if stage == "decoder":
        return model.decode_scaled(inputs["latent"]).float()
    noisy = inputs["noisy"]
    steps = torch.full((len(noisy),), model.schedule.steps // 2, device=noisy.device)
    return model.denoise(inputs["condition"])(noisy, steps).float()


def _distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def _message(what: str, stage: str, distance: float, device: torch.device, mode: str) -> str:
    arithmetic, do = "bfloat16", 'set "mode" to "exact"'
    if mode == EXACT:
        arithmetic, do = "float32", 'set "device" to "cpu"'
    return (
        f"{_device(device)} computes wrongly: the {stage} of {what} in {arithmetic} differs from float32 on the CPU by "
        f"{distance:.2g} of its size, where rounding is at most {TOLERANCES[mode]:g}; install another torch or driver, "
        f'or {do} in "live" of difftumor.json'
    )


def _device(device: torch.device) -> str:
    if device.type != "cuda":
        return f"{device.type} (torch {torch.__version__})"
    name = torch.cuda.get_device_name(device)
    return f"cuda ({name}, torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()})"
