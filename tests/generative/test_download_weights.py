"""`download-weights` from a server that behaves as Hugging Face, which serves small files made here."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import hub_server
import published_files
import pytest
import seeded
import tiny_networks
from folder_contents import hidden
from huggingface_hub import file_download

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative import registry
from nnunet_difftumor.generative.importing.download import UNFINISHED, download_weights
from nnunet_difftumor.generative.importing.published_weights import import_weights
from nnunet_difftumor.generative.weights import load_diffusion, read_description

DIFFTUMOR = Path(sys.executable).with_name("difftumor")
ORGAN = ["download-weights", "--organ", "liver"]
NAMES = {
    "AutoencoderModel.ckpt": ("AutoencoderModel", None, None),
    "liver_early.pt": ("DiffusionModel", "liver", "early"),
    "liver_noearly.pt": ("DiffusionModel", "liver", "late"),
}


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> dict[str, bytes]:
    """Content by name; one autoencoder, an early and a late model."""
    folder, coder = tmp_path_factory.mktemp("published"), seeded.autoencoder()
    with pytest.MonkeyPatch.context() as monkeypatch:
        published_files.write_autoencoder(folder / "AutoencoderModel.ckpt", coder, monkeypatch)
    for name, steps in (("liver_early.pt", 4), ("liver_noearly.pt", 50)):
        published_files.write_diffusion(folder / name, seeded.unet(), autoencoder=coder, steps=steps)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def hub(published, monkeypatch):
    """Serves them; the registry knows their hashes in place of the authors'."""
    known = {}
    with hub_server.serving() as hub:
        for name, content in published.items():
            folder, organ, stage = NAMES[name]
            known[hashlib.sha256(content).hexdigest()] = registry.of_difftumor(folder, name, organ, stage)
            hub.files[f"{registry.REPOSITORY}/{folder}/{name}"] = content
        monkeypatch.setattr(registry, "KNOWN_FILES", known)
        # Its pauses before it tries again, and the size of the pieces that reach the disk.
        monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)
        monkeypatch.setattr(file_download.constants, "DOWNLOAD_CHUNK_SIZE", 500)
        yield hub


def path_of(name: str) -> str:
    return f"{registry.REPOSITORY}/{NAMES[name][0]}/{name}"


def fetch(hub, output: Path, *words: str) -> int:
    return main([*ORGAN, *words, "-o", str(output), "--endpoint", hub.url, "--accept-licence"])


def refused(hub, output: Path, capsys, *words: str) -> str:
    """The one line that the command ends with."""
    assert fetch(hub, output, *words) == 2
    said = capsys.readouterr().err.splitlines()
    ours = [line for line in said if line.startswith("difftumor download-weights: ")]
    assert len(ours) == 1 and ours == said[-1:], said
    return ours[0]


