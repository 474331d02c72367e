"""Makes the pictures of README and docs: DIFFTUMOR_TEST_DATA=FOLDER python docs/make_images.py [NAME ...]

before_after.png and synthesize.png are of `abdomen_3mm` in the folder, a CT under the Apache License 2.0
(docs/licences.md); all others of phantoms, which are nobody's data. before_after.png and tumors.png are drawn here,
all others are what the commands write, only smaller. predictions.png and reconstruction.png need trainings of some
minutes. Without names all are made.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from nnunet_difftumor import picture_style as style
from nnunet_difftumor.ct import read_ct, read_labels
from nnunet_difftumor.dataset_conversion.phantom import LABELS, phantom_case
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics
from nnunet_difftumor.synthesis.patch import RenderedTumor
from nnunet_difftumor.synthesis.placement.sampler import Placement, TumorSampler
from nnunet_difftumor.synthesis.scans.planes import views
from nnunet_difftumor.synthesis.scans.synthesize import synthesize
from nnunet_difftumor.synthesis.scene import insert_tumors
from nnunet_difftumor.synthesis.size_bands import SIZE_BANDS_MM
from nnunet_difftumor.synthesis.spec import TumorSpec
from nnunet_difftumor.synthesis.volume import ArrayVolume

IMAGES = Path(__file__).resolve().parent / "images"
PICTURE, MONTAGE = IMAGES / "before_after.png", IMAGES / "tumors.png"
GAP, LINE = 6, 26
# Organ and its labels (TotalSegmentator's), size and seed of each tumor: dark ones as most are, without contrast agent
# 15 HU darker than the organ.
TUMORS = (("liver", 5, "medium", 5), ("liver", 5, "small", 5), ("kidney", (2, 3), "medium", 2))
PICTURE_PX, PICTURE_FIELD_MM, PICTURE_WINDOW_HU = 300, 120.0, (-30.0, 130.0)
SPACING_MM = (1.5, 1.0, 1.0)
# The phantom's axes lead to the head, the back and the left.
PHANTOM_DIRECTIONS = np.array([[0.0, 0.0, -1.0], [0.0, -1.0, 0.0], [1.0, 0.0, 0.0]])
# A label that the phantom does not have.
OF_MONTAGE = 200
MONTAGE_PX, MONTAGE_FIELD_MM, MONTAGE_WINDOW_HU = 200, 100.0, (-100.0, 220.0)
# Of the random numbers, where the first ones give something unusual: a large tumor of the liver in pieces.
SEEDS = {("liver", "large"): 2}
OPTIONS = (
    {"core_size": 0.6, "core_contrast_hu": -30.0},
    {"capsule_hu": 70.0, "capsule_mm": 2.0},
    {"mass_effect": 0.6, "mass_effect_radius_mm": 32.0},
    {"contrast_hu": 30.0},
)
# Pictures of commands are stored with so many colours and pixels at most: smaller files that look the same in a page.
COLOURS, LARGEST_PX = 192, (1100, 900)


def main(names: Sequence[str]) -> None:
    made_by = {
        "before_after": before_after,
        "tumors": montage,
        "synthesize": preview_of_a_scan,
        "preview": previews_of_a_dataset,
        "bank": preview_of_a_bank,
        "predictions": predictions_of_the_demo,
        "reconstruction": reconstruction_of_a_phantom,
    }
    if unknown := set(names) - set(made_by):
        raise SystemExit(f"no picture is called {', '.join(sorted(unknown))}; there are {', '.join(made_by)}")
    for name in names or made_by:
        made_by[name]()


def preview_of_a_scan() -> None:
    """preview.png of `difftumor synthesize`."""
    ct, mask = _scan()
    with tempfile.TemporaryDirectory() as folder:
        organ = ("--organ", "liver", "--organ-label", 5, "--size", "medium", "--count", 1, "--seed", 5)
        _difftumor(folder, "synthesize", ct, "--organ-mask", mask, *organ, "-o", f"{folder}/out")
        _store(Path(folder) / "out" / "preview.png", "synthesize")


def previews_of_a_dataset() -> None:
    """liver.png and mix.png of `difftumor preview`, of a dataset of healthy phantoms."""
    with tempfile.TemporaryDirectory() as folder:
        _prepared(folder)
        _difftumor(folder, "preview", "-d", 1, "-o", f"{folder}/pictures")
        _store(Path(folder) / "pictures" / "liver.png", "preview")
        _store(Path(folder) / "pictures" / "mix.png", "mix")


def preview_of_a_bank() -> None:
    """mix.png of `difftumor preview`, where tumors come from a bank."""
    with tempfile.TemporaryDirectory() as folder:
        settings = _prepared(folder)
        _difftumor(folder, "synthesize", "--bank", "-d", 1, "--per-case", 6, "-o", f"{folder}/bank")
        source = {"source": "bank", "bank_folder": f"{folder}/bank"}
        settings.write_text(json.dumps(json.loads(settings.read_text()) | source))
        _difftumor(folder, "preview", "-d", 1, "-o", f"{folder}/pictures")
        _store(Path(folder) / "pictures" / "mix.png", "bank")


def predictions_of_the_demo() -> None:
    """predictions.png of `difftumor demo`."""
    with tempfile.TemporaryDirectory() as folder:
        _difftumor(folder, "demo", "--out", f"{folder}/demo")
        _store(Path(folder) / "demo" / "predictions.png", "predictions")


def reconstruction_of_a_phantom() -> None:
    """reconstruction.png of `difftumor reconstruct`, by an autoencoder that is hardly trained."""
    with tempfile.TemporaryDirectory() as folder:
        _difftumor(folder, "convert", "phantom", "-d", 1, "--cases", 2, "--tumor-cases", 1, "--spacing", 3, 2, 2)
        _difftumor(folder, "preprocess-generative", "-d", 1)
        _difftumor(folder, "train-autoencoder", "-d", 1, "--preset", "tiny", "--steps", 300)
        raw = next(Path(folder).glob("raw/*"))
        scan, mask = raw / "imagesTr" / "phantom_000_0000.nii.gz", raw / "labelsTr" / "phantom_000.nii.gz"
        weights = Path(folder) / "results" / raw.name / "generative"
        organ = ("--organ-mask", mask, "--organ-label", 1)
        _difftumor(folder, "reconstruct", scan, *organ, "--weights", weights, "-o", f"{folder}/check")
        _store(Path(folder) / "check" / "reconstruction.png", "reconstruction")


def _prepared(folder: str) -> Path:
    """Prepares three healthy phantoms; returns the path of difftumor.json."""
    spacing = ("--spacing", 3, 2, 2)
    _difftumor(folder, "convert", "phantom", "-d", 1, "--cases", 3, "--tumor-cases", 0, *spacing)
    plans = ("--planner", "ExperimentPlanner", "--patch-size", 32, 48, 48, "--organ", "liver=1:2")
    _difftumor(folder, "prepare", "-d", 1, *spacing, *plans)
    return next(Path(folder).glob("preprocessed/*/difftumor.json"))


def _difftumor(folder: str, *words: object) -> None:
    """Runs a command, with nnU-Net's folders in a folder."""
    variables = {f"nnUNet_{name}": f"{folder}/{name}" for name in ("raw", "preprocessed", "results")}
    command = [sys.executable, "-m", "nnunet_difftumor.cli.main", *map(str, words)]
    subprocess.run(command, check=True, env=os.environ | variables)


