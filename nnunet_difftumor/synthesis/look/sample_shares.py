"""What training samples show, and how often: real cases, synthetic tumors in healthy ones, healthy ones as they are."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

# Instead of shares: those that follow from the numbers of cases as in DiffTumor's public code.
PUBLIC_CODE = "public_code"


@dataclass(frozen=True)
class SampleShares:
    """Shares of the samples of a training, which add up to 1.

    Attributes:
        real: real cases, with their own tumors.
        synthetic: cases into which tumors are put.
        healthy: cases without any tumor, as they are.

    Raises:
        ValueError: a share is not within 0 to 1, or they do not add up.
    """

    real: float
    synthetic: float
    healthy: float

    def __post_init__(self) -> None:
        if not all(0 <= share <= 1 for share in self.to_dict().values()) or not math.isclose(
            self.real + self.synthetic + self.healthy, 1, abs_tol=1e-6
        ):
            raise ValueError(f"{self.in_words()}: expected shares from 0 to 1 that add up to 1")

    @classmethod
    def as_public_code(cls, *, real: int, healthy: int) -> "SampleShares":
        """Of DiffTumor's public code: it draws any real or healthy case, and puts tumors into half of the healthy ones.

        Args:
            real, healthy: numbers of cases.
        """
        others = healthy / (real + healthy)
        return cls(1 - others, others / 2, others / 2)

    def without_real_cases(self) -> "SampleShares":
        """Where there is no real case: healthy ones stand in for them."""
        return SampleShares(0.0, self.synthetic, self.real + self.healthy)

    def to_dict(self) -> dict[str, float]:
        """By kind."""
        return asdict(self)

    def in_words(self) -> str:
        """Such as "real 0.5, synthetic 0.5, healthy 0"."""
        return in_words(self.to_dict())


def in_words(shares: Mapping[str, float]) -> str:
    """Shares by kind, in a line."""
    return ", ".join(f"{kind} {share:.3g}" for kind, share in shares.items())
