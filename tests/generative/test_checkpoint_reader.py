"""Nothing in a checkpoint file runs, whatever it asks for; damaged files are explained."""

import collections
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.generative.importing.checkpoint_reader import Placeholder, open_checkpoint


def write(path: Path, data_pkl: bytes, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data_pkl)
        for name, content in members.items():
            archive.writestr(f"archive/{name}", content)
    return path


class Payload:
    """Runs a shell command when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("where", ["whole", "value", "key", "state", "nested"])
def test_a_real_payload_does_not_run(tmp_path, where):
    marker = tmp_path / "was_run"
    payload = Payload(marker)
    content = {
        "whole": payload,
        "value": {"state_dict": collections.OrderedDict(weight=payload)},
        "key": {"state_dict": {"weight": torch.ones(2)}, "hyper_parameters": [payload]},
        "state": {"epoch": 1, "callbacks": {"x": (payload, payload)}},
        "nested": [[[[payload]]]],
    }[where]
    torch.save(content, tmp_path / "bad.ckpt")
    with open_checkpoint(tmp_path / "bad.ckpt") as checkpoint:
        text = repr(checkpoint.content)
    assert not marker.exists()
    assert f"<{os.system.__module__}.system>" in text
    # The payload is a real one: the usual way of loading runs it.
    torch.load(tmp_path / "bad.ckpt", weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize(
    "data_pkl",
    [
        # Protocol 0: c names a global, R calls it.
        b"cos\nsystem\n(S'touch {marker}'\ntR.",
        b'c__builtin__\neval\n(S\'open("{marker}", "w")\'\ntR.',
        b'cbuiltins\nexec\n(S\'open("{marker}", "w")\'\ntR.',
        b"(S'touch {marker}'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch {marker}'\no.",
        # A function of the table, fed with a placeholder; attributes for it; and names inside torch itself.
        b"ctorch._utils\n_rebuild_parameter\n(cos\nsystem\ntR.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(dS'__defaults__'\n(I1\ntsb.",
        b"ctorch.hub\nload\n(S'{marker}'\ntR.",
        b"cnnunet_difftumor.generative.importing.checkpoint_reader\nos.system\n(S'touch {marker}'\ntR.",
        b"ccopyreg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nNtR.",
    ],
)
def test_hand_written_pickles_run_nothing(tmp_path, data_pkl):
    marker = tmp_path / "was_run"
    path = write(tmp_path / "bad.pt", data_pkl.replace(b"{marker}", os.fsencode(marker)))
    try:
        with open_checkpoint(path) as checkpoint:
            repr(checkpoint.content)
    except InputError:
        pass
    assert not marker.exists()


def test_attributes_for_a_function_are_refused(tmp_path):
    with (
        pytest.raises(InputError, match="malformed"),
        open_checkpoint(write(tmp_path / "bad.pt", b"ctorch._utils\n_rebuild_tensor_v2\n(dS'__defaults__'\n(I1\ntsb.")),
    ):
        pass


def test_tensors_come_back_with_their_strides_and_dtypes(tmp_path):
    base = torch.arange(24.0).view(2, 3, 4)
    content = {
        "plain": base,
        "transposed": base.transpose(0, 2),
        "part": base[1, 1:, ::2],
        "half": base.bfloat16(),
        "whole": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(base),
        "yes": torch.tensor([True, False]),
    }
    torch.save(content, tmp_path / "good.pt")
    with open_checkpoint(tmp_path / "good.pt") as checkpoint:
        for name, expected in content.items():
            found = checkpoint.tensor(checkpoint.content[name])
            assert found.dtype == expected.dtype
            assert torch.equal(found, expected.detach()), name


class Foreign:
    def __init__(self):
        self.number = 3


def test_objects_of_unknown_classes_become_placeholders_with_their_state(tmp_path):
    torch.save({"object": Foreign(), "path": Path("x"), "set": {1}}, tmp_path / "good.pt")
    with open_checkpoint(tmp_path / "good.pt") as checkpoint:
        found = checkpoint.content["object"]
        assert isinstance(found, Placeholder)
        assert found.state == {"number": 3}
        assert found.qualified_name.endswith(".Foreign")


def test_text_an_empty_file_a_folder_and_other_zips_are_no_checkpoints(tmp_path):
    (tmp_path / "text.pt").write_text("no checkpoint")
    (tmp_path / "empty.pt").touch()
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    for name, message in (
        ("text.pt", "not a PyTorch checkpoint"),
        ("empty.pt", "not a PyTorch checkpoint"),
        ("zip.pt", "no data.pkl"),
        ("none.pt", "no such file"),
        ("", "is a folder; give files of weights"),
    ):
        with pytest.raises(InputError, match=message), open_checkpoint(tmp_path / name):
            pass


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 987654321\n",
            "pointer that Git LFS keeps",
        ),
        (b"\n<!DOCTYPE html><html><body>Please log in</body></html>", "it is a web page"),
        (b"PK\x03\x04" + bytes(2000), "ends too early"),
        (b"GIF89a", "of another format"),
        (b"", "of another format"),
    ],
)
def test_what_came_instead_of_a_checkpoint_is_named(tmp_path, content, said):
    path = tmp_path / "AutoencoderModel.ckpt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"{path}: not a PyTorch checkpoint .*{said}"), open_checkpoint(path):
        pass


def test_malformed_and_compressed_content_is_refused(tmp_path):
    cases = {
        "cut": pickle.dumps([1, 2, 3])[:-2],
        "noise": bytes(range(200)),
        "empty": b"",
        "storage": b"(S'storage'\nctorch\nNoStorage\nS'0'\nS'cpu'\nI4\ntQ.",
        "negative": b"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI-4\ntQ.",
    }
    for name, data_pkl in cases.items():
        with pytest.raises(InputError, match="malformed"), open_checkpoint(write(tmp_path / f"{name}.pt", data_pkl)):
            pass
    with zipfile.ZipFile(tmp_path / "compressed.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    with pytest.raises(InputError, match="compressed"), open_checkpoint(tmp_path / "compressed.pt"):
        pass


def test_numbers_that_are_missing_or_too_few_are_noticed(tmp_path):
    torch.save({"w": torch.ones(4)}, tmp_path / "good.pt")
    with zipfile.ZipFile(tmp_path / "good.pt") as archive:
        data_pkl = archive.read("good/data.pkl")
    for members in ({}, {"data/0": struct.pack("<2f", 1, 1)}):
        path = write(tmp_path / "bad.pt", data_pkl, **members)
        with open_checkpoint(path) as checkpoint, pytest.raises(InputError, match="damaged"):
            checkpoint.tensor(checkpoint.content["w"])


def test_flipped_bits_are_noticed(tmp_path):
    torch.save({"w": torch.arange(4096.0)}, tmp_path / "bad.pt")
    content = bytearray((tmp_path / "bad.pt").read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "bad.pt").write_bytes(content)
    with pytest.raises(InputError, match="CRC"), open_checkpoint(tmp_path / "bad.pt") as checkpoint:
        checkpoint.tensor(checkpoint.content["w"])


def test_a_damaged_directory_of_the_archive_is_said(tmp_path):
    content = write(tmp_path / "good.pt", pickle.dumps({})).read_bytes()
    end = content.rindex(b"PK\x05\x06")
    start = int.from_bytes(content[end + 16 : end + 20], "little")
    changes = {
        "a name that is no text": (start + 8, b"\x00\x08", start + 46, b"\xff"),
        "members before the file": (end + 16, (start + 1000).to_bytes(4, "little"), 0, content[:1]),
        "a version that nobody knows": (start + 6, b"\xff\x00", 0, content[:1]),
    }
    for name, (one, first, other, second) in changes.items():
        damaged = bytearray(content)
        damaged[one : one + len(first)], damaged[other : other + len(second)] = first, second
        path = tmp_path / f"{name}.ckpt"
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"not a PyTorch checkpoint .*get the file again"), open_checkpoint(path):
            pass


def test_errors_of_those_who_read_a_checkpoint_are_theirs(tmp_path):
    path = write(tmp_path / "good.pt", pickle.dumps({}))
    with pytest.raises(OSError, match="No space left"), open_checkpoint(path):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize(("numel", "stride"), [(10**12, 1), (1, 0)])
def test_a_huge_tensor_in_a_small_file_takes_no_memory(tmp_path, numel, stride):
    data_pkl = (
        b"ctorch._utils\n_rebuild_tensor_v2\n((S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\n"
        b"I%d\ntQI0\n(I1000000000000\nt(I%d\ntI00\nNtR." % (numel, stride)
    )
    path = write(tmp_path / "bad.pt", data_pkl, **{"data/0": b"1234"})
    with open_checkpoint(path) as checkpoint, pytest.raises(InputError, match="damaged"):
        checkpoint.tensor(checkpoint.content)
