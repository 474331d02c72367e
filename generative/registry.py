"""Files of weights that are known by their SHA-256: what they are, where they come from, under which licence.

A group that publishes weights adds its files here, so that everybody's import and manifests can name them. Being listed
says what a file is, not that it is good.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


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


def _difftumor(folder: str, name: str, organ: str | None = None, stage: str | None = None) -> KnownFile:
    page = f"https://huggingface.co/MrGiovanni/DiffTumor/blob/main/{folder}/{name}"
    return KnownFile(name, "the DiffTumor authors", page, "apache-2.0", organ, stage)


# The hashes are those that Hugging Face shows on the files' pages. That of pancreas_early.pt we have not seen.
KNOWN_FILES = {
    "be83639891cc1f14527feadef9484b2d3887fc5f513b4026a90faa230856ffed": _difftumor(
        "AutoencoderModel", "AutoencoderModel.ckpt"
    ),
    "0135000f031f741252b3e706748b674d33e7278402a7cb2500fec5f4966847bd": _difftumor(
        "DiffusionModel", "liver_early.pt", "liver", "early"
    ),
    "c2a21980e53efd6758ae92e79a82668f0e1e6d9b52fdf6b2a709cb929ebedb3b": _difftumor(
        "DiffusionModel", "liver_noearly.pt", "liver", "late"
    ),
    "80c35a1cae950ee4511c1e8525f354f35f794f0793c321db3066aae1b1096b21": _difftumor(
        "DiffusionModel", "kidney_early.pt", "kidney", "early"
    ),
    "63956bc86e60da98d8412137fbf64453d52a25631931300cb671ecd31b3abdd9": _difftumor(
        "DiffusionModel", "kidney_noearly.pt", "kidney", "late"
    ),
    "185239c5a1b0c03334c09e77ec0126bef221a58c5f7685b59013d57c7f5f9a3f": _difftumor(
        "DiffusionModel", "pancreas_noearly.pt", "pancreas", "late"
    ),
}


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
