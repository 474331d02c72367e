"""Checks of the machine: GPU and Triton, cores and workers, shared memory. Nothing here is slow."""

import os
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from nnunet_difftumor.installation.finding import Finding
from nnunet_difftumor.installation.torchvision_repair import Probe

CPU_ADVICE = "set OMP_WAIT_POLICY=PASSIVE nnUNet_n_proc_DA=1 nnUNet_def_n_proc=1, and give nnU-Net `-device cpu`"
SHARED_MEMORY = Path("/dev/shm")
# nnU-Net's own default (get_allowed_n_proc_DA), which it limits to the cores of the machine.
_DEFAULT_WORKERS = 12
# Two samples of 128 x 128 x 128 voxels, nnU-Net's usual patch: an image of 4 bytes per voxel, and int16 targets at full
# resolution and, for deep supervision, at each half of it.
_BATCH_BYTES = 2 * 128**3 * (4 + 2 * 8 / 7)
_QUERY_SECONDS = 20
# Less than this fits no 3D network with nnU-Net's usual patch.
_LEAST_GPU_GB = 7


def check_gpu(seen: Probe) -> Finding:
    """Name, memory and driver; a GPU that torch cannot use is not taken for none."""
    driver = _driver()
    if seen.cuda_device is not None:
        gigabytes = (seen.cuda_memory_bytes or 0) / 1e9
        text = f"CUDA device {seen.cuda_device}, {gigabytes:.0f} GB, driver {driver or 'unknown'}, CUDA {seen.cuda}"
        if gigabytes < _LEAST_GPU_GB:
            return Finding("note", text, "this is little memory: prepare with a smaller --patch-size")
        return Finding("ok", text)
    if driver is None:
        return Finding("note", "no CUDA device, so training runs on the CPU", CPU_ADVICE)
    if seen.cuda is None:
        return Finding(
            "note",
            f"there is a GPU (driver {driver}), but torch {seen.torch} is a build without CUDA",
            "install torch and torchvision for CUDA, see https://pytorch.org/get-started/locally",
        )
    return Finding(
        "note",
        f"there is a GPU (driver {driver}), but torch {seen.torch} for CUDA {seen.cuda} cannot use it",
        "update the driver or install torch for an older CUDA, and see that CUDA_VISIBLE_DEVICES does not hide the GPU",
    )


def check_triton(seen: Probe) -> Finding:
    """Whether Triton imports, and is the version that this torch asks for; only kernels on a GPU need it."""
    wanted = _triton_of_torch()
    install = f'pip install "triton{wanted.specifier if wanted else ">=3.5"}"'
    if seen.triton is None:
        reason = seen.triton_error or "not looked for"
        if "No module named 'triton'" not in reason:
            return Finding("note", f"Triton cannot be imported ({reason})", install)
        advice = install if seen.cuda_device is not None else ""
        return Finding("note", "no Triton; only work on a GPU would need it", advice)
    if wanted is None:
        return Finding("ok", f"Triton {seen.triton}; torch {seen.torch} asks for no particular one")
    if wanted.specifier.contains(seen.triton, prereleases=True):
        return Finding("ok", f"Triton {seen.triton}, as torch {seen.torch} asks for")
    return Finding("note", f"Triton {seen.triton}, but torch {seen.torch} asks for {wanted.specifier}", install)


def check_workers() -> Finding:
    """nnU-Net's processes for augmentation against the cores that this process may use."""
    cores = usable_cores()
    named = os.environ.get("nnUNet_n_proc_DA")
    if named is not None and not named.isdecimal():
        return Finding("problem", f"nnUNet_n_proc_DA={named} is not a whole number", f"export nnUNet_n_proc_DA={cores}")
    origin = f"nnUNet_n_proc_DA={named}" if named is not None else "nnUNet_n_proc_DA is not set"
    workers = augmentation_workers()
    text = f"{cores} cores; {origin}: {workers} processes for augmentation"
    if workers > cores:
        return Finding("note", f"{text}, more than cores", f"export nnUNet_n_proc_DA={cores}")
    return Finding("ok", text)


def check_shared_memory(folder: Path = SHARED_MEMORY) -> Finding:
    """Batches go from nnU-Net's workers to the training through /dev/shm; in containers it is small by default."""
    if not folder.is_dir():
        return Finding("ok", f"this system has no {folder}; torch passes batches in another way")
    workers = augmentation_workers()
    needed = batches_in_flight(workers) * _BATCH_BYTES
    size = shutil.disk_usage(folder)
    text = (
        f"{folder} has {size.free / 1e9:.1f} of {size.total / 1e9:.1f} GB free; {workers} workers need up to "
        f"{needed / 1e9:.1f} GB ({batches_in_flight(workers)} batches of two 128 x 128 x 128 patches)"
    )
    if size.free >= needed:
        return Finding("ok", text)
    return Finding(
        "note",
        f"{text}: workers may die",
        f"start the container with --shm-size={max(1, round(needed / 1e9 + 0.5))}g or --ipc=host, or set a smaller "
        "nnUNet_n_proc_DA",
    )


def batches_in_flight(workers: int) -> int:
    """Most batches that the loaders of nnU-Net and of this package hold at once.

    nnU-Net (nnUNetTrainer.get_dataloaders): one in each worker, and a cache of max(6, workers / 2) twice, before and
    behind the thread that takes them over; for validation half the workers and a cache of max(3, workers / 4). In
    training, this package has a queue per worker, whose lengths sum up to at least the number of workers, and half as
    many behind. Without workers nothing is passed.
    """
    if workers == 0:
        return 0
    cache = max(6, workers // 2)
    queues = workers * max(1, cache // workers)
    training = workers + max(2 * cache, queues + max(3, queues // 2))
    return training + max(1, workers // 2) + 2 * max(3, workers // 4)


def augmentation_workers() -> int:
    """As nnU-Net finds it, but for the computers of its authors."""
    named = os.environ.get("nnUNet_n_proc_DA", "")
    return min(int(named) if named.isdecimal() else _DEFAULT_WORKERS, os.cpu_count() or 1)


def usable_cores(quota_file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores of this process: what affinity (taskset, Slurm) and the container's quota leave of the machine's."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = quota_file.read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or no limit ("max")
        return cores


def _driver() -> str | None:
    """Version of the NVIDIA driver; None if there is no GPU or no nvidia-smi."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=_QUERY_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.split()
    return lines[0] if done.returncode == 0 and lines else None


def _triton_of_torch():
    """What torch's own metadata ask for (`packaging.requirements.Requirement`); None in builds without CUDA."""
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires("torch") or []
    except metadata.PackageNotFoundError:
        return None
    for requirement in map(Requirement, lines):
        if requirement.name == "triton" and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            return requirement
    return None
