"""`difftumor check`: every fault that it is there for, at three magnitudes, in phantoms and in real CT, by its name."""

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import seeds
from changeable import ChangeableDataset
from seeds import OTHER, POOL, Place

from nnunet_difftumor.cli.main import main

MIRROR, LPS = np.diag([-1.0, 1.0, 1.0, 1.0]), np.diag([-1.0, -1.0, 1.0, 1.0])


def scaling(slope: float, intercept: float) -> tuple[int, bytes]:
    """scl_slope and scl_inter of a NIfTI header."""
    return 112, struct.pack("<2f", slope, intercept)


@dataclass(frozen=True)
class Fault:
    """A fault at three magnitudes.

    Attributes:
        kind: of the finding.
        magnitudes: by name, what seeds it and a part of what the finding then says.
        case: that the finding names: "base" or "real" of the place, another name, or nothing where it is about the
            whole dataset.
        options: of the command.
    """

    kind: str
    magnitudes: dict[str, tuple[Callable[[Place], None], str]]
    case: str = "base"
    options: tuple[str, ...] = ()


MISPLACED, CHANGED, UNFIT = "misplaced-labels", "has changed since the dataset was prepared", "unfit-weights"
VALIDATES, OF_ANOTHER_VERSION = "of them validates what the other trains", "made from another version of the case"

