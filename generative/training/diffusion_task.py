"""Training of a diffusion model of tumors in the latent space of a frozen autoencoder (Chen et al., CVPR 2024, eq. 6).

The network learns the noise that was added to the latent of a crop, given the latent of the crop without its tumor, and
the mask.
"""

import dataclasses

import torch
from torch.nn import functional

from nnunet_difftumor.generative.diffusion.latent_diffusion import LatentDiffusion
from nnunet_difftumor.generative.diffusion.samplers import sample_ddim, sample_ddpm
from nnunet_difftumor.generative.networks.autoencoder import Autoencoder, check_patch
from nnunet_difftumor.generative.networks.unet import UNet, UNetConfig
from nnunet_difftumor.generative.training.ema import MovingAverage
from nnunet_difftumor.generative.training.settings import DiffusionTrainingSettings
from nnunet_difftumor.generative.training.task import TrainingTask, initial_weights, middle_slices
from nnunet_difftumor.generative.weights import Description, DiffusionSettings, Volumes, codebook_sha256

_STEPS = {"early": 4, "late": 200}
_DDIM_STEPS = 50
_PICTURES = 4


class DiffusionTask(TrainingTask):
    """The U-Net, and the moving average of its weights, which is what is kept.

    Args:
        settings: of the run.
        autoencoder: trained.
        volumes: what the autoencoder and the training volumes are.
        organ, stage: what is drawn.

    Raises:
        InputError: for an architecture or a patch that is not possible.
    """

    best_by = "noise_loss"
    columns = ("scan", "without its lesion", "with a drawn one")

    def __init__(
        self, settings: DiffusionTrainingSettings, *, autoencoder: Autoencoder, volumes: Volumes, organ: str, stage: str
    ):
        super().__init__(settings)
        self.volumes, self.organ, self.stage = volumes, organ, stage
        names = {field.name for field in dataclasses.fields(UNetConfig)}
        latent = autoencoder.config.latent_channels
        config = UNetConfig(
            latent_channels=latent,
            condition_channels=latent + 1,
            **{key: value for key, value in vars(settings).items() if key in names},
        )
        with initial_weights(settings.seed):
            self.unet = UNet(config)
        self.average = MovingAverage(
            self.unet, decay=settings.ema_decay, start=settings.ema_start, every=settings.ema_every
        )
        frozen = autoencoder.eval().requires_grad_(False)
        steps = settings.diffusion_steps or _STEPS[stage]
        # Not parts of this module: the autoencoder is neither trained nor stored.
        self._models = tuple(LatentDiffusion(frozen, unet, steps=steps) for unet in (self.unet, self.average.network))
        check_patch(settings.patch_size, self._models[0].patch_multiples())

    @property
    def diffusion_steps(self) -> int:
        """T of the schedule: that of the settings, or the stage's."""
        return self._models[0].schedule.steps

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """(c, d, h, w) of the latent of a patch."""
        return self._models[0].latent_shape((1, 1, *self.settings.patch_size))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.adam(self.unet.parameters())

    def on_fit_start(self) -> None:
        for model in self._models:
            model.to(self.device)

    def learn(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        parts = self.settings.accumulation
        total = 0.0
        for part in range(parts):
            size = self.settings.batch_size
            piece = {key: value[part * size : (part + 1) * size] for key, value in batch.items()}
            loss = noise_loss(self._models[0], piece, kind=self.settings.loss).mean()
            self.update(self.optimizers(), loss, parts=parts, last=part == parts - 1)
            total = total + loss.detach() / parts
        self.average.update(self.unet, step=self.step + 1)
        return {"loss": total}

    @torch.no_grad()
    def validate(self, batches: list[dict[str, torch.Tensor]]) -> tuple[dict[str, float], torch.Tensor]:
        model, losses = self._models[1], []
        for batch in batches:
            with self.trainer.precision_plugin.forward_context():
                losses += noise_loss(model, batch, kind=self.settings.loss).tolist()
        return {"noise_loss": sum(losses) / len(losses)}, self._pictures(model, batches[0])

    def export(self) -> tuple[UNet, Description]:
        model = self._models[1]
        steps = model.schedule.steps
        sampler, taken = ("ddpm", steps) if self.stage == "early" else ("ddim", ddim_steps(steps))
        description = Description(
            kind="diffusion",
            architecture=dataclasses.asdict(self.unet.config),
            volumes=self.volumes,
            diffusion=DiffusionSettings(
                organ=self.organ,
                stage=self.stage,
                steps=steps,
                sampler=sampler,
                sampler_steps=taken,
                codebook_sha256=codebook_sha256(model.autoencoder.codebook.embeddings),
                patch_size=self.settings.patch_size,
            ),
        )
        return self.average.network, description

    def _pictures(self, model: LatentDiffusion, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Per crop: the scan, without its tumor, and with a drawn one, at the mask's largest slice."""
        volume, tumor, first = (batch[key][:_PICTURES] for key in ("volume", "tumor", "noise"))
        generator = torch.Generator().manual_seed(self.settings.seed)
        noises = iter([first])

        def noise() -> torch.Tensor:
            drawn = next(noises, None)
            return torch.randn(first.shape, generator=generator).to(first) if drawn is None else drawn

        with self.trainer.precision_plugin.forward_context():
            denoise = model.denoise(model.condition(volume, tumor))
            if self.stage == "early":
                latent = sample_ddpm(denoise, model.schedule, noise)
            else:
                latent = sample_ddim(denoise, model.schedule, noise, steps=ddim_steps(model.schedule.steps))
            drawn = model.decode_scaled(latent)
        drawn = torch.where(tumor, drawn.float(), volume).clamp(-1, 1)
        largest = tumor.flatten(3).sum(3).argmax(2).flatten().tolist()
        columns = (volume, volume.masked_fill(tumor, 0), drawn)
        return torch.stack([middle_slices(column, lambda b: largest[b]) for column in columns], dim=1)


def noise_loss(model: LatentDiffusion, batch: dict[str, torch.Tensor], *, kind: str) -> torch.Tensor:
    """Per crop (b,), the mean absolute ("l1") or squared ("l2") error of the predicted noise.

    Args:
        model: its autoencoder gets no gradient.
        batch: volume, tumor, noise and step of `LesionCrops`.
        kind: l1 or l2.
    """
    with torch.no_grad():
        clean = model.encode_scaled(batch["volume"]).float()
        condition = model.condition(batch["volume"], batch["tumor"])
    noisy = model.schedule.add_noise(clean, batch["noise"], steps=batch["step"])
    predicted = model.unet(noisy, batch["step"], condition=condition).float()
    error = functional.l1_loss if kind == "l1" else functional.mse_loss
    return error(predicted, batch["noise"], reduction="none").flatten(1).mean(1)


def ddim_steps(steps: int) -> int:
    """The published 50, or the largest smaller number that divides the schedule's steps."""
    return next(n for n in range(min(_DDIM_STEPS, steps), 0, -1) if steps % n == 0)
