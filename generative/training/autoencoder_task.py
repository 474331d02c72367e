"""Training of the autoencoder: L1, commitment, perceptual and adversarial losses (Esser et al., CVPR 2021; Chen et al.,
CVPR 2024), the codebook as a moving average of the whole batch of all processes.
"""

import dataclasses

import torch
from torch.nn import functional

from nnunet_difftumor.generative.networks.autoencoder import Autoencoder, AutoencoderConfig, check_patch
from nnunet_difftumor.generative.networks.discriminators import Judgement, PatchDiscriminator
from nnunet_difftumor.generative.training import ranks
from nnunet_difftumor.generative.training.adversarial import discriminator_loss, feature_distance, generator_loss
from nnunet_difftumor.generative.training.perceptual import PerceptualDistance
from nnunet_difftumor.generative.training.settings import AutoencoderTrainingSettings
from nnunet_difftumor.generative.training.task import TrainingTask, initial_weights, middle_slices
from nnunet_difftumor.generative.weights import Description, Volumes

_START, _RESTART = 0, 1
_PICTURES = 4
# A window of 7 voxels, as scikit-image takes by default; smaller than any patch.
_SSIM = {"gaussian_kernel": False, "kernel_size": 7}


class AutoencoderTask(TrainingTask):
    """The autoencoder with its two discriminators.

    Args:
        settings: of the run.
        volumes: what the training volumes are.

    Raises:
        InputError: for an architecture or a patch that is not possible.
    """

    best_by = "l1"
    columns = ("scan", "reconstruction")

    def __init__(self, settings: AutoencoderTrainingSettings, *, volumes: Volumes):
        super().__init__(settings)
        self.volumes = volumes
        names = {field.name for field in dataclasses.fields(AutoencoderConfig)}
        config = AutoencoderConfig(**{key: value for key, value in vars(settings).items() if key in names})
        check_patch(settings.patch_size, config.downsampling)
        with initial_weights(settings.seed):
            self.autoencoder = Autoencoder(config)
            self.of_slices, self.of_volumes = (
                PatchDiscriminator(n, hidden_channels=settings.discriminator_channels) for n in (2, 3)
            )
        # Not a part of this module: neither trained nor stored.
        file = settings.perceptual_file or None
        self._fixed = (PerceptualDistance(file),) if settings.perceptual_weight else ()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        discriminators = [*self.of_slices.parameters(), *self.of_volumes.parameters()]
        return [self.adam(self.autoencoder.parameters()), self.adam(discriminators)]

    def on_fit_start(self) -> None:
        for module in self._fixed:
            module.to(self.device)

    def learn(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        volume, slices = batch["volume"], batch["slices"]
        generator, discriminator = self.optimizers()
        adversarial = self.step >= self.settings.discriminator_start
        if adversarial:
            self.toggle_optimizer(generator)
        reconstruction, candidates, quantized = self._quantized(volume)
        figures = {
            "l1": functional.l1_loss(reconstruction.float(), volume),
            "commitment": quantized.commitment_loss,
            "perceptual": self._perceptual(volume, reconstruction, slices),
        }
        if adversarial:
            figures |= self._judged(volume, reconstruction, slices)
        weights = vars(self.settings)
        loss = sum(weights[f"{name}_weight"] * value for name, value in figures.items())
        self.update(generator, loss)
        figures["loss"] = loss
        if adversarial:
            self.untoggle_optimizer(generator)
            self.toggle_optimizer(discriminator)
            figures["discriminators"] = self._discriminator_loss(volume, reconstruction.detach(), slices)
            self.update(discriminator, figures["discriminators"])
            self.untoggle_optimizer(discriminator)
        counts, sums = (ranks.summed(values) for values in (quantized.counts, quantized.sums))
        figures["codes_used"] = (counts > 0).sum()
        figures["codes_restarted"] = self.autoencoder.codebook.update(counts, sums, candidates=candidates)
        return figures

    @torch.no_grad()
    def validate(self, batches: list[dict[str, torch.Tensor]]) -> tuple[dict[str, float], torch.Tensor]:
        from torchmetrics.functional.image import structural_similarity_index_measure

        low, high = self.volumes.window_hu
        errors, squares, similarities, rows = [], [], [], []
        for batch in batches:
            volume = batch["volume"]
            with self.trainer.precision_plugin.forward_context():
                found = self.autoencoder(volume).volume
            found = found.float().clamp(-1, 1)
            errors += (found - volume).abs().flatten(1).mean(1).tolist()
            squares += (found - volume).square().flatten(1).mean(1).tolist()
            ssim = structural_similarity_index_measure(found, volume, data_range=2.0, **_SSIM)
            similarities.append(float(ssim) * len(volume))
            if len(rows) < _PICTURES:
                middle = volume.shape[2] // 2
                pairs = [middle_slices(v, lambda b, at=middle: at) for v in (volume, found)]
                rows += list(torch.stack(pairs, dim=1))
        l1, mse = sum(errors) / len(errors), sum(squares) / len(squares)
        figures = {
            "l1": l1,
            "mae_hu": l1 * (high - low) / 2,
            "psnr_db": 10 * torch.log10(torch.tensor(4 / max(mse, 1e-12))).item(),
            "ssim": sum(similarities) / len(errors),
        }
        return figures, torch.stack(rows[:_PICTURES])

    def export(self) -> tuple[Autoencoder, Description]:
        lowest, highest = (value.item() for value in self.autoencoder.codebook.embeddings.aminmax())
        description = Description(
            kind="autoencoder",
            architecture=dataclasses.asdict(self.autoencoder.config),
            volumes=self.volumes,
            codebook_range=(lowest, highest),
        )
        return self.autoencoder, description

    def _quantized(self, volume: torch.Tensor):
        """Reconstruction, vectors for dead codes, and how the latent was quantized."""
        codebook = self.autoencoder.codebook
        latent = self.autoencoder.encode(volume)
        # Of all processes, as one process with the joined batch would draw them.
        joined = ranks.gathered(latent.detach().float())
        if not codebook.initialized:
            codebook.start(codebook.draw_candidates(joined, self.generator(_START)))
        candidates = codebook.draw_candidates(joined, self.generator(_RESTART))
        quantized = codebook(latent, statistics=True)
        return self.autoencoder.decode_embeddings(quantized.embeddings), candidates, quantized

    def _perceptual(self, volume: torch.Tensor, found: torch.Tensor, slices: torch.Tensor) -> torch.Tensor:
        """Sum over the axes of the distance of one slice across each."""
        total = volume.new_zeros(())
        # In bf16 the small differences that matter would be lost.
        with torch.autocast(volume.device.type, enabled=False):
            for distance in self._fixed:
                for axis in range(3):
                    pair = (_slices(image, slices, axis=axis) for image in (volume, found.float()))
                    total = total + distance(*pair)
        return total

    def _judged(self, volume: torch.Tensor, found: torch.Tensor, slices: torch.Tensor) -> dict[str, torch.Tensor]:
        adversarial, matching = 0.0, 0.0
        for real, fake in self._judgements(volume, found, slices):
            adversarial = adversarial + generator_loss(fake.logits, kind=self.settings.adversarial_loss)
            matching = matching + feature_distance(real.features, fake.features)
        return {"adversarial": adversarial, "feature": matching}

    def _discriminator_loss(self, volume: torch.Tensor, found: torch.Tensor, slices: torch.Tensor) -> torch.Tensor:
        kind = self.settings.adversarial_loss
        judgements = self._judgements(volume, found, slices)
        return sum(discriminator_loss(real.logits, fake.logits, kind=kind) for real, fake in judgements)

    def _judgements(
        self, volume: torch.Tensor, found: torch.Tensor, slices: torch.Tensor
    ) -> list[tuple[Judgement, Judgement]]:
        """Of the axial slice and of the volume: real and reconstructed."""
        judged = []
        for network, take in ((self.of_slices, lambda v: _slices(v, slices, axis=0)), (self.of_volumes, lambda v: v)):
            judged.append((network(take(volume)), network(take(found))))
        return judged


def _slices(volume: torch.Tensor, slices: torch.Tensor, *, axis: int) -> torch.Tensor:
    """Slice slices[b, axis] across an axis of each volume (b, 1, z, x, y): (b, 1, ., .)."""
    return torch.stack([volume[b].select(axis + 1, int(slices[b, axis])) for b in range(len(volume))])