FAULTS = {
    "values too high": Fault(
        "unreadable", {f"{hu} HU": (seeds.offset(hu), "values that lack their intercept") for hu in (1024, 2048, 8192)}
    ),
    # Noise of air is then below 0, as in HU; the organ is not.
    "values 1000 too high": Fault("not-hu", {"1000 HU": (seeds.offset(1000), "liver has a median of 1")}),
    "values a little off": Fault(
        "not-hu", {f"{hu} HU": (seeds.offset(hu), "all values may be") for hu in (-60, 60, 100)}
    ),
    "intercept twice": Fault(
        "unreadable",
        {
            "1024 HU": (seeds.header(scaling(1, -1024)), "may be missing or applied twice"),
            "1000 HU": (seeds.offset(-1000), "may be missing or applied twice"),
            "8192 HU": (seeds.offset(-8192), "may be missing or applied twice"),
        },
    ),
    # A slope of 0 means none to nibabel, whatever the intercept; SimpleITK adds the intercept, and converts metres.
    "two readers differ": Fault(
        "unreadable",
        {
            "1024 HU": (seeds.header(scaling(0, -1024)), "scl_slope is 0, but scl_inter -1024"),
            "40 HU": (seeds.header(scaling(0, 40)), "scl_slope is 0, but scl_inter 40"),
            "metres": (seeds.header((123, bytes([1]))), "lengths in metres"),
        },
    ),
    "qform unlike sform": Fault(
        "unreadable",
        {
            "1 mm": (seeds.qform(seeds.away(0, 0, 1)), "qform and sform differ by up to 1 mm"),
            "30 mm": (seeds.qform(seeds.away(18, 24, 0)), "qform and sform differ by up to 30 mm"),
            "mirrored": (seeds.qform(lambda affine: affine @ MIRROR), "qform and sform differ by up to"),
        },
    ),
    "labels mirrored": Fault(
        MISPLACED,
        {
            "whole": (seeds.misplaced(0, 0, mirrored=True), "labels look mirrored left to right"),
            "and 10 mm aside": (seeds.misplaced(10, 0, mirrored=True), "labels look mirrored left to right"),
            "and 10 mm up": (seeds.misplaced(10, 2, mirrored=True), "labels look mirrored left to right"),
        },
    ),
    "labels shifted": Fault(
        MISPLACED,
        {
            "8 mm": (seeds.misplaced(8, 2), "labels look shifted by"),
            "12 mm": (seeds.misplaced(-12, 0), "labels look shifted by"),
            "20 mm": (seeds.misplaced(20, 1), "labels look shifted by"),
        },
    ),
    **{
        f"labels of another patient, pair {number}": Fault(
            MISPLACED, {"all": (seeds.of_another(number), "labels")}, f"stranger {number}"
        )
        for number in range(3)
    },
    "spacing lost": Fault(
        "unreadable",
        {
            "unit matrix": (seeds.lost_spacing(np.eye(4)), "a spacing of exactly 1 mm"),
            "unit matrix of LPS": (seeds.lost_spacing(LPS), "a spacing of exactly 1 mm"),
            "no form": (seeds.lost_spacing(None), "neither qform nor sform is set"),
        },
    ),
    "damaged gzip": Fault(
        "unreadable",
        {
            "half": (seeds.bytes_of_image(lambda content: content[: len(content) // 2]), "damaged"),
            "no trailer": (seeds.bytes_of_image(lambda content: content[:-8]), "damaged"),
            "a bit": (seeds.bytes_of_image(seeds.one_bit(-5)), "damaged"),
        },
    ),
    "label of a healthy case mended": Fault(
        "stale",
        {
            "a voxel": (seeds.labels_of("base", seeds.one_voxel_more), CHANGED),
            "half": (seeds.labels_of("base", seeds.lower_half), CHANGED),
        },
    ),
    "label of a tumor case mended": Fault(
        "stale", {"a tumor": (seeds.labels_of("real", seeds.without_tumor), CHANGED)}, "real"
    ),
    **{
        f"case withdrawn, number {number + 1}": Fault(
            "withdrawn", {f"of {number + 1}": (seeds.withdrawn(number + 1), "is still in the prepared dataset")}, case
        )
        for number, case in enumerate(("base", "real", "other"))
    },
    **{
        f"case added, number {count}": Fault(
            "added", {f"of {count}": (seeds.added(count), "but not in the prepared dataset")}, f"new{count}"
        )
        for count in (1, 2, 3)
    },
    "lesion in a healthy case": Fault(
        "lesion-in-healthy-case",
        {f"{voxels} voxels": (seeds.pool(seeds.lesion(voxels)), "has lesions (label 2)") for voxels in (1, 30, 1000)},
        f"{POOL}_healthy",
    ),
    "organ empty": Fault("empty-organ", {"nothing": (seeds.labels_of("base", seeds.speck(0)), "holds no organ")}),
    "organ of specks": Fault(
        "specks",
        {
            "6 voxels": (seeds.labels_of("base", seeds.speck(6)), "which is a speck"),
            "many pieces": (seeds.labels_of("base", seeds.sieve), "many pieces"),
        },
    ),
    "tumor far from its organ": Fault(
        "far-tumor",
        {f"{mm} mm": (seeds.far_tumor(mm), "1 tumors lie apart from the liver") for mm in (24, 40, 60)},
        "real",
    ),
    "nothing to learn": Fault(
        "constant",
        {
            "all 0": (seeds.arrays(seeds.constant(0, -1)), "is 0 all over"),
            "organ of one value": (seeds.arrays(seeds.constant(0.5, 1)), "where there are labels"),
            "NaN": (seeds.arrays(seeds.one_nan), "holds NaN"),
        },
    ),
    "damaged array": Fault(
        "damaged",
        {
            "a bit": (seeds.damaged_array(seeds.one_bit(0.5)), "is not what was written: it is damaged"),
            "half": (seeds.damaged_array(lambda content: content[: len(content) // 2], "_seg.b2nd"), "_seg.b2nd"),
            "empty": (seeds.damaged_array(lambda content: content[:0], ".pkl"), ".pkl"),
        },
    ),
    "bank of another version": Fault(
        "stale-bank",
        {
            "a voxel": (seeds.bank_before(seeds.one_voxel), OF_ANOTHER_VERSION),
            "a label": (seeds.bank_before(seeds.one_label), OF_ANOTHER_VERSION),
            "all voxels": (seeds.bank_before(seeds.all_voxels), OF_ANOTHER_VERSION),
        },
    ),
    "plans with another window": Fault(
        "window",
        {
            f"{low} to {high}": (seeds.window(low, high), f"the HU window is {low} to {high}")
            for low, high in ((-175, 251), (-160, 240), (-1000, 250))
        },
        "",
    ),
    "weights that do not fit": Fault(
        UNFIT,
        {
            "codebook": (seeds.weights("liver_late", "diffusion", codebook_sha256="0" * 64), "their codebooks differ"),
            "window": (seeds.weights("liver_early", "volumes", window_hu=[-1000, 1000]), "sees -1000 to 1000 HU, but"),
            "organ": (seeds.weights("liver_early", "diffusion", organ="kidney"), "is a model of kidney, early"),
        },
        "",
    ),
}
VARIANTS = {
    "one scan twice": {"as it is": seeds.as_it_is, "turned": seeds.turned, "noisier": seeds.noisier},
    "one scan, cropped": {f"{100 * share:.0f} %": seeds.cropped(share) for share in (0.9, 0.7, 0.5)},
    "one scan, resampled": {f"{factor} times": seeds.coarser(factor) for factor in (1.3, 1.6, 2.0)},
}
for _name, _variants in VARIANTS.items():
    for _where, _into, _case, _said in (
        ("in one dataset", None, "real", VALIDATES),
        ("in a pool", POOL, f"{POOL}_twin", VALIDATES),
        ("elsewhere", OTHER, "real", f"is the same scan as twin of {OTHER}"),
    ):
        FAULTS[f"{_name} {_where}"] = Fault(
            "same-scan",
            {magnitude: (seeds.twin(variant, into=_into), _said) for magnitude, variant in _variants.items()},
            _case,
            ("--against", OTHER[7:10]) if _into == OTHER else (),
        )

TABLE = [
    pytest.param(name, magnitude, id=f"{name}, {magnitude}") for name in FAULTS for magnitude in FAULTS[name].magnitudes
]
# Through the command as it is installed.
INSTALLED = {("values too high", "1024 HU"), ("labels shifted", "20 mm"), ("one scan, cropped elsewhere", "50 %")}


@pytest.fixture(scope="module", params=["phantom", "real"])
def prepared(request, tmp_path_factory) -> Iterator[Place]:
    found = request.getfixturevalue(f"prepared_{request.param}")
    number = str(found.dataset_id)
    bank = tmp_path_factory.mktemp("bank")
    assert main(["synthesize", "--bank", "-d", number, "--per-case", "1", "-o", str(bank)]) == 0
    # What is seen of sound cases is remembered.
    assert main(["check", "-d", number, "-np", "1"]) == 0
    strangers = {
        "phantom": [("phantom_001", f"phantom_00{other}") for other in (0, 2, 3)],
        "real": [
            *(("abdomen_3mm", other) for other in ("liver_healthy", "liver_tumors")),
            ("liver_healthy", "liver_tumors"),
        ],
    }
    names = {
        "phantom": ("phantom_001", "phantom_tumor_000", "phantom_003"),
        "real": ("abdomen_3mm", "liver_tumors", "liver_healthy"),
    }
    yield Place(
        ChangeableDataset(found.raw, found.preprocessed),
        *names[request.param],
        tuple(strangers[request.param]),
        bank,
        bank,
    )
    shutil.rmtree(found.preprocessed / "difftumor_checks")


@pytest.fixture
def place(prepared: Place, tmp_path: Path) -> Iterator[Place]:
    """The dataset, put back afterwards."""
    folders = prepared.dataset.raw, prepared.dataset.folder
    for path in folders:
        shutil.copytree(path, tmp_path / "before" / path.parent.name)
    yield replace(prepared, scratch=tmp_path)
    for path in folders:
        shutil.rmtree(path)
        shutil.move(tmp_path / "before" / path.parent.name, path)
        for name in (POOL, OTHER):
            shutil.rmtree(path.with_name(name), ignore_errors=True)


@pytest.mark.slow(file_seconds=60)
@pytest.mark.parametrize(("name", "magnitude"), TABLE)
def test_a_seeded_fault_is_found_by_its_name(place, name, magnitude):
    fault = FAULTS[name]
    seed, said = fault.magnitudes[magnitude]
    cases = {"base": place.base, "real": place.real, "other": place.other}
    cases |= {f"stranger {number}": case for number, (case, _) in enumerate(place.strangers)}
    case = cases.get(fault.case, fault.case)
    seed(place)
    output = place.scratch / "findings.json"
    command = ["check", "-d", place.number, "-np", "1", "-o", str(output), *fault.options]
    if (name, magnitude) in INSTALLED:
        done = subprocess.run([Path(sys.executable).with_name("difftumor"), *command], capture_output=True, text=True)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert any(f" {case}: " in line and said in line for line in done.stdout.splitlines())
    else:
        assert main(command) == 2
    findings = json.loads(output.read_text())["findings"]
    named = [entry for entry in findings if (entry["kind"], entry["case"]) == (fault.kind, case)]
    assert any(said in entry["seen"] and entry["severity"] in ("error", "warning") for entry in named), findings
