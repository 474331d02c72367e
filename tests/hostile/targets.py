"""What reads files from elsewhere: each target has a sound input, and what reads it."""

import gzip
import hashlib
import io
import json
import shutil
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "generative"))
sys.path.insert(0, str(Path(__file__).parents[1] / "synthesis"))

import mutations
import published_files
import tiny_networks
import tumors
from ct_files import body_hu, save
from dicom_series import save_dicom
from mutations import Change

from nnunet_difftumor.cli.main import main
from nnunet_difftumor.ct import read_ct, read_labels
from nnunet_difftumor.ct.whole_files import check_is_whole
from nnunet_difftumor.generative.importing.published_weights import import_weights
from nnunet_difftumor.generative.weights import load_autoencoder, load_diffusion
from nnunet_difftumor.prepared.config import DiffTumorConfig
from nnunet_difftumor.prepared.nnunet.dataset_json import read_dataset_json
from nnunet_difftumor.prepared.nnunet.plans_and_folds import read_plans_file, read_splits
from nnunet_difftumor.synthesis.handcrafted import HandcraftedRenderer
from nnunet_difftumor.synthesis.lesion_file import read_lesion, write_lesion
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.scans.manifest import read_manifest
from nnunet_difftumor.synthesis.scene import patch_of


@dataclass(frozen=True)
class Target:
    """A kind of input.

    Attributes:
        name: of the kind.
        file: the sound input.
        change: makes another one of its content.
        read: reads the changed file; raises an InputError, or returns the exit status of a command.
    """

    name: str
    file: Path
    change: Change
    read: Callable[[Path], object]


def targets(folder: Path) -> Sequence[Target]:
    """All of them; their sound inputs are written into a folder."""
    weights = tiny_networks.write_weights(folder / "weights", "liver_early")
    coder, model = weights / "autoencoder.safetensors", weights / "liver_early.safetensors"
    scan = save(folder / "ct.nii.gz", body_hu((20, 18, 16)))
    # In storage that is not compressed, changes reach the voxels and headers themselves.
    plain = folder / "plain.nii"
    plain.write_bytes(gzip.decompress(scan.read_bytes()))
    return [
        Target("weights", coder, _with_its_hash, load_autoencoder),
        Target("JSON of weights", coder.with_suffix(".json"), mutations.changed_json, _loads(model, coder)),
        Target("checkpoint", _checkpoint(folder), _in_its_pickle, _imports),
        Target("manifest", _manifest(folder), mutations.changed_json, read_manifest),
        Target("lesion", _lesion(folder), mutations.changed_bytes, lambda path: read_lesion(path, _VOLUME)),
        Target("difftumor.json", _settings(folder), mutations.changed_json, DiffTumorConfig.load),
        Target("dataset.json", _dataset_json(folder), mutations.changed_json, read_dataset_json),
        Target("plans", _plans(folder), mutations.changed_json, read_plans_file),
        Target("folds", _splits(folder), mutations.changed_json, read_splits),
        Target("NIfTI, header", plain, mutations.changed_beginning, read_ct),
        Target("NIfTI, labels", plain, mutations.changed_beginning, read_labels),
        Target("NIfTI, gzip", scan, mutations.changed_bytes, read_ct),
        Target("DICOM, header", _slice(folder), _in_its_tags, _reads_series),
        Target("DICOM, slice", _slice(folder), mutations.changed_bytes, _reads_series),
        Target("MetaImage", _meta_image(folder), mutations.changed_bytes, check_is_whole),
        Target("command", plain, mutations.changed_beginning, _synthesizes(folder)),
    ]


_VOLUME = tumors.liver_scan(40.0)


def _with_its_hash(content: bytes, random: np.random.Generator) -> bytes:
    # The JSON beside it is made by the harness, so that the hash does not end every trial.
    change = mutations.changed_bytes if random.random() < 0.5 else mutations.changed_beginning
    return change(content, random)


def _imports(path: Path) -> object:
    return import_weights([path], path.parent / "out")


def _loads(model: Path, coder: Path) -> Callable[[Path], object]:
    def read(path: Path) -> object:
        (path.parent / "autoencoder.safetensors").write_bytes(coder.read_bytes())
        path.rename(path.parent / "autoencoder.json")
        return load_diffusion(model, autoencoder=path.parent / "autoencoder.safetensors")

    return read


def _checkpoint(folder: Path) -> Path:
    import torch

    path = folder / "AutoencoderModel.ckpt"
    torch.save({"state_dict": published_files.autoencoder_tensors(tiny_networks.autoencoder())}, path)
    return path


