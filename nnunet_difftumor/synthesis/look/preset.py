"""What a preset is: everything that is drawn for a tumor but its place."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nnunet_difftumor.synthesis.look.sample_shares import SampleShares
from nnunet_difftumor.synthesis.organ_statistics import OrganStatistics
from nnunet_difftumor.synthesis.size_bands import SIZE_BANDS_MM
from nnunet_difftumor.synthesis.spec import TumorSpec

# What a scene can be asked for: tumors of one size, of a size that is drawn, or of every size.
EVERY = "every"
SIZES = (*SIZE_BANDS_MM, "mix", EVERY)


@dataclass(frozen=True)
class SizeDistribution:
    """How large tumors of one size class are, and how many of them a scan has.

    Attributes:
        radius_mm: interval of the equivalent radius.
        count: least and greatest number of tumors per scan.
    """

    radius_mm: tuple[float, float]
    count: tuple[int, int]

    def draw_radius_mm(self, rng: np.random.Generator) -> float:
        """Logarithmic: among real lesions the smaller ones of a band are the more frequent ones."""
        low, high = self.radius_mm
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))


@dataclass(frozen=True)
class Preset(ABC):
    """Everything that is drawn for a tumor but its place.

    Attributes:
        sizes: per size class.
        weights: share of each size class in "mix".
        shares: of what training samples show, or `PUBLIC_CODE`.
        every_size: probability that a scan of "mix" gets tumors of every size instead of one (the type "mix" of Hu et
            al., Table 6).
        contrast_hu: interval of the contrast to the tissue around; None: as the preset draws it.
    """

    sizes: Mapping[str, SizeDistribution]
    weights: Mapping[str, float]
    shares: SampleShares | str
    contrast_hu: tuple[float, float] | None = None
    every_size: float = 0.0

    @property
    @abstractmethod
    def relative_to_surroundings(self) -> bool:
        """Whether the contrast refers to the tissue around the place, and not to the whole organ."""

    @abstractmethod
    def draw(self, organ: str, size: str, *, statistics: OrganStatistics, rng: np.random.Generator) -> TumorSpec:
        """A tumor of that size class in that organ, with its centre at the origin."""


def random_rotation(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """A unit quaternion; every orientation is as likely."""
    values = rng.standard_normal(4)
    return tuple(float(value) for value in values / np.linalg.norm(values))


def uniform(rng: np.random.Generator, interval: tuple[float, float]) -> float:
    return float(rng.uniform(*interval))


def draw_seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**63))
