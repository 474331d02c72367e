import numpy as np
import pytest
from scans import body, save


@pytest.fixture
def case(tmp_path):
    """A folder with ct.nii.gz and liver.nii.gz."""
    hu, labels = body()
    save(tmp_path / "case" / "ct.nii.gz", hu)
    save(tmp_path / "case" / "liver.nii.gz", labels == 1, dtype=np.uint8)
    return tmp_path / "case"
