"""Converters to nnU-Net raw datasets, and the phantom.

A converter is one module here, named in CONVERTERS, with `convert(...)` and `add_arguments(parser)`; the names of the
arguments are those of `convert`; options that other verbs have, too, are added by `cli/convert.py`. It hands its cases
to `raw_dataset.write_raw_dataset`.
"""

CONVERTERS = {
    "folder": "sub-folders with a CT and a label map each, from anywhere",
    "lits": "LiTS as distributed: volume-N.nii and segmentation-N.nii",
    "kits23": "KiTS23: case_NNNNN/imaging.nii.gz and segmentation.nii.gz, with kidneys, tumors and cysts",
    "kits19": "KiTS19: case_NNNNN/imaging.nii.gz and segmentation.nii.gz, with kidneys and tumors",
    "msd": "a task of the Medical Segmentation Decathlon, such as Task03_Liver (LiTS) or Task07_Pancreas",
    "healthy": "healthy CTs with organ masks (AbdomenAtlas, TotalSegmentator, BTCV, CHAOS), stored as organ crops",
    "phantom": "an anatomical phantom of the abdomen, made from a seed",
}