def _store(picture: Path, name: str) -> None:
    """A picture that a command has written, with fewer colours and pixels."""
    with Image.open(picture) as image:
        small = image.convert("RGB")
        small.thumbnail(LARGEST_PX, Image.Resampling.LANCZOS)
        small.quantize(COLOURS, kmeans=2, dither=Image.Dither.NONE).save(IMAGES / f"{name}.png", optimize=True)
    print(IMAGES / f"{name}.png")


def _scan() -> tuple[Path, Path]:
    """CT and label map of `abdomen_3mm`."""
    data = os.environ.get("DIFFTUMOR_TEST_DATA")
    if not data:
        raise SystemExit("DIFFTUMOR_TEST_DATA names no folder; give the one with abdomen_3mm")
    ct, mask = (Path(data) / "abdomen_3mm" / f"{name}.nii.gz" for name in ("ct", "labels"))
    return ct, mask


def before_after() -> None:
    """Three tumors, each in the axial slice with most of it: before, after, and with the mask."""
    ct, mask = _scan()
    scan, panel = read_ct(ct), PICTURE_PX + GAP
    view = views(scan.direction)[0]
    width, height = 3 * panel + GAP, len(TUMORS) * (panel + LINE) + 2 * LINE
    with style.sheet(width, height, PICTURE) as figure, tempfile.TemporaryDirectory() as folder:
        about = f"axial, {style.window_text(PICTURE_WINDOW_HU)}, field of view {PICTURE_FIELD_MM:.0f} mm"
        style.write(figure, GAP, 6, about, colour=style.FAINT_TEXT)
        for column, title in enumerate(("before", "after", "after, with the mask")):
            style.write(figure, GAP + column * panel, LINE + 4, title, bold=True)
        for row, (organ, label, size, seed) in enumerate(TUMORS):
            out = Path(folder) / f"{organ}_{size}"
            made = synthesize(ct, mask, out, organ=organ, organ_label=label, size=size, count=1, seed=seed)["tumors"][0]
            after, tumor = read_ct(out / "ct.nii.gz").hu, read_labels(out / "tumor_mask.nii.gz") == 1
            voxel, top = _largest_slice(tumor, view.fixed), 2 * LINE + row * (panel + LINE)
            text = f"{organ}, {made['equivalent_diameter_mm']:.0f} mm, {made['measured_contrast_hu']:+.0f} HU"
            print(text)
            text += f"; slice {voxel[view.fixed] + 1} of {tumor.shape[view.fixed]}"
            style.write(figure, GAP, top + 4, text)
            for column, image in enumerate((scan.hu, after, after)):
                axes = style.panel(figure, GAP + column * panel, top + LINE, width_px=PICTURE_PX, height_px=PICTURE_PX)
                where = {"field_mm": PICTURE_FIELD_MM, "spacing_mm": scan.spacing_mm}
                pixel_mm = view.pixel_mm(scan.spacing_mm)
                plane = view.around(image, voxel, outside=PICTURE_WINDOW_HU[0], **where)
                style.show(axes, plane, pixel_mm, window_hu=PICTURE_WINDOW_HU, field_mm=PICTURE_FIELD_MM)
                style.scale_bar(axes)
                style.side_marks(axes, view.sides)
            style.outline(axes, view.around(tumor, voxel, outside=False, **where), pixel_mm, tint=True)
    print(PICTURE)


