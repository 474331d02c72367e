"""Makes the picture of the README from a phantom, which is nobody's data: python docs/make_images.py"""

import tempfile
from pathlib import Path

import numpy as np

from nnunet_difftumor.ct import read_ct, read_labels, scan_from_array, write_ct, write_labels
from nnunet_difftumor.dataset_conversion.phantom import phantom_case
from nnunet_difftumor.synthesis.preview import draw_preview
from nnunet_difftumor.synthesis.synthesize import SynthesisSettings, synthesize

PICTURE = Path(__file__).resolve().parent / "images" / "before_after.png"
SPACING_MM = (1.5, 1.0, 1.0)
LIVER, TUMOR = 1, 2
# Size and seed of each tumor; every seed gives a tumor, these lie where there is something to see around them.
TUMORS = (("medium", 3), ("small", 5), ("tiny", 2))


def main() -> None:
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
            settings = SynthesisSettings(
                organ="liver",
                organ_labels=(LIVER,),
                tumor_label=TUMOR,
                avoid_labels=(TUMOR,),
                size=size,
                count=1,
                seed=seed,
            )
            manifest = synthesize(ct, mask, Path(folder) / size, settings=settings)
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


if __name__ == "__main__":
    main()