def test_weights_of_an_organ_are_fetched_and_imported_as_import_weights_does_it(hub, published, tmp_path, capsys):
    assert fetch(hub, tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert f"the licence of the weights is apache-2.0 ({registry.REPOSITORY_PAGE}), agreed to" in printed
    assert f"from {hub.url}/MrGiovanni/DiffTumor/resolve/main/DiffusionModel/liver_noearly.pt" in printed
    assert "liver, late: 50 steps, sampled by ddim in 50" in printed
    for name, content in published.items():
        (tmp_path / name).write_bytes(content)
    import_weights([tmp_path / name for name in NAMES], tmp_path / "expected")
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert made == sorted(path.name for path in (tmp_path / "expected").iterdir())
    for name in made:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes(), name
    load_diffusion(
        tmp_path / "out" / "liver_late.safetensors", autoencoder=tmp_path / "out" / "autoencoder.safetensors"
    )
    assert not any("authorization" in request.headers for request in hub.requests)


def test_what_is_there_already_is_not_fetched_again(hub, tmp_path, capsys):
    assert fetch(hub, tmp_path / "out", "--stage", "early") == 0
    assert hub.sent("liver_noearly.pt") == []
    assert fetch(hub, tmp_path / "out") == 0
    assert [hub.sent(name) for name in NAMES] == [[None]] * 3
    assert capsys.readouterr().out.count("there already") == 2
    # A damaged one is.
    with open(tmp_path / "out" / "liver_early.safetensors", "ab") as file:
        file.write(b"x")
    assert len(download_weights("liver", tmp_path / "out", endpoint=hub.url, accept_licence=True)) == 1
    assert [hub.sent(name) for name in NAMES] == [[None], [None, None], [None]]


def test_weights_of_others_under_the_same_names_are_left_alone(hub, tmp_path, capsys):
    own = tiny_networks.write_weights(tmp_path / "own", "liver_early")
    before = {path: path.read_bytes() for path in own.iterdir()}
    assert "autoencoder.safetensors: there already, and not made from AutoencoderModel.ckpt" in refused(
        hub, own, capsys
    )
    assert {path: path.read_bytes() for path in own.iterdir()} == before and hub.requests == []


def test_an_answer_that_is_cut_off_is_gone_on_with(hub, published, tmp_path):
    hub.cuts += [1000, 500]
    assert fetch(hub, tmp_path / "out", "--stage", "early") == 0
    assert hub.sent("AutoencoderModel.ckpt") == [None, "bytes=1000-", "bytes=1500-"]
    assert read_description(tmp_path / "out" / "liver_early.safetensors").source["published_as"]["organ"] == "liver"


def test_an_interrupted_download_resumes_and_leaves_nothing_behind(hub, published, tmp_path, capsys):
    out = tmp_path / "out"
    hub.cuts += [3000, *[0] * 5]
    said = refused(hub, out, capsys)
    assert "cannot be fetched" in said and "what has come is kept" in said and "import-weights" in said
    assert [path.name for path in out.iterdir()] == [UNFINISHED]
    assert (out / UNFINISHED / "AutoencoderModel.ckpt").read_bytes() == published["AutoencoderModel.ckpt"][:3000]
    hub.requests.clear()
    hub.cuts.clear()
    assert fetch(hub, out) == 0
    assert "resuming after 0.0 MB" in capsys.readouterr().out
    assert hub.sent("AutoencoderModel.ckpt") == ["bytes=3000-"] and hub.sent("liver_early.pt") == [None]
    assert not hidden(tmp_path) and len(list(out.iterdir())) == 6


def test_ctrl_c_is_said_to_be_resumed(hub, published, tmp_path, monkeypatch, capsys):
    def interrupted(url, file, **_):
        file.write(published["AutoencoderModel.ckpt"][:2000])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("nnunet_difftumor.generative.importing.download.http_get", interrupted)
        assert fetch(hub, tmp_path / "out", "--stage", "early") == 130
    assert "interrupted; the same command resumes where it stopped" in capsys.readouterr().err
    assert fetch(hub, tmp_path / "out", "--stage", "early") == 0
    assert hub.sent("AutoencoderModel.ckpt") == ["bytes=2000-"]


def test_a_file_with_another_hash_is_removed_and_refused_by_name(hub, published, tmp_path, capsys):
    content = bytearray(published["liver_early.pt"])
    content[1000] ^= 1
    hub.files[path_of("liver_early.pt")] = bytes(content)
    hub.claimed[path_of("liver_early.pt")] = published["liver_early.pt"]
    said = refused(hub, tmp_path / "out", capsys)
    assert "is not liver_early.pt as published: SHA-256 is " in said and "it was removed" in said
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["autoencoder.json", "autoencoder.safetensors"]
    assert not hidden(tmp_path)


def test_a_file_that_the_server_calls_another_is_not_fetched(hub, published, tmp_path, capsys):
    hub.files[path_of("AutoencoderModel.ckpt")] = b"something newer"
    assert "is not AutoencoderModel.ckpt as published" in refused(hub, tmp_path / "out", capsys)
    assert hub.sent("AutoencoderModel.ckpt") == [] and not (tmp_path / "out").exists() and not hidden(tmp_path)


def test_a_partial_file_that_is_too_long_is_begun_again(hub, published, tmp_path):
    partial = tmp_path / "out" / UNFINISHED / "AutoencoderModel.ckpt"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"x" * (len(published["AutoencoderModel.ckpt"]) + 1))
    assert fetch(hub, tmp_path / "out", "--stage", "early") == 0
    assert hub.sent("AutoencoderModel.ckpt") == [None]


def test_a_server_without_the_file_is_named_with_its_answer(hub, tmp_path, capsys):
    hub.files.clear()
    said = refused(hub, tmp_path / "out", capsys)
    assert "AutoencoderModel.ckpt: the server answers 404 Not Found; " in said and "--endpoint" in said
    assert not (tmp_path / "out").exists()


