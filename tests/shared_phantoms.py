"""The prepared dataset that most tests use."""

DATASET_ID, NAME = 501, "Dataset501_Phantom"


def make_phantom_dataset() -> None:
    """Six coarse phantoms, two of them with real tumors, prepared with a small patch in the folders that are set."""
    from nnunet_difftumor.dataset_conversion import phantom
    from nnunet_difftumor.preparation.prepare import prepare

    phantom.convert(DATASET_ID, name="Phantom", cases=4, tumor_cases=2, seed=0, spacing_mm=(4.0, 3.0, 3.0))
    prepare(DATASET_ID, spacing_mm=(4.0, 3.0, 3.0), patch_size=(32, 32, 32), processes=1)
