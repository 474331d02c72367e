"""What lies inside an organ of a healthy pool and is none of its known parts: most likely a lesion.

A list of words alone is no net: lesions have any names. So a structure that nobody named must not lie in an organ that
was asked for, whatever its name.
"""

import re

import numpy as np

# At least half of the structure in the organ, or half of what surrounds it: masks of organs may leave lesions out.
# Around real metastases 0.8 is liver, around hepatic veins 0.55; around the gallbladder and the right adrenal gland,
# which touch the liver, 0.3.
SHARE_INSIDE = 0.5

# Words of which the names of anatomical structures are made in AbdomenAtlas and TotalSegmentator.
_ANATOMY = frozenset(
    re.findall(
        r"\w+",
        """
    left right upper middle lower lobe segment head body tail and of inferior superior common internal external
    adrenal gland gall gallbladder bladder urinary kidney liver pancreas spleen stomach colon duodenum esophagus
    intestine small large bowel rectum prostate lung trachea thyroid heart myocardium atrium ventricle atrial appendage
    aorta postcava vena cava portal splenic hepatic pulmonary brachiocephalic subclavian carotid iliac iliaca celiac
    trunk mesenteric artery arteries vein veins vessel vessels duct biliary pancreatic ureter
    brain skull spinal cord vertebrae vertebra sacrum rib ribs sternum costal cartilages clavicula scapula humerus
    femur hip face gluteus maximus medius minimus autochthon iliopsoas muscle
    """,
    )
)
_LEVEL = re.compile(r"[ctls]?\d+")


def is_anatomy(name: str) -> bool:
    """Whether every word of a mask's name is one of anatomy: `lung_upper_lobe_left`, not `liver_dark_spot`."""
    words = [word for word in re.split(r"[\W_]+", name.lower()) if word]
    return all(word in _ANATOMY or _LEVEL.fullmatch(word) for word in words)


def lies_inside(structure: np.ndarray, organ: np.ndarray) -> bool:
    """Whether at least half of a structure, or of the voxels around it, are the organ's, and it is not the larger one.

    Args:
        structure: boolean (z, y, x), not empty.
        organ: boolean (z, y, x).
    """
    from scipy.ndimage import binary_dilation

    if np.count_nonzero(structure) > np.count_nonzero(organ):
        return False
    box = []
    for axis in range(3):
        (found,) = np.nonzero(structure.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(slice(max(0, int(found[0]) - 1), int(found[-1]) + 2))
    structure, organ = structure[tuple(box)], organ[tuple(box)]
    if np.count_nonzero(organ & structure) >= SHARE_INSIDE * np.count_nonzero(structure):
        return True
    around = binary_dilation(structure, np.ones((3, 3, 3), bool)) & ~structure
    return bool(np.count_nonzero(organ & around) >= SHARE_INSIDE * max(np.count_nonzero(around), 1))
