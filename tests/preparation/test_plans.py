"""Plans of datasets that are not CT in HU are refused."""

import pytest

from nnunet_difftumor.errors import InputError
from nnunet_difftumor.preparation.plans import _check_hu

LIVER = {"min": -150.0, "max": 380.0, "std": 40.0}


def test_organs_in_hu_pass():
    _check_hu(LIVER)


@pytest.mark.parametrize(
    "statistics",
    [
        {"min": 0.0, "max": 255.0, "std": 40.0},
        {"min": -4.0, "max": 5.0, "std": 1.0},
        {"min": 0.0, "max": 1.0, "std": 0.2},
        {"min": 0.0, "max": 0.0, "std": 0.0},
    ],
)
def test_rescaled_images_are_refused(statistics):
    with pytest.raises(InputError, match="not HU"):
        _check_hu(statistics)
