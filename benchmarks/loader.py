"""Batches per second of nnUNetTrainerDiffTumor's training loader, against nnU-Net's own on the same dataset.

Both loaders come from the trainers' own get_dataloaders, with a patch of 128^3 and the default mix, and run in turns.
Exits 1 when the median share is below the bar. The dataset is made from the CTs of DIFFTUMOR_TEST_DATA at 1 mm unless
--prepared names a preprocessed dataset folder.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

BAR = 0.9
PATCH_SIZE = (128, 128, 128)
# The loaders' queues and workers hold up to this many finished batches (nnU-Net: 6 in each of two queues, and 1 in the
# hands of each worker). They are taken before the clock starts, or they would count as made in no time.
CACHED_BATCHES = 16


def prepare_real_ct(data: Path, root: Path) -> Path:
    """Converts and prepares three CTs; returns the preprocessed dataset folder."""
    from nnunet_difftumor.dataset_conversion import folder
    from nnunet_difftumor.preparation.prepare import prepare

    cases = root / "cases"
    for name in ("abdomen_3mm", "liver_healthy", "liver_tumors"):
        (cases / name).mkdir(parents=True)
        for file in ("ct.nii.gz", "labels.nii.gz"):
            (cases / name / file).symlink_to((data / name / file).absolute())
    (cases / "abdomen_3mm" / "label_map.json").write_text('{"liver": 5}')
    folder.convert(cases, 502, labels={"liver": [1], "liver_tumor": [2]}, name="Real", ignore_other_labels=True)
    return prepare(502, spacing_mm=(1.0, 1.0, 1.0), patch_size=PATCH_SIZE, processes=1).parent


def loader_of(trainer_class: type, dataset: Path, *, epoch: int):
    """The training loader, with workers running.

    Args:
        epoch: where the run resumes. Our batches are a function of their number, and batches differ by a factor of
            three with what augmentation draws: every run must see others, as nnU-Net's do.
    """
    import torch
    from batchgenerators.utilities.file_and_folder_operations import load_json

    plans = load_json(str(dataset / "nnUNetPlansDiffTumor.json"))
    # The loaders do not see the network; a small one makes the trainers start quickly.
    from nnunet_difftumor.trainers.tiny import shrink_plans

    shrink_plans(plans, "3d_fullres")
    plans["configurations"]["3d_fullres"]["patch_size"] = list(PATCH_SIZE)
    trainer = trainer_class(
        {**plans, "continue_training": False},
        "3d_fullres",
        0,
        load_json(str(dataset / "dataset.json")),
        torch.device("cpu"),
    )
    trainer.initialize()
    trainer.current_epoch = epoch
    training, validation = trainer.get_dataloaders()
    validation._finish()
    return training


def batches_per_second(trainer_class: type, dataset: Path, *, batches: int, epoch: int) -> float:
    loader = loader_of(trainer_class, dataset, epoch=epoch)
    try:
        for _ in range(CACHED_BATCHES):  # made while nobody asked
            next(loader)
        start = time.perf_counter()
        for _ in range(batches):
            next(loader)
        return batches / (time.perf_counter() - start)
    finally:
        loader._finish()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, help="preprocessed dataset folder, prepared at 1 mm")
    parser.add_argument("--runs", type=int, default=5, help="alternating runs of each loader")
    parser.add_argument("--batches", type=int, default=30, help="batches per run")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        for name in ("raw", "preprocessed", "results"):
            os.environ[f"nnUNet_{name}"] = f"{root}/{name}"
            Path(root, name).mkdir()
        os.environ["nnUNet_n_proc_DA"] = str(args.workers)
        if args.prepared:
            os.environ["nnUNet_preprocessed"] = str(args.prepared.absolute().parent)
        dataset = args.prepared or prepare_real_ct(Path(os.environ["DIFFTUMOR_TEST_DATA"]), Path(root))
        return compare(dataset, runs=args.runs, batches=args.batches)


def compare(dataset: Path, *, runs: int, batches: int) -> int:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from nnunet_difftumor.trainers.difftumor import nnUNetTrainerDiffTumor
    from nnunet_difftumor.trainers.label_free import nnUNetTrainerDiffTumorLabelFree

    trainers = (nnUNetTrainer, nnUNetTrainerDiffTumor, nnUNetTrainerDiffTumorLabelFree)
    speeds: dict[str, list[float]] = {trainer.__name__: [] for trainer in trainers}
    for run in range(runs):
        for trainer in trainers:
            speeds[trainer.__name__].append(batches_per_second(trainer, dataset, batches=batches, epoch=run))
    stock = median(speeds["nnUNetTrainer"])
    for name, values in speeds.items():
        shown = " ".join(f"{value:.2f}" for value in values)
        print(f"{name:<34} {median(values):.2f} batches/s   share {median(values) / stock:.2f}   runs {shown}")
    share = median(speeds["nnUNetTrainerDiffTumor"]) / stock
    print(f"bar {BAR}: {'held' if share >= BAR else 'MISSED'}")
    return int(share < BAR)


if __name__ == "__main__":
    sys.exit(main())
