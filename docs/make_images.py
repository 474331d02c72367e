"""Makes the pictures of README and docs from a phantom, which is nobody's data: python docs/make_images.py"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from nnunet_difftumor.ct import read_ct, read_labels, scan_from_array, write_ct, write_labels
from nnunet_difftumor.dataset_conversion.phantom import LABELS, phantom_case
from nnunet_difftumor.files import atomic_path
from nnunet_difftumor.synthesis.organ import Organ
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics
from nnunet_difftumor.synthesis.patch import RenderedTumor
from nnunet_difftumor.synthesis.placement.sampler import Placement, TumorSampler
from nnunet_difftumor.synthesis.scans.preview import draw_preview
from nnunet_difftumor.synthesis.scans.synthesize import synthesize
from nnunet_difftumor.synthesis.scene import insert_tumors
from nnunet_difftumor.synthesis.size_bands import SIZE_BANDS_MM
from nnunet_difftumor.synthesis.spec import TumorSpec
from nnunet_difftumor.synthesis.volume import ArrayVolume

IMAGES = Path(__file__).resolve().parent / "images"
PICTURE, MONTAGE = IMAGES / "before_after.png", IMAGES / "tumors.png"
SPACING_MM = (1.5, 1.0, 1.0)
LIVER, TUMOR = 1, 2
# A label that the phantom does not have; half the edge of a picture; soft tissue.
OF_MONTAGE, FIELD_VOXELS, WINDOW_HU = 200, 50, (-100.0, 220.0)
OPTIONS = (
    {"core_size": 0.6, "core_contrast_hu": -30.0},
    {"capsule_hu": 70.0, "capsule_mm": 2.0},
    {"mass_effect": 0.6, "mass_effect_radius_mm": 32.0},
    {"contrast_hu": 30.0},
)
# Size and seed of each tumor; every seed gives a tumor, these lie where there is something to see around them.
TUMORS = (("medium", 3), ("small", 5), ("tiny", 2))


def main() -> None:
    before_after()
    montage()


def before_after() -> None:
    """Three tumors in three planes."""
    hu, labels = phantom_case([0, 0, 1], spacing_mm=SPACING_MM)
    z, y, x = SPACING_MM
    healthy = scan_from_array(hu, affine=np.diag([-x, -y, z, 1.0]))
    with tempfile.TemporaryDirectory() as folder:
        ct, mask = Path(folder) / "ct.nii.gz", Path(folder) / "labels.nii.gz"
        write_ct(ct, hu, healthy, description=None)
        write_labels(mask, labels, healthy)
        boxes = []
        for size, seed in TUMORS:
            before = read_labels(mask) == TUMOR
            manifest = synthesize(
                ct,
                mask,
                Path(folder) / size,
                organ="liver",
                organ_label=LIVER,
                tumor_label=TUMOR,
                avoid_label=TUMOR,
                size=size,
                count=1,
                seed=seed,
            )
            print(f"{size}: {manifest['tumors'][0]['equivalent_diameter_mm']:.0f} mm")
            ct, mask = Path(folder) / size / "ct.nii.gz", Path(folder) / size / "labels.nii.gz"
            new = np.argwhere((read_labels(mask) == TUMOR) & ~before)
            boxes.append(tuple(slice(a, b + 1) for a, b in zip(new.min(0), new.max(0), strict=True)))
        draw_preview(
            PICTURE,
            hu,
            read_ct(ct).hu,
            mask=read_labels(mask) == TUMOR,
            boxes=boxes,
            spacing_mm=healthy.spacing_mm,
            directions=healthy.direction,
        )
    print(PICTURE)


def montage() -> None:
    """Every size in three organs, every option, and look-alikes: pairs of before and after."""
    hu, labels = phantom_case([0, 0, 1], spacing_mm=SPACING_MM)
    rows = [[(organ, size, {}) for size in SIZE_BANDS_MM] for organ in ("liver", "kidney", "pancreas")]
    rows.append([("liver", "medium", option) for option in OPTIONS])
    rows.append([("liver", kind, {}) for kind in ("cyst", "haemangioma")])
    figure = Figure(figsize=(16, 10.6), facecolor="black")
    axes = figure.subplots(len(rows), 8)
    for axis in axes.flat:
        axis.axis("off")
    for line, row in zip(axes, rows, strict=True):
        for number, (organ_name, what, changes) in enumerate(row):
            volume = ArrayVolume(hu.copy(), labels.copy(), SPACING_MM)
            organ = Organ(organ_name, (LABELS[organ_name],), OF_MONTAGE)
            placement = _drawn(volume, organ, what)
            spec = replace(placement.spec, **changes)
            tumor = insert_tumors(volume, [spec], organ)[0]
            kind = ", ".join([organ_name, *([what] if spec.kind != "tumor" else []), *_options(spec)])
            _pair(
                line[2 * number : 2 * number + 2], hu, volume.hu_array, tumor, f"{kind}, {placement.diameter_mm:.0f} mm"
            )
    figure.tight_layout(pad=0.3)
    with atomic_path(MONTAGE) as temporary:
        figure.savefig(temporary, dpi=60, facecolor="black", format="png")
    print(MONTAGE)


def _drawn(volume: ArrayVolume, organ: Organ, what: str) -> Placement:
    """A tumor of a size class, or a look-alike of a kind; the first seed that gives it."""
    statistics = OrganStatistics.measure(volume.hu_array, volume.label_array, organ=organ, spacing_mm=SPACING_MM)
    sampler = TumorSampler(organ)
    for seed in range(100):
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


def _pair(axes, before: np.ndarray, after: np.ndarray, tumor: RenderedTumor, title: str) -> None:
    """The slice with most of the tumor, before and after, with the contour on the latter."""
    plane = int(tumor.mask.sum((1, 2)).argmax()) + tumor.box[0].start
    middle = [round(centre / step) for centre, step in zip(tumor.spec.centre_mm[1:], SPACING_MM[1:], strict=True)]
    field = tuple(slice(max(centre - FIELD_VOXELS, 0), centre + FIELD_VOXELS) for centre in middle)
    mask = np.zeros(after.shape, bool)
    mask[tumor.box] = tumor.mask
    for axis, scan in zip(axes, (before, after), strict=True):
        axis.imshow(scan[plane][field], cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], interpolation="nearest")
    axes[1].contour(mask[plane][field], [0.5], colors="tab:orange", linewidths=0.5)
    axes[1].set_title(title, color="white", fontsize=8, loc="right")


if __name__ == "__main__":
    main()
