"""Which names of labels say that they are tumors: the same for settings and for evaluation."""

TUMOR_WORDS = ("tumor", "tumour", "cancer", "lesion", "carcinoma", "metasta", "malignan", "neoplas")


def is_tumor_name(name: str) -> bool:
    """Whether a label's name says tumor, cancer or lesion, but not cyst."""
    lowered = name.lower()
    return any(word in lowered for word in TUMOR_WORDS) and "cyst" not in lowered
