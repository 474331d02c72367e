"""Converters to nnU-Net raw datasets, and the phantom.

A converter is one module here, named in CONVERTERS, with `convert(...)` and `add_arguments(parser)`; the names of the
arguments are those of `convert`. It hands its cases to `raw_dataset.write_raw_dataset`.
"""

CONVERTERS = {
    "folder": "sub-folders with a CT and a label map each, from anywhere",
    "msd": "a task of the Medical Segmentation Decathlon, such as Task03_Liver (LiTS) or Task07_Pancreas",
    "phantom": "an anatomical phantom of the abdomen, made from a seed",
}
