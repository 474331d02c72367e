"""Region-based labels as in KiTS, and training from a bank of lesions, through nnU-Net's own loaders."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from trainer_of import trainer_of

from nnunet_difftumor.preparation.prepare import prepare
from nnunet_difftumor.prepared.config import DiffTumorConfig
from nnunet_difftumor.prepared.intensity import CTIntensity
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def kits_like(prepared_phantom, nnunet_folders):
    """The phantom's kidneys labelled as in KiTS: regions kidney (1, 2, 3), masses (2, 3), tumor 2."""
    raw = nnunet_folders / "raw" / "Dataset503_KitsLike"
    shutil.copytree(prepared_phantom.raw, raw)
    for path in sorted((raw / "labelsTr").iterdir()):
        image = nib.load(path)
        labels = np.asarray(image.dataobj)
        kidney = (labels == 3).astype(np.uint8)
        if "tumor" in path.name:
            z, y, x = (
                int(axis.mean()) for axis in np.nonzero(kidney & (np.arange(kidney.shape[0]) < 60)[:, None, None])
            )
            block = kidney[z - 2 : z + 3, y - 2 : y + 3, x - 1 : x + 2]
            block[:3] = np.where(block[:3], 2, 0)
            block[3:] = np.where(block[3:], 3, 0)
            assert {1, 2, 3} <= set(np.unique(kidney).tolist())
        nib.save(nib.Nifti1Image(kidney, image.affine), path)
    record = json.loads((raw / "dataset.json").read_text())
    record["labels"] = {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2}
    record["regions_class_order"] = [1, 3, 2]
    (raw / "dataset.json").write_text(json.dumps(record))
    return prepare(503, spacing_mm=(4, 3, 3), patch_size=(32, 32, 32), processes=1).parent


def test_kits_like_regions_train_on_bases_with_tumors_in_every_region_they_belong_to(kits_like, monkeypatch):
    organ = DiffTumorConfig.load(kits_like / "difftumor.json").organs[0]
    assert (organ.organ_labels, organ.tumor_label, organ.avoid_labels) == ((1,), 2, (2, 3))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    trainer = trainer_of(kits_like)
    training, _ = trainer.get_dataloaders()
    seen = 0
    for _ in range(10):
        batch = next(training)
        for sample in batch["samples"]:
            kidney, masses, tumor = batch["target"][0][sample["sample"]].bool()
            assert sample["in_target"] == bool(tumor.any())
            assert (tumor <= masses).all() and (masses <= kidney).all()
            seen += sample["in_target"]
    assert seen >= 10
    # The loss and a step work on such targets.
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    assert np.isfinite(trainer.train_step(next(trainer.dataloader_train))["loss"])


def test_partly_annotated_cases_train_with_tumors_in_what_is_annotated(copy_of_prepared_phantom, monkeypatch):
    """nnU-Net's label `ignore`: no loss there, and no synthetic tumor either."""
    record = load_json(str(copy_of_prepared_phantom / "dataset.json"))
    ignore = max(record["labels"].values()) + 1
    record["labels"]["ignore"] = ignore
    (copy_of_prepared_phantom / "dataset.json").write_text(json.dumps(record))
    folder = str(copy_of_prepared_phantom / "nnUNetPlansDiffTumor_3d_fullres")
    cases = nnUNetDatasetBlosc2(folder)
    for case in cases.identifiers:
        data, seg, _, properties = cases.load_case(case)
        chunks = {"chunks": data.chunks, "blocks": data.blocks, "chunks_seg": seg.chunks, "blocks_seg": seg.blocks}
        data, seg = data[:], seg[:].copy()
        seg[:, : seg.shape[1] // 2] = ignore
        # As nnU-Net's preprocessing of such a case has it.
        annotated = np.argwhere(seg != ignore)[::100]
        properties["class_locations"][(-1, *range(ignore))] = annotated
        for ending in (".b2nd", "_seg.b2nd", ".pkl"):
            Path(folder, f"{case}{ending}").unlink()
        nnUNetDatasetBlosc2.save_case(data, seg, properties, f"{folder}/{case}", **chunks)
    # They are not what `prepare` wrote, and meant to be.
    settings = copy_of_prepared_phantom / "difftumor.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "on_wrong_data": "warn"}))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    trainer = trainer_of(copy_of_prepared_phantom)
    training, _ = trainer.get_dataloaders()
    batches = [next(training) for _ in range(8)]
    samples = [sample for batch in batches for sample in batch["samples"]]
    assert len(samples) >= 8 and np.mean([sample["in_target"] for sample in samples]) >= 0.8
    assert any((batch["target"][0] == ignore).any() for batch in batches)
    # A tumor lies where its organ was annotated: below the half that is ignored, but for what it grows out.
    half = {case: cases.load_case(case)[1].shape[1] // 2 * 4.0 for case in cases.identifiers}
    assert all(t["centre_mm"][0] > half[sample["case"]] - 40 for sample in samples for t in sample["tumors"])
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    assert np.isfinite(trainer.train_step(next(trainer.dataloader_train))["loss"])


def test_training_from_a_bank_of_lesions(prepared_phantom, copy_of_prepared_phantom, monkeypatch, tmp_path):
    from nnunet_difftumor.prepared.overlay_case import OverlayCase
    from nnunet_difftumor.synthesis.handcrafted import HandcraftedRenderer
    from nnunet_difftumor.synthesis.lesion_file import write_lesion
    from nnunet_difftumor.synthesis.placement.sampler import TumorSampler
    from nnunet_difftumor.synthesis.scene import patch_of

    plans = load_json(str(copy_of_prepared_phantom / "nnUNetPlansDiffTumor.json"))
    config = DiffTumorConfig.load(copy_of_prepared_phantom / "difftumor.json")
    organ = config.organs[0]
    cases = nnUNetDatasetBlosc2(str(copy_of_prepared_phantom / "nnUNetPlansDiffTumor_3d_fullres"))
    bank = tmp_path / "bank"
    for name in [f"phantom_{i:03d}" for i in range(4)]:
        data, seg, _, _ = cases.load_case(name)
        case = OverlayCase(
            name, data, seg, spacing_mm=(4.0, 3.0, 3.0), intensity=CTIntensity.from_plans(plans, "3d_fullres")
        )
        path = f"difftumor_statistics/nnUNetPlansDiffTumor_3d_fullres/{organ.name}/{name}.npz"
        statistics = OrganStatistics.load(copy_of_prepared_phantom / path)
        placement = TumorSampler(organ).sample(case, statistics, np.random.default_rng(0), size="small")
        tumor = HandcraftedRenderer().render([patch_of(case, placement.spec, organ)], [placement.spec])[0]
        write_lesion(bank / name / "0.lesion.npz", tumor, case)
    (bank / "phantom_000" / "1.lesion.npz").write_bytes(b"garbage")
    record = {**config.to_dict(), "source": "bank", "bank_folder": str(bank)}
    (copy_of_prepared_phantom / "difftumor.json").write_text(json.dumps(record))

    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    trainer = trainer_of(copy_of_prepared_phantom)
    training, _ = trainer.get_dataloaders()
    samples = [sample for _ in range(10) for sample in next(training)["samples"]]
    assert len(samples) > 10 and np.mean([sample["in_target"] for sample in samples]) >= 0.95
    refused = [reason for sample in samples for reason in sample["refused"]]
    assert refused and all("cannot be read" in reason for reason in refused)
