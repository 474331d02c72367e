"""Reads CT scans and label maps, and writes NIfTI: arrays (z, y, x), HU, mm, with the checks that bad files need.

The array order is that of nnU-Net's SimpleITK reader; positions in space are RAS+ in mm, as nibabel gives them.
"""

from nnunet_difftumor.ct.headers import ScanHeader, check_labels_header, read_ct_header
from nnunet_difftumor.ct.images import IMAGE_SUFFIXES
from nnunet_difftumor.ct.nifti import SUFFIXES
from nnunet_difftumor.ct.reading import read_ct, read_label_grid, read_labels
from nnunet_difftumor.ct.scan import Scan, scan_from_array
from nnunet_difftumor.ct.writing import write_ct, write_labels

__all__ = [
    "IMAGE_SUFFIXES",
    "SUFFIXES",
    "Scan",
    "ScanHeader",
    "check_labels_header",
    "read_ct",
    "read_ct_header",
    "read_label_grid",
    "read_labels",
    "scan_from_array",
    "write_ct",
    "write_labels",
]
