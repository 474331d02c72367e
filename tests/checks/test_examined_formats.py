"""Cases of datasets in MetaImage and NRRD are looked at as those in NIfTI are."""

import ct_files
import numpy as np
import pytest
import SimpleITK

from nnunet_difftumor.checks.examine import examine


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_findings_are_the_same(tmp_path, suffix):
    hu = ct_files.body_hu((40, 40, 24))
    image = ct_files.save(tmp_path / "ct.nii.gz", hu)
    label = ct_files.save(tmp_path / "labels.nii.gz", (hu > 0).astype(np.uint8), dtype=np.uint8)
    expected = examine("case", image, label, organs=())
    others = [path.with_name(path.name.replace(".nii.gz", suffix)) for path in (image, label)]
    for path, other in zip((image, label), others, strict=True):
        SimpleITK.WriteImage(SimpleITK.ReadImage(str(path)), str(other))
    found = examine("case", *others, organs=())
    assert found.findings == expected.findings == () and found.labels == expected.labels == (0, 1)
    assert found.fingerprint is not None and found.fingerprint.to_json() == expected.fingerprint.to_json()
    others[1].write_bytes(others[1].read_bytes()[:-10])
    (finding,) = examine("case", *others, organs=()).findings
    assert finding.kind == "unreadable" and "damaged" in finding.seen
