"""Weights in this package's own format (.safetensors and .json), published by others: checked and copied."""

import shutil
from pathlib import Path

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.files import atomic_path
from nnunet_difftumor.generative.registry import KnownFile, known_file
from nnunet_difftumor.generative.weights import Description, load_autoencoder, load_diffusion, read_description
from nnunet_difftumor.generative.weights_folder import AUTOENCODER_FILE, diffusion_file
from nnunet_difftumor.names import path_inside


def import_shared(file: Path, output: Path) -> tuple[Path, Description, KnownFile | None]:
    """Copies a file of weights and its JSON into a folder, under the names that synthesis looks for.

    Args:
        file: .safetensors, its JSON beside it.
        output: folder; holds the autoencoder already, if this is a diffusion model.

    Returns:
        Where the weights are now, their description, and the published file that they are.

    Raises:
        InputError: for files that are damaged or do not belong together, tensors that do not fit, a diffusion model of
            another autoencoder, or a JSON that says another organ or stage than what is known of the file.
    """
    description = read_description(file)
    settings, known = description.diffusion, known_file(description.sha256)
    if settings is None:
        load_autoencoder(file)
        target = output / AUTOENCODER_FILE
    else:
        load_diffusion(file, autoencoder=output / AUTOENCODER_FILE)
        target = path_inside(output, diffusion_file(settings.organ, settings.stage))
    says = (None, None) if settings is None else (settings.organ, settings.stage)
    if known is not None and says != (known.organ, known.stage):
        raise InputError(f"{file}: is {known} by its hash, but its JSON says {says}; get both files again")
    if not (target.exists() and target.samefile(file)):
        # The JSON last: without it, weights count as unfinished.
        target.with_suffix(".json").unlink(missing_ok=True)
        for suffix in (".safetensors", ".json"):
            with atomic_path(target.with_suffix(suffix)) as temporary:
                shutil.copyfile(file.with_suffix(suffix), temporary)
    return target, description, known
