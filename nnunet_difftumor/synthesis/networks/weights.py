"""Which weights a diffusion tumor needs, and whether a folder has them."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.diffusion.latent_diffusion import LatentDiffusion
from nnunet_difftumor.generative.networks.architectures import patch_multiples
from nnunet_difftumor.generative.registry import how_to_get, published_as
from nnunet_difftumor.generative.trained_enough import doubts
from nnunet_difftumor.generative.weights import (
    Description,
    LoadedAutoencoder,
    config_of,
    load_autoencoder,
    load_diffusion,
    read_description,
    stored_codebook_sha256,
)
from nnunet_difftumor.generative.weights_folder import AUTOENCODER_FILE, diffusion_file
from nnunet_difftumor.synthesis.networks.view import NetworkView
from nnunet_difftumor.synthesis.size_bands import SIZES_OF_STAGE


@dataclass(frozen=True)
class DiffusionWeights:
    """Weights of one organ in a folder, as `difftumor download-weights` fills it.

    Attributes:
        folder: holds autoencoder.safetensors, ORGAN_early.safetensors and ORGAN_late.safetensors.
        organ: whose models they are.
        option: what names the folder, for messages.
    """

    folder: Path
    organ: str
    option: str = "`weights`"

    def check(self, stages: Collection[str], *, others_possible: bool = False) -> None:
        """Refuses a folder that lacks weights, or holds those of another organ or stage under their names.

        Args:
            stages: early, late or both.
            others_possible: whether other sizes can be asked for, for the message.

        Raises:
            InputError: says what was looked for, and how to get it.
        """
        wanted = [AUTOENCODER_FILE, *(diffusion_file(self.organ, stage) for stage in stages)]
        missing = [name for name in wanted if not (self.folder / name).is_file()]
        if missing:
            raise InputError(self._missing(missing, stages, others_possible))
        for stage in stages:
            self.description(stage)

    def description(self, stage: str) -> Description:
        """Of a stage's diffusion model.

        Raises:
            InputError: if it is missing, damaged, or for another organ or stage.
        """
        path = self.folder / diffusion_file(self.organ, stage)
        found = read_description(path)
        settings = found.diffusion
        if settings is None or (settings.organ, settings.stage) != (self.organ, stage):
            what = "no diffusion model" if settings is None else f"a model of {settings.organ}, {settings.stage}"
            raise InputError(f"{path}: is {what}, expected one of {self.organ}, {stage}; import the right weights")
        return found

    def view(self, stage: str) -> NetworkView:
        """What a stage's model sees of a scan, by the descriptions of its files.

        Raises:
            InputError: for missing, damaged or wrong descriptions.
        """
        found, coder = self.description(stage), self.folder / AUTOENCODER_FILE
        model = self.folder / diffusion_file(self.organ, stage)
        multiples = patch_multiples(config_of(coder, read_description(coder)), config_of(model, found))
        return NetworkView(found.volumes.axes, found.volumes.spacing_mm, found.diffusion.patch_size, multiples)

    def check_sampler_steps(self, steps: int, stages: Collection[str]) -> None:
        """Refuses steps that no model of these stages can take.

        Args:
            steps: of DDIM.
            stages: early, late or both.

        Raises:
            InputError: names the steps that are possible.
        """
        found = [settings for stage in stages if (settings := self.description(stage).diffusion).sampler == "ddim"]
        if not found:
            raise InputError(
                f"`sampler_steps` is {steps}, but the {' and '.join(stages)} models of {self.organ} take every step of "
                "DDPM; leave it out"
            )
        for settings in found:
            if steps < 1 or settings.steps % steps:
                possible = [n for n in range(1, settings.steps + 1) if settings.steps % n == 0]
                raise InputError(
                    f"`sampler_steps` is {steps}, which does not divide the {settings.steps} steps of the schedule; "
                    f"possible: {possible}"
                )

    def can_take_fewer(self, steps: int, stages: Collection[str]) -> bool:
        """Whether a model of these stages samples in more steps of DDIM than these, which are possible for all."""
        found = [settings for stage in stages if (settings := self.description(stage).diffusion).sampler == "ddim"]
        fewer = any(settings.sampler_steps > steps for settings in found)
        return fewer and all(settings.steps % steps == 0 for settings in found)

    def load(self, stage: str, *, autoencoder: LoadedAutoencoder) -> tuple[LatentDiffusion, Description]:
        """The model, on the CPU, and its description.

        Args:
            stage: early or late.
            autoencoder: of the folder, which becomes a part of the model.

        Raises:
            InputError: for damaged files, or a diffusion model of another autoencoder.
        """
        self.description(stage)
        return load_diffusion(self.folder / diffusion_file(self.organ, stage), autoencoder=autoencoder)

    def notes(self, stages: Collection[str]) -> list[str]:
        """A line for each file whose training was too short or went badly, as far as its JSON says."""
        found = {AUTOENCODER_FILE: read_description(self.folder / AUTOENCODER_FILE)}
        found |= {diffusion_file(self.organ, stage): self.description(stage) for stage in stages}
        lines = (doubts(description, name=name) for name, description in found.items())
        return [line for line in lines if line is not None]

    def record(self, stages: Collection[str]) -> list[dict[str, Any]]:
        """For manifests: name, hash, source and entry in the registry of each file."""
        files = [recorded(AUTOENCODER_FILE, read_description(self.folder / AUTOENCODER_FILE))]
        for stage in stages:
            found = recorded(diffusion_file(self.organ, stage), self.description(stage))
            files.append(found | {"organ": self.organ, "stage": stage})
        return files

    def _missing(self, missing: list[str], stages: Collection[str], others_possible: bool) -> str:
        there = sorted(path.name for path in self.folder.glob("*.safetensors")) if self.folder.is_dir() else []
        lacking = [stage for stage in stages if diffusion_file(self.organ, stage) in missing]
        message = (
            f"{self.folder}: {', '.join(missing)} not found (there: {', '.join(there) or 'no weights'}); "
            f"{how_to_get(self.organ, lacking or stages, self.folder)}; or name another folder with {self.option}"
        )
        if others_possible and 0 < len(lacking) < len(stages):
            (have,) = set(stages) - set(lacking)
            message += f"; without them, ask for `size` {' or '.join(SIZES_OF_STAGE[have])}"
        return message


def check_codebook(weights: DiffusionWeights, stage: str) -> None:
    """Refuses a diffusion model of another autoencoder than the folder's, without loading either.

    Raises:
        InputError: naming both files.
    """
    path, coder = weights.folder / diffusion_file(weights.organ, stage), weights.folder / AUTOENCODER_FILE
    if stored_codebook_sha256(coder) != weights.description(stage).diffusion.codebook_sha256:
        raise InputError(f"{path}: trained with another autoencoder than {coder} (their codebooks differ)")


def load_models(
    weights: Iterable[DiffusionWeights], stages: Collection[str]
) -> dict[tuple[str, str], tuple[LatentDiffusion, Description]]:
    """Loads the models of some organs by (organ, stage), on the CPU; those of one folder share their autoencoder.

    Raises:
        InputError: as `DiffusionWeights.check` and `DiffusionWeights.load`.
    """
    autoencoders: dict[Path, LoadedAutoencoder] = {}
    models = {}
    for found in dict.fromkeys(weights):
        found.check(stages)
        path = found.folder / AUTOENCODER_FILE
        if path not in autoencoders:
            autoencoders[path] = LoadedAutoencoder(path, *load_autoencoder(path))
        for stage in stages:
            models[found.organ, stage] = found.load(stage, autoencoder=autoencoders[path])
    return models


def recorded(file: str, description: Description) -> dict[str, Any]:
    """A file of weights, for manifests."""
    return {
        "file": file,
        "sha256": description.sha256,
        "source": description.source,
        "published_as": published_as(description.sha256, description.source),
    }


def describe_files(files: Collection[Mapping[str, Any]]) -> str:
    """Recorded files of weights in a line: names, beginnings of their hashes, names under which they are published."""
    told = []
    for file in files:
        published = f", published as {file['published_as']['name']}" if file["published_as"] else ""
        told.append(f"{file['file']} ({file['sha256'][:12]}{published})")
    return ", ".join(told)


def check_recorded(files: Collection[Mapping[str, str]], folder: Path, *, manifest: str | Path) -> None:
    """Refuses a folder whose weights are not those of a manifest.

    Raises:
        InputError: names the file that is missing or differs.
    """
    for entry in files:
        path = folder / entry["file"]
        seen = read_description(path).sha256
        if seen != entry["sha256"]:
            raise InputError(
                f"{path}: SHA-256 is {seen[:12]}..., but {manifest} was made with {entry['sha256'][:12]}...; name "
                "the folder of those weights with `weights`"
            )
