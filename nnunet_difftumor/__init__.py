"""Synthetic tumors, with exact masks, inside nnU-Net training.

The functions here are the verbs of the command line, with the same argument names, and `synthesize_arrays` for scans in
memory (docs/python_api.md). Importing this package imports neither torch nor nnunetv2 nor numpy: a module is
imported when one of its names is first asked for.
"""

import importlib as _importlib
from pathlib import Path as _Path
from typing import TYPE_CHECKING
from typing import Any as _Any

if TYPE_CHECKING:
    from nnunet_difftumor.dataset_conversion.convert import convert
    from nnunet_difftumor.demonstration.demo import demo
    from nnunet_difftumor.errors import InputError
    from nnunet_difftumor.evaluation.comparing.compare import compare
    from nnunet_difftumor.evaluation.crossval import crossval
    from nnunet_difftumor.evaluation.evaluate import evaluate
    from nnunet_difftumor.evaluation.postprocessing.postprocess import postprocess
    from nnunet_difftumor.evaluation.reconstruction.reconstruct import reconstruct
    from nnunet_difftumor.evaluation.reporting.report import report
    from nnunet_difftumor.experiments.experiment import experiment
    from nnunet_difftumor.generative.importing.download import download_weights
    from nnunet_difftumor.generative.importing.published_weights import import_weights
    from nnunet_difftumor.generative.training.train import train_autoencoder, train_diffusion
    from nnunet_difftumor.pictures.preview import preview
    from nnunet_difftumor.pictures.replay import replay
    from nnunet_difftumor.preparation.check import check
    from nnunet_difftumor.preparation.generative.volumes import preprocess_generative
    from nnunet_difftumor.preparation.lesion_bank import make_bank
    from nnunet_difftumor.preparation.prepare import prepare
    from nnunet_difftumor.runs.monitor import monitor
    from nnunet_difftumor.synthesis.organ import Organ
    from nnunet_difftumor.synthesis.scans.arrays import SyntheticScan, synthesize_arrays
    from nnunet_difftumor.synthesis.scans.folder import FolderReport, synthesize_folder
    from nnunet_difftumor.synthesis.scans.settings import SynthesisOptions
    from nnunet_difftumor.synthesis.scans.synthesize import synthesize
    from nnunet_difftumor.synthesis.spec import TumorSpec
    from nnunet_difftumor.trainers.export import export

__version__ = "0.2.0"

__all__ = [
    "FolderReport",
    "InputError",
    "Organ",
    "SynthesisOptions",
    "SyntheticScan",
    "TumorSpec",
    "check",
    "compare",
    "convert",
    "crossval",
    "demo",
    "download_weights",
    "evaluate",
    "experiment",
    "export",
    "import_weights",
    "make_bank",
    "monitor",
    "postprocess",
    "prepare",
    "preprocess_generative",
    "preview",
    "reconstruct",
    "replay",
    "report",
    "synthesize",
    "synthesize_arrays",
    "synthesize_folder",
    "train_autoencoder",
    "train_diffusion",
]

# Where each name is defined; the imports above say the same to type checkers.
_MODULES = {
    "FolderReport": "synthesis.scans.folder",
    "InputError": "errors",
    "Organ": "synthesis.organ",
    "SynthesisOptions": "synthesis.scans.settings",
    "SyntheticScan": "synthesis.scans.arrays",
    "TumorSpec": "synthesis.spec",
    "check": "preparation.check",
    "compare": "evaluation.comparing.compare",
    "convert": "dataset_conversion.convert",
    "crossval": "evaluation.crossval",
    "demo": "demonstration.demo",
    "download_weights": "generative.importing.download",
    "evaluate": "evaluation.evaluate",
    "experiment": "experiments.experiment",
    "export": "trainers.export",
    "import_weights": "generative.importing.published_weights",
    "make_bank": "preparation.lesion_bank",
    "monitor": "runs.monitor",
    "postprocess": "evaluation.postprocessing.postprocess",
    "prepare": "preparation.prepare",
    "preprocess_generative": "preparation.generative.volumes",
    "preview": "pictures.preview",
    "reconstruct": "evaluation.reconstruction.reconstruct",
    "replay": "pictures.replay",
    "report": "evaluation.reporting.report",
    "synthesize": "synthesis.scans.synthesize",
    "synthesize_arrays": "synthesis.scans.arrays",
    "synthesize_folder": "synthesis.scans.folder",
    "train_autoencoder": "generative.training.train",
    "train_diffusion": "generative.training.train",
}

# In a clone the sub-packages stand beside this folder (setup.py maps them into the wheel). When Python is started
# inside the clone, this folder comes first on sys.path whatever is installed: let it find its own siblings.
_clone = _Path(__file__).resolve().parent.parent
if (_clone / "setup.py").is_file() and (_clone / "dataset_conversion" / "__init__.py").is_file():
    __path__.append(str(_clone))


def __getattr__(name: str) -> _Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