def _largest_slice(mask: np.ndarray, axis: int) -> tuple[int, ...]:
    """The middle of the slice along an axis that has most of a mask."""
    number = int(mask.sum(tuple(other for other in range(3) if other != axis)).argmax())
    middle = np.rint(np.argwhere(mask.take(number, axis)).mean(0)).astype(int)
    return tuple(int(index) for index in np.insert(middle, axis, number))


def montage() -> None:
    """Every size in three organs, every option, and look-alikes: pairs of before and after."""
    hu, labels = phantom_case([0, 0, 1], spacing_mm=SPACING_MM)
    rows = [[(organ, size, {}) for size in SIZE_BANDS_MM] for organ in ("liver", "kidney", "pancreas")]
    rows.append([("liver", "medium", option) for option in OPTIONS])
    rows.append([("liver", kind, {}) for kind in ("cyst", "haemangioma")])
    pair, high = 2 * (MONTAGE_PX + GAP) + GAP, MONTAGE_PX + LINE
    with style.sheet(4 * pair, len(rows) * high + LINE, MONTAGE) as figure:
        about = (
            f"axial, before and after; {style.window_text(MONTAGE_WINDOW_HU)}, field of view {MONTAGE_FIELD_MM:.0f} mm"
        )
        style.write(figure, GAP, 5, about, colour=style.FAINT_TEXT)
        for row, line in enumerate(rows):
            for column, (organ_name, what, changes) in enumerate(line):
                volume = ArrayVolume(hu.copy(), labels.copy(), SPACING_MM)
                organ = Organ(organ_name, (LABELS[organ_name],), OF_MONTAGE)
                placement = _drawn(volume, organ, what)
                spec = replace(placement.spec, **changes)
                tumor = insert_tumors(volume, [spec], organ)[0]
                kind = ", ".join([organ_name, *([what] if spec.kind != "tumor" else []), *_options(spec)])
                title = f"{kind}, {placement.diameter_mm:.0f} mm, {tumor.measured_contrast_hu():+.0f} HU"
                left, top = GAP + column * pair, LINE + row * high
                style.write(figure, left, top + 4, title)
                _pair(figure, (left, top + LINE), hu, volume.hu_array, tumor)
    print(MONTAGE)


