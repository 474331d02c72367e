"""The published weights from Hugging Face in one call: fetched, checked by their hashes, and imported safely."""

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers

from nnunet_difftumor import __version__
from nnunet_difftumor.errors import InputError, shown
from nnunet_difftumor.files import blaming_the_disk, only_writer
from nnunet_difftumor.generative.importing.published_weights import Imported, import_weights
from nnunet_difftumor.generative.registry import REPOSITORY_PAGE, KnownFile, hub_file, not_offered, offered
from nnunet_difftumor.generative.stages import STAGES
from nnunet_difftumor.generative.weights import file_sha256, read_description
from nnunet_difftumor.generative.weights_folder import AUTOENCODER_FILE, default_weights_folder, diffusion_file

# In the folder of weights: files on their way, from which an interrupted download resumes.
UNFINISHED = ".unfinished-download"
_SHA256 = re.compile(r"[0-9a-f]{64}")


def download_weights(
    organ: str,
    output: str | Path | None = None,
    *,
    stage: str | None = None,
    endpoint: str | None = None,
    accept_licence: bool = False,
    report: Callable[[str], None] = print,
) -> list[Imported]:
    """Gets the DiffTumor authors' autoencoder and diffusion models of an organ, as `import_weights` leaves them.

    Called again after an interruption, it resumes where it stopped. What is there already is not fetched again.

    Args:
        organ: liver, pancreas or kidney.
        output: folder; None: `difftumor_weights` in the folder that nnUNet_results names.
        stage: early (tiny and small tumors) or late (medium and large ones); None: both.
        endpoint: URL of Hugging Face or a mirror of it; None: what HF_ENDPOINT names, or https://huggingface.co.
        accept_licence: that you agree to the licence of the weights.
        report: called with each line of what is being done.

    Returns:
        One entry for each file that was not there yet.

    Raises:
        InputError: for another organ or stage, a licence that is not accepted, other weights under these names in the
            folder, no network, or a file with another hash than the published one, which is removed.
    """
    wanted = offered(organ, stage)
    licence = _licence(wanted, accepted=accept_licence)
    endpoint = _checked(endpoint)
    output = default_weights_folder(option="`output`") if output is None else Path(output)
    report(licence)
    done: list[Imported] = []
    with only_writer(output / UNFINISHED):
        missing = {sha256: known for sha256, known in wanted.items() if not _is_there(output, known, sha256)}
        for sha256, known in wanted.items():
            if sha256 not in missing:
                report(f"{_place(output, known)}: there already")
                continue
            file = _fetch(known, sha256, output / UNFINISHED, endpoint=endpoint, report=report)
            done += import_weights([file], output)
            file.unlink()
            for line in done[-1].lines():
                report(line)
        with suppress(OSError):  # none was made, or files of other organs are on their way
            (output / UNFINISHED).rmdir()
    for left_out in STAGES if stage is None else ():
        if left_out not in {known.stage for known in wanted.values()}:
            report(not_offered(organ, left_out))
    return done


def _licence(wanted: dict[str, KnownFile], *, accepted: bool) -> str:
    names = ", ".join(sorted({known.licence for known in wanted.values()}))
    if not accepted:
        raise InputError(
            f"the licence of the weights is {names}: read it at {REPOSITORY_PAGE}, and agree to it with "
            "`accept_licence`; nothing was downloaded"
        )
    return f"the licence of the weights is {names} ({REPOSITORY_PAGE}), agreed to"


def _checked(endpoint: str | None) -> str:
    url = constants.ENDPOINT if endpoint is None else endpoint
    if not _is_url(url):
        name = "HF_ENDPOINT" if endpoint is None else "`endpoint`"
        raise InputError(f"{name} is {shown(url)}, expected a URL such as https://huggingface.co")
    return url.rstrip("/")


def _is_url(text: str) -> bool:
    """Whether this is the address of a server, with nothing that would end up in the middle of others."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    plain = not (parts.query or parts.fragment or re.search(r"\s", text))
    return parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0 and plain


def _place(output: Path, known: KnownFile) -> Path:
    if known.organ is None or known.stage is None:
        return output / AUTOENCODER_FILE
    return output / diffusion_file(known.organ, known.stage)


def _is_there(output: Path, known: KnownFile, sha256: str) -> bool:
    """Whether the weights made of a file are there and whole.

    Raises:
        InputError: if others are there under their name.
    """
    path = _place(output, known)
    if not (path.is_file() and path.with_suffix(".json").is_file()):
        return False
    found = read_description(path)
    if found.source.get("imported_sha256") != sha256:
        made_from = found.source.get("imported_from", "a training")
        raise InputError(
            f"{path}: there already, and not made from {known.name} as published (but from {shown(made_from)}); name "
            "another folder with `output`, or move it away"
        )
    return file_sha256(path) == found.sha256


def _fetch(known: KnownFile, sha256: str, folder: Path, *, endpoint: str, report: Callable[[str], None]) -> Path:
    """Downloads a file, or the rest of it, into a folder, and compares its hash."""
    place = hub_file(known)
    assert place is not None, known
    url = hf_hub_url(place.repository, place.path, revision=place.revision, endpoint=endpoint)
    path = folder / known.name
    try:
        # Never with the token of a user who is logged in: the endpoint may be anybody's.
        headers = build_hf_headers(token=False, library_name="nnunet-difftumor", library_version=__version__)
        headers["Accept-Encoding"] = "identity"
        found = get_hf_file_metadata(url, token=False, headers=headers)
        if found.etag is not None and _SHA256.fullmatch(found.etag) and found.etag != sha256:
            raise InputError(f"{url}: {_is_another(known, found.etag, sha256)}; nothing was downloaded")
        folder.mkdir(parents=True, exist_ok=True)
        if path.is_file() and found.size is not None and path.stat().st_size > found.size:
            path.unlink()
        with blaming_the_disk(path), open(path, "ab") as file:
            there = file.tell()
            size = "" if found.size is None else f" ({found.size / 1e6:.0f} MB)"
            report(f"{known.name}{size}: from {url}" + (f", resuming after {there / 1e6:.1f} MB" if there else ""))
            http_get(
                url,
                file,
                resume_size=there,
                headers=headers,
                expected_size=found.size,
                displayed_filename=known.name,
            )
    except HfHubHTTPError as error:
        raise InputError(
            f"{url}: the server answers {error.response.status_code} {error.response.reason_phrase}; {_instead(known)}"
        ) from error
    except (HTTPError, OSError) as error:
        if getattr(error, "errno", None) is not None:  # of the disk
            raise
        raise InputError(
            f"{url}: cannot be fetched ({' '.join(str(error).split()) or type(error).__name__}); what has come is kept "
            f"for the next time; {_instead(known)}"
        ) from error
    seen = file_sha256(path)
    if seen != sha256:
        path.unlink()
        with suppress(OSError):
            folder.rmdir()
        raise InputError(f"{url}: {_is_another(known, seen, sha256)}; it was removed: try again, or another `endpoint`")
    return path


def _is_another(known: KnownFile, seen: str, sha256: str) -> str:
    return f"is not {known.name} as published: SHA-256 is {seen[:12]}..., expected {sha256[:12]}..."


def _instead(known: KnownFile) -> str:
    return (
        f"check the network, name a mirror with `endpoint`, or get the file elsewhere and give it to "
        f"`difftumor import-weights {known.name}`"
    )