def _in_its_pickle(content: bytes, random: np.random.Generator) -> bytes:
    """Mostly in data.pkl, with checksums that are right."""
    if random.random() < 0.3:
        return mutations.changed_bytes(content, random)
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            part = old.read(name)
            new.writestr(name, mutations.changed_bytes(part, random) if name.endswith("data.pkl") else part)
    return made.getvalue()


def _manifest(folder: Path) -> Path:
    ct, labels = folder / "scan.nii.gz", folder / "labels.nii.gz"
    affine = np.diag([-2.0, -2.0, 2.0, 1.0])
    hu = np.random.default_rng(0).normal(100, 15, (40, 40, 40))
    hu[:3] = -1000
    hu[3:6] = -100
    nib.save(nib.Nifti1Image(hu.astype(np.int16), affine), ct)
    nib.save(nib.Nifti1Image((hu > -50).astype(np.uint8), affine), labels)
    words = ["synthesize", str(ct), "--organ-mask", str(labels), "--organ", "liver", "--size", "tiny"]
    assert main([*words, "-o", str(folder / "made")]) == 0
    return folder / "made" / "manifest.json"


def _lesion(folder: Path) -> Path:
    organ, spec = Organ("liver", (1,), 2), tumors.spec()
    (tumor,) = HandcraftedRenderer().render([patch_of(_VOLUME, spec, organ)], [spec])
    write_lesion(folder / "a.lesion.npz", tumor, _VOLUME)
    return folder / "a.lesion.npz"


def _written(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def _settings(folder: Path) -> Path:
    organs = (Organ("liver", (1,), 2, (3,)), Organ("kidney", (4,), 5))
    return _written(folder / "difftumor.json", DiffTumorConfig(organs=organs).to_dict())


def _dataset_json(folder: Path) -> Path:
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": [1, 2], "liver_tumor": 2},
        "regions_class_order": [1, 2],
        "numTraining": 3,
        "file_ending": ".nii.gz",
    }
    return _written(folder / "dataset.json", content)


def _plans(folder: Path) -> Path:
    configuration = {
        "data_identifier": "nnUNetPlansDiffTumor_3d_fullres",
        "batch_size": 2,
        "patch_size": [96, 96, 96],
        "spacing": [1.0, 0.8, 0.8],
        "normalization_schemes": ["CTNormalization"],
    }
    statistics = {"mean": 80.0, "std": 30.0, "percentile_00_5": -175.0, "percentile_99_5": 250.0}
    content = {
        **{"dataset_name": "Dataset003_Liver", "plans_name": "nnUNetPlansDiffTumor"},
        **{"image_reader_writer": "SimpleITKIO", "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2]},
        "foreground_intensity_properties_per_channel": {"0": statistics},
        "configurations": {"3d_fullres": configuration, "3d_lowres": {"inherits_from": "3d_fullres"}},
    }
    return _written(folder / "plans.json", content)


def _splits(folder: Path) -> Path:
    fold = {"train": ["a", "b"], "val": ["c"], "synthesis_bases": ["d"], "label_free_val": ["d"], "left_out": []}
    return _written(folder / "splits_final.json", [fold, fold])


def _slice(folder: Path) -> Path:
    """One in the middle of a series of six; `beside` gives it the others."""
    return save_dicom(folder / "series", np.asarray(body_hu((6, 18, 16))) + 1024)[2]


def _in_its_tags(content: bytes, random: np.random.Generator) -> bytes:
    # Behind the mark by which a file is known as DICOM, and before the voxels, 18 x 16 of two bytes.
    return content[:132] + mutations.changed_bytes(content[132:-576], random) + content[-576:]


def _reads_series(path: Path) -> object:
    return read_ct(path.parent)


def _meta_image(folder: Path) -> Path:
    import SimpleITK

    image = SimpleITK.GetImageFromArray(np.random.default_rng(0).integers(0, 9, (9, 9, 9)).astype(np.int16))
    SimpleITK.WriteImage(image, str(folder / "scan.mha"), useCompression=True)
    return folder / "scan.mha"


def _synthesizes(folder: Path) -> Callable[[Path], object]:
    labels = save(folder / "organ.nii.gz", np.ones((20, 18, 16), np.uint8), dtype=np.uint8)

    def read(path: Path) -> object:
        words = ["synthesize", str(path), "--organ-mask", str(labels), "--organ", "liver", "--size", "tiny"]
        return main([*words, "-o", str(path.parent / "out")])

    return read


def beside(target: Target, path: Path) -> None:
    """What the changed file needs beside it, so that it is not refused for that."""
    if target.name.startswith("DICOM"):
        for file in target.file.parent.iterdir():
            if file.name != path.name:
                shutil.copyfile(file, path.parent / file.name)
    if target.name == "weights":
        content = json.loads(target.file.with_suffix(".json").read_text())
        content["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        path.with_suffix(".json").write_text(json.dumps(content))