def test_a_stage_of_which_no_hash_is_known_is_not_offered(hub, tmp_path, capsys, monkeypatch):
    known = {sha256: entry for sha256, entry in registry.KNOWN_FILES.items() if entry.stage != "early"}
    monkeypatch.setattr(registry, "KNOWN_FILES", known)
    assert fetch(hub, tmp_path / "out") == 0
    assert "liver_early.pt is not offered: this version does not know its SHA-256" in capsys.readouterr().out
    assert (tmp_path / "out" / "liver_late.safetensors").is_file()
    assert "difftumor import-weights liver_early.pt" in refused(hub, tmp_path / "out", capsys, "--stage", "early")


def test_of_the_published_files_one_is_not_offered():
    with pytest.raises(InputError, match=r"^pancreas_early\.pt is not offered"):
        registry.offered("pancreas", "early")
    for organ, stages in (("liver", ["early", "late"]), ("kidney", ["early", "late"]), ("pancreas", ["late"])):
        found = list(registry.offered(organ).values())
        assert [known.stage for known in found] == [None, *stages]
        assert [known.name for known in found[1:]] == [registry.authors_name(organ, stage) for stage in stages]
        for known in found:
            place = registry.hub_file(known)
            assert place.repository == registry.REPOSITORY and place.revision == "main"
            assert place.path.endswith(f"/{known.name}")


def test_files_of_others_are_not_taken_for_the_authors(monkeypatch):
    page = "https://huggingface.co/a/group/blob/main/x.pt"
    entry = registry.KnownFile("x.pt", "a group", page, "MIT", "liver", "early")
    monkeypatch.setitem(registry.KNOWN_FILES, "ab" * 32, entry)
    assert "ab" * 32 not in registry.offered("liver")


# The installed command.


def command(*words: str, **variables: str) -> str:
    """The one line of the installed command, which ends with status 2."""
    done = subprocess.run([DIFFTUMOR, *words], capture_output=True, text=True, env=os.environ | variables)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stdout + done.stderr
    return done.stderr


def test_without_agreement_the_licence_is_named_and_nothing_downloaded(tmp_path):
    with hub_server.serving() as hub:
        said = command(*ORGAN, "-o", str(tmp_path / "out"), "--endpoint", hub.url)
    assert "apache-2.0" in said and registry.REPOSITORY_PAGE in said and "--accept-licence" in said
    assert hub.requests == [] and not list(tmp_path.iterdir())


def test_without_a_network_it_is_one_line(tmp_path):
    with hub_server.serving() as hub:
        url = hub.url
    said = command(*ORGAN, "-o", str(tmp_path / "out"), "--accept-licence", HF_ENDPOINT=url)
    assert f"{url}/MrGiovanni/DiffTumor/resolve/main/AutoencoderModel/AutoencoderModel.ckpt: cannot be fetched" in said
    assert "check the network" in said and "difftumor import-weights AutoencoderModel.ckpt" in said
    assert not list(tmp_path.iterdir())


def test_an_unknown_organ_is_one_line_of_the_installed_command(tmp_path):
    said = command("download-weights", "--organ", "lver", "-o", str(tmp_path / "out"), "--accept-licence")
    assert "--organ is 'lver', expected one of liver, pancreas, kidney, of which" in said and "is liver meant?" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--organ", "spleen"], "train your own for others (docs/train_generative.md)"),
        (["--organ", "liver", "--endpoint", "ftp://x"], "--endpoint is 'ftp://x', expected a URL such as https://"),
        (["--organ", "liver", "--endpoint", "http://[x"], "--endpoint is 'http://[x', expected a URL such as"),
        (["--organ", "liver", "--endpoint", "http://x:y"], "--endpoint is 'http://x:y', expected a URL such as"),
        (["--organ", "pancreas", "--stage", "early"], "pancreas_early.pt is not offered"),
    ],
)
def test_what_cannot_be_had_is_one_line(tmp_path, capsys, words, message):
    assert main(["download-weights", *words, "-o", str(tmp_path / "out"), "--accept-licence"]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and not list(tmp_path.iterdir())


def test_offline_mode_of_hugging_face_is_respected(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(file_download.constants, "HF_HUB_OFFLINE", True)
    assert main([*ORGAN, "-o", str(tmp_path / "out"), "--accept-licence"]) == 2
    assert "cannot be fetched" in capsys.readouterr().err
