"""How a user calls the library, for a type checker: `make lint` checks this file; nothing here is run."""

from pathlib import Path

import numpy as np

import nnunet_difftumor
from nnunet_difftumor import (
    Organ,
    SyntheticScan,
    TumorSpec,
    compare,
    convert,
    crossval,
    evaluate,
    make_bank,
    prepare,
    synthesize,
    synthesize_arrays,
    synthesize_folder,
)


def files(ct: Path, mask: str) -> float:
    """Paths may be text or Path; labels one value or several."""
    manifest = synthesize(ct, mask, "out", organ="liver", organ_label=1, size="small", contrast_hu=(-40, -20), seed=3)
    again = synthesize(ct, mask, "again", from_spec="out/manifest.json")
    assert manifest["outputs"] == again["outputs"]
    done = synthesize_folder("scans", "labels.nii.gz", "out", organ_label=[1, 3], report=print)
    for name, reason in done.failed.items():
        print(f"{name}: {reason}")
    return float(manifest["tumors"][0]["equivalent_diameter_mm"])


def arrays(hu: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """A scan in memory."""
    made: SyntheticScan = synthesize_arrays(hu, labels, spacing_mm=(2.0, 1.0, 1.0), organ_label=1, count=3)
    specs: tuple[TumorSpec, ...] = made.specs
    return np.where(made.mask, made.hu, hu), [spec.size_class for spec in specs]


def datasets() -> Path:
    """From files to a prepared dataset, a bank and figures."""
    convert("phantom", dataset_id=3, cases=4)
    settings = prepare(3, organ=["liver=1:2", Organ("kidney", (3,), 4)], spacing_mm=(3.0, 2.0, 2.0))
    print(make_bank(3, per_case=5, renderer="handcrafted").made)
    print(evaluate("labels", "predicted", tumor_label=2, missing="skip", outputs=["a.json", Path("a.csv")])["tumors"])
    print(compare(["a.json", Path("b.json")], names=("a", "b")), crossval("model", folds=[0, 1]))
    return settings.with_suffix(nnunet_difftumor.__version__)
