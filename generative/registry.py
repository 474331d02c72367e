"""Files of weights that are known by their SHA-256: what they are, where they come from, under which licence.

A group that publishes weights adds its files here, so that everybody's import and manifests can name them. Being listed
says what a file is, not that it is good.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.stages import PUBLISHED_ORGANS, STAGES
from nnunet_difftumor.generative.weights_folder import AUTOENCODER_FILE, check_stage
from nnunet_difftumor.names import nearest_name

# Of the DiffTumor authors, on Hugging Face.
REPOSITORY = "MrGiovanni/DiffTumor"
REPOSITORY_PAGE = f"https://huggingface.co/{REPOSITORY}"
_AUTOENCODER = "AutoencoderModel.ckpt"
_HUB_PAGE = re.compile(r"https://huggingface\.co/([^/]+/[^/]+)/blob/([^/]+)/(.+)")


@dataclass(frozen=True)
class KnownFile:
    """A published file.

    Attributes:
        name: as published.
        publisher: who made it.
        page: where it is published.
        licence: as that page names it.
        organ: of a diffusion model; None for an autoencoder.
        stage: early or late; None for an autoencoder.
    """

    name: str
    publisher: str
    page: str
    licence: str
    organ: str | None = None
    stage: str | None = None

    def __str__(self) -> str:
        return f"{self.name} of {self.publisher} ({self.page}, {self.licence})"


class HubFile(NamedTuple):
    """Where a file lies on Hugging Face: repository (owner/name), revision, path in it."""

    repository: str
    revision: str
    path: str


def of_difftumor(folder: str, name: str, organ: str | None = None, stage: str | None = None) -> KnownFile:
    """A file in the authors' repository."""
    page = f"{REPOSITORY_PAGE}/blob/main/{folder}/{name}"
    return KnownFile(name, "the DiffTumor authors", page, "apache-2.0", organ, stage)


# The hashes are those that Hugging Face shows on the files' pages. That of pancreas_early.pt we have not seen.
KNOWN_FILES = {
    "be83639891cc1f14527feadef9484b2d3887fc5f513b4026a90faa230856ffed": of_difftumor("AutoencoderModel", _AUTOENCODER),
    "0135000f031f741252b3e706748b674d33e7278402a7cb2500fec5f4966847bd": of_difftumor(
        "DiffusionModel", "liver_early.pt", "liver", "early"
    ),
    "c2a21980e53efd6758ae92e79a82668f0e1e6d9b52fdf6b2a709cb929ebedb3b": of_difftumor(
        "DiffusionModel", "liver_noearly.pt", "liver", "late"
    ),
    "80c35a1cae950ee4511c1e8525f354f35f794f0793c321db3066aae1b1096b21": of_difftumor(
        "DiffusionModel", "kidney_early.pt", "kidney", "early"
    ),
    "63956bc86e60da98d8412137fbf64453d52a25631931300cb671ecd31b3abdd9": of_difftumor(
        "DiffusionModel", "kidney_noearly.pt", "kidney", "late"
    ),
    "185239c5a1b0c03334c09e77ec0126bef221a58c5f7685b59013d57c7f5f9a3f": of_difftumor(
        "DiffusionModel", "pancreas_noearly.pt", "pancreas", "late"
    ),
}


def hub_file(known: KnownFile) -> HubFile | None:
    """Where on Hugging Face a file is published; None for one that is published elsewhere."""
    found = _HUB_PAGE.fullmatch(known.page)
    return None if found is None else HubFile(*found.groups())


def authors_name(organ: str, stage: str) -> str:
    """What the authors call the diffusion model of one of the published organs."""
    return f"{organ}_{'early' if stage == 'early' else 'noearly'}.pt"


def offered(organ: str, stage: str | None = None) -> dict[str, KnownFile]:
    """Files in the authors' repository that an organ's tumors need, by SHA-256; the autoencoder comes first.

    Args:
        organ: one of the published ones.
        stage: early or late; None: both.

    Returns:
        Those of which the hash is known; a stage of which it is not is left out.

    Raises:
        InputError: for another organ, another stage, or if there is no diffusion model among them.
    """
    if organ not in PUBLISHED_ORGANS:
        meant = nearest_name(organ, PUBLISHED_ORGANS)
        raise InputError(
            f"`organ` is {organ!r}, expected one of {', '.join(PUBLISHED_ORGANS)}, of which weights are published"
            + (f"; is {meant} meant?" if meant else "; train your own for others (docs/train_generative.md)")
        )
    stages = STAGES if stage is None else (check_stage(stage, where="`stage`"),)
    wanted = [(None, None), *((organ, stage) for stage in stages)]
    authors = _of_the_authors()
    found = dict(authors[key] for key in wanted if key in authors)
    if not any(known.organ for known in found.values()):
        raise InputError(not_offered(organ, stages[0]))
    return found


def _of_the_authors() -> dict[tuple[str | None, str | None], tuple[str, KnownFile]]:
    """Hash and entry of each file in the authors' repository, by organ and stage."""
    return {
        (known.organ, known.stage): (sha256, known)
        for sha256, known in KNOWN_FILES.items()
        if (place := hub_file(known)) is not None and place.repository == REPOSITORY
    }


def not_offered(organ: str, stage: str) -> str:
    """Why a published diffusion model cannot be downloaded, and how to get it."""
    name = authors_name(organ, stage)
    return (
        f"{name} is not offered: this version does not know its SHA-256, and could not check it; get it at "
        f"{REPOSITORY_PAGE}, and give it to `difftumor import-weights {name}`"
    )


def how_to_get(organ: str, stages: Collection[str], folder: str | Path) -> str:
    """For messages about weights that are missing: the command that gets them, and what else can be done.

    Args:
        organ: whose diffusion models are missing.
        stages: of which they are: early, late or both.
        folder: where they are to be.
    """
    own = "train your own with `difftumor train-autoencoder` and `train-diffusion` (docs/models.md)"
    if organ not in PUBLISHED_ORGANS:
        return f"none are published for {organ}: {own}"
    if all((organ, stage) in _of_the_authors() for stage in stages):
        of_stage = f" --stage {next(iter(stages))}" if len(stages) == 1 else ""
        return f"get them with `difftumor download-weights --organ {organ}{of_stage} -o {folder}`, or {own}"
    names = [] if (Path(folder) / AUTOENCODER_FILE).is_file() else [_AUTOENCODER]
    files = " ".join([*names, *(authors_name(organ, stage) for stage in stages)])
    return f"get {files} at {REPOSITORY_PAGE}, give them to `difftumor import-weights {files} -o {folder}`, or {own}"


def known_file(sha256: str) -> KnownFile | None:
    """What the file with this hexadecimal hash is, if it is known."""
    return KNOWN_FILES.get(sha256.lower())


def published_as(sha256: str, source: Mapping[str, Any]) -> dict[str, Any] | None:
    """For manifests: the entry of a file of weights, by its own hash or by that of the file it was imported from.

    Args:
        sha256: of the .safetensors.
        source: of its description.
    """
    known = known_file(sha256) or known_file(str(source.get("imported_sha256", "")))
    # Known to the version that imported it.
    return source.get("published_as") if known is None else asdict(known)
