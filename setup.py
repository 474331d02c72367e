"""All metadata of the distribution; pyproject.toml holds the tools' settings only."""

import re
from pathlib import Path

from setuptools import Distribution, find_packages, setup

HERE = Path(__file__).resolve().parent
PACKAGE = "nnunet_difftumor"

# Top-level folders of the repository that are installed inside the package: a distribution must not put general names
# such as `dataset_conversion` at the top level of site-packages.
MAPPED_FOLDERS = {
    "nnunet_difftumor.dataset_conversion": "dataset_conversion",
    "nnunet_difftumor.generative": "generative",
    "nnunet_difftumor.kernels": "kernels",
}

# The documentation as a site (`make docs`).
DOCS = ["mkdocs>=1.6.1,<2", "mkdocs-material>=9.6"]


def version() -> str:
    text = (HERE / PACKAGE / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE).group(1)


def packages() -> list[str]:
    found = find_packages(include=[PACKAGE, f"{PACKAGE}.*"])
    for name, folder in MAPPED_FOLDERS.items():
        found += [name, *(f"{name}.{package}" for package in find_packages(folder))]
    return found


class DistributionWithData(Distribution):
    """Installs data_files by `pip install -e .` too: setuptools asks for `has_data`, but defines `has_data_files`."""

    has_data = Distribution.has_data_files


setup(
    distclass=DistributionWithData,
    name="nnunet-difftumor",
    version=version(),
    description="Synthetic tumors, with exact masks, inside nnU-Net training",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["nnU-Net", "medical image segmentation", "computed tomography", "synthetic tumors", "DiffTumor"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Healthcare Industry",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
    ],
    python_requires=">=3.11,<3.14",
    packages=packages(),
    package_data={
        "nnunet_difftumor": ["py.typed"],
        "nnunet_difftumor.pages": ["assets/*"],
        "nnunet_difftumor.experiments": ["plans/*.yaml"],
    },
    package_dir=MAPPED_FOLDERS,
    # Relative to the wheel's own `data` folder: `purelib` beside it is what installers copy into site-packages, where
    # Python reads .pth files. The same line serves normal and editable installs, and uninstalling removes the file.
    data_files=[("../purelib", ["nnunet_difftumor.pth"])],
    install_requires=[
        "nnunetv2>=2.8,<3",
        "torch>=2.10",  # 2.9 brought Triton 3.5, and nnU-Net excludes it
        'triton>=3.5; sys_platform == "linux"',  # there are no wheels for other systems; the CPU path does not need it
        "batchgenerators>=0.25.1",
        "dynamic-network-architectures>=0.4.4",
        "numpy>=1.26",
        "scipy>=1.11,<2",  # surface-distance uses names that SciPy 2 drops
        "einops>=0.7",
        "safetensors>=0.4.3",  # weights in files that hold no code
        "huggingface_hub>=1.20",  # published weights; resumes answers that are cut off
        "lightning>=2.6.4",  # checkpoints are resumed without unpickling since 2.6; 2.6.2 and 2.6.3 were withdrawn
        "tensorboard>=2.14",
        "PyYAML>=6",
        "blosc2>=3",
        "scikit-image>=0.22",
        "nibabel>=5.2",
        "SimpleITK>=2.2.1",
        "connected-components-3d>=3.20",
        "edt>=3",
        "filelock>=3.13",
        "surface-distance>=0.1",
        "matplotlib>=3.8",
        "tqdm>=4.66",
        "shtab>=1.7",  # completion in shells
    ],
    extras_require={
        "backbones": ["monai>=1.5.1"],  # older ones do not take this torch
        "docs": DOCS,
        "test": [
            "monai>=1.5.1",
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "filelock>=3.12",
            "hypothesis>=6.100",
            "ruff>=0.9",
            "dcm2niix>=1.0.20250506",  # another reader of DICOM, to compare with
            "import-linter>=2.6",  # the layers of imports
            "mypy>=1.14",  # the types of the public functions
            "selenium>=4.20",  # opens pages in Chromium
            "nbclient>=0.10",  # runs the notebook
            "ipykernel>=6.29",
            "setuptools>=77",
            "build>=1.2",
            "twine>=6",  # checks what would be uploaded
            *DOCS,
        ],
    },
    entry_points={"console_scripts": ["difftumor = nnunet_difftumor.cli.start:start"]},
)
