"""Small stored cases, as preprocess-generative writes them: smooth noise with ball-shaped lesions."""

from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from nnunet_difftumor.generative.stored_cases import Lesion, StoredCase, StoredIndex, write_case, write_index
from nnunet_difftumor.generative.weights import Volumes

SHAPE = (20, 24, 28)


def write_stored(folder: Path, *, diameters_mm: dict[str, tuple[float, ...]], shape=SHAPE, volumes=None) -> Path:
    """A dataset with one liver per case that fills most of it, and in it balls of these diameters, from one corner of
    the case to the other.
    """
    for number, (name, diameters) in enumerate(diameters_mm.items()):
        rng = np.random.default_rng(number)
        hu = gaussian_filter(rng.standard_normal(shape), 1.5) * 300 + 60
        indices = np.stack(np.indices(shape), -1)
        lesions, lesion_numbers = [], np.zeros(shape, np.int16)
        for count, diameter in enumerate(diameters, 1):
            share = count / (len(diameters) + 1)
            centre = tuple(int(n * share) for n in shape)
            ball = np.square(indices - centre).sum(-1) < (diameter / 2) ** 2
            lesion_numbers[ball & (lesion_numbers == 0)] = count
            box = tuple((int(found.min()), int(found.max()) + 1) for found in np.nonzero(lesion_numbers == count))
            voxels = int((lesion_numbers == count).sum())
            lesions.append(Lesion(count, "liver", diameter, voxels, box, centre))
        hu[lesion_numbers > 0] -= 40
        labels = np.where(lesion_numbers > 0, 2, 1).astype(np.int16)
        case = StoredCase(
            name=name,
            shape=shape,
            spacing_mm=(1.0, 1.0, 1.0),
            affine=tuple(map(tuple, np.eye(4).tolist())),
            organs={"liver": tuple((2, n - 2) for n in shape)},
            lesions=tuple(lesions),
            specks=0,
            made_from={},
        )
        ct = np.rint(np.clip(hu, -175, 250)).astype(np.int16)
        write_case(folder, case, {"ct": ct, "labels": labels, "lesions": lesion_numbers})
    index = StoredIndex(
        dataset="Dataset700_Small",
        volumes=volumes or Volumes(),
        margin_mm=2.0,
        organs=({"name": "liver", "organ_labels": [1], "tumor_label": 2},),
        cases=tuple(diameters_mm),
        settings_sha256="of these volumes",
    )
    write_index(folder, index)
    return folder
