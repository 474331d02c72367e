"""How much darker tumors are than their organ: a share of the organ's enhancement, as in real lesions.

A tumor takes up less contrast agent than its organ: of what the organ has above 20 HU it lacks a share, in any phase.
The shares are those of whole lesions, edges included, as they are measured on a scan: the mean in the mask against the
organ around it. The tissue inside is darker than that, most of all in small ones, of which much is edge.

- Liver: seven hypodense metastases of 3D-IRCADb-01, case 1 (portal venous, liver at 113 HU): 18 to 39 HU below the
  liver 3 to 10 mm around, median 34; in their cores 30 to 64. Hepatocellular carcinomas: 11 HU on average in the same
  phase, from 98 darker to 61 brighter (cited by Hu et al., CVPR 2023, section 3). The faint ones stand for these.
- Pancreas: ductal adenocarcinomas in 57 patients: 60 +- 25 HU below the pancreas in the pancreatic phase, 41 +- 23 in
  the portal venous phase; one in seven isoattenuating (7 +- 5 HU in that phase), and these are small, 12 mm on average
  against 30 (PubMed 17961951). In another 53 patients one in nine was isoattenuating (PubMed 12202711).
- Kidney, whose tissue lies at 207 HU in that case of 3D-IRCADb-01: clear cell carcinomas that enhance much, 13 of 23
  small ones: 149 +- 34 HU in the nephrographic phase (doi 10.5301/uj.5000256); papillary ones: 18 to 91 HU ("Prevalence
  of low-attenuation homogeneous papillary renal cell carcinoma mimicking renal cysts on CT", American Roentgen Ray
  Society). The shares are a choice between these two.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Interval = tuple[float, float]

# Soft tissue that takes up nothing. Liver, pancreas and kidney without contrast agent lie 20 to 40 HU above it.
UNENHANCED_HU = 20.0
LEAST_CONTRAST_HU = 8.0
# What isoattenuating tumors lack of the organ's enhancement.
_FAINT = (0.05, 0.18)
# Rough and oblong tumors have more edge than a ball, and voxels blur it further.
_EDGES = 1.3


@dataclass(frozen=True)
class OrganContrast:
    """Distribution of tumors' contrast in one organ.

    Attributes:
        lacking: of the organ's enhancement, what tumors lack: the least, the most frequent and the greatest share.
        faint: per size class, the probability of a tumor that hardly differs from its organ.
        hyperdense: probability of a tumor brighter than the organ.
        hyperdense_hu: by how much.
    """

    lacking: tuple[float, float, float]
    faint: Mapping[str, float]
    hyperdense: float
    hyperdense_hu: Interval = (15.0, 35.0)

    def draw_hu(self, size: str, *, organ_hu: float, rng: np.random.Generator) -> float:
        """Mean of a whole tumor, its edge included, minus that of its organ.

        Args:
            size: size class.
            organ_hu: mean of the organ.
            rng: source of everything random.
        """
        kind = rng.random()
        if kind < self.hyperdense:
            return float(rng.uniform(*self.hyperdense_hu))
        enhancement_hu = max(organ_hu - UNENHANCED_HU, 0.0)
        is_faint = kind < self.hyperdense + self.faint[size]
        share = rng.uniform(*_FAINT) if is_faint else rng.triangular(*self.lacking)
        return min(-float(share) * enhancement_hu, -LEAST_CONTRAST_HU)

    def usual_hu(self, organ_hu: float) -> float:
        """By how much the most frequent tumors are darker, >= 0."""
        return max((organ_hu - UNENHANCED_HU) * self.lacking[1], 0.0)


def _of_every_size(probability: float) -> Mapping[str, float]:
    return dict.fromkeys(("tiny", "small", "medium", "large"), probability)


CONTRASTS: Mapping[str, OrganContrast] = {
    "liver": OrganContrast(lacking=(0.12, 0.36, 0.75), faint=_of_every_size(0.08), hyperdense=0.02),
    "kidney": OrganContrast(lacking=(0.1, 0.4, 0.9), faint=_of_every_size(0.1), hyperdense=0.05),
    "pancreas": OrganContrast(
        lacking=(0.15, 0.55, 0.95),
        faint={"tiny": 0.25, "small": 0.25, "medium": 0.1, "large": 0.05},
        hyperdense=0.05,  # neuroendocrine ones
    ),
}


def tissue_contrast_hu(measured_hu: float, *, radius_mm: float, edge_blur_mm: float) -> float:
    """Contrast of the tissue inside, of a tumor whose mean over its mask has a contrast of `measured_hu`.

    A ball whose edge is blurred by a Gaussian shows this share of its tissue's contrast in its mask, with
    a = blur / radius: 1 - 3 a / sqrt(2 pi) + 3 a^2 / 2 - 2 a^3 / sqrt(2 pi).
    """
    a = _EDGES * edge_blur_mm / radius_mm
    shown = 1 - 3 * a / np.sqrt(2 * np.pi) + 1.5 * a**2 - 2 * a**3 / np.sqrt(2 * np.pi)
    return float(measured_hu / shown)
