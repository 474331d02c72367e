"""Stands in for SimpleITK where it is not installed; whatever is asked of it raises.

nnU-Net imports SimpleITK in modules that training needs, and calls it to read and write images only.
"""


def __getattr__(name: str):
    # Python asks every module for some of its own names, and takes AttributeError for an answer.
    if name.startswith("__"):
        raise AttributeError(name)
    raise RuntimeError(f"SimpleITK.{name}: SimpleITK is not here, only its stand-in of benchmarks/stand_ins")