def _drawn(volume: ArrayVolume, organ: Organ, what: str) -> Placement:
    """A tumor of a size class, or a look-alike of a kind; the first seed that gives it."""
    statistics = OrganStatistics.measure(volume.hu_array, volume.label_array, organ=organ, spacing_mm=SPACING_MM)
    sampler = TumorSampler(organ)
    for seed in range(SEEDS.get((organ.name, what), 0), 100):
        rng = np.random.default_rng(seed)
        if what in SIZE_BANDS_MM:
            found = sampler.sample(volume, statistics, rng, size=what)
        else:
            found = sampler.sample_look_alike(volume, statistics, rng)
        if isinstance(found, Placement) and (found.spec.kind == what or what in SIZE_BANDS_MM):
            return found
    raise RuntimeError(f"no {what} was drawn in the {organ.name}")


def _options(spec: TumorSpec) -> list[str]:
    """What there is to see beside the shape, in words."""
    words = {
        "core": spec.core_size > 0 and spec.kind == "tumor",
        "capsule": spec.capsule_hu > 0,
        "mass effect": spec.mass_effect > 0,
        "grown out": spec.exophytic,
        "brighter": spec.contrast_hu > 0 and spec.kind == "tumor",
    }
    return [word for word, there in words.items() if there]


def _pair(figure, place: tuple[float, float], before: np.ndarray, after: np.ndarray, tumor: RenderedTumor) -> None:
    """The slice with most of the tumor, before and after, with the outline on the latter."""
    view = views(PHANTOM_DIRECTIONS)[0]
    mask = np.zeros(after.shape, bool)
    mask[tumor.box] = tumor.mask
    voxel, pixel_mm = _largest_slice(mask, view.fixed), view.pixel_mm(SPACING_MM)
    where = {"field_mm": MONTAGE_FIELD_MM, "spacing_mm": SPACING_MM}
    for number, scan in enumerate((before, after)):
        left = place[0] + number * (MONTAGE_PX + GAP)
        axes = style.panel(figure, left, place[1], width_px=MONTAGE_PX, height_px=MONTAGE_PX)
        plane = view.around(scan, voxel, outside=MONTAGE_WINDOW_HU[0], **where)
        style.show(axes, plane, pixel_mm, window_hu=MONTAGE_WINDOW_HU, field_mm=MONTAGE_FIELD_MM)
        style.scale_bar(axes)
        style.side_marks(axes, view.sides)
    style.outline(axes, view.around(mask, voxel, outside=False, **where), pixel_mm)


if __name__ == "__main__":
    main(sys.argv[1:])
