"""Which names of labels say that they are tumors or other lesions: the same for settings, converters and evaluation."""

import re

TUMOR_WORDS = ("tumor", "tumour", "cancer", "lesion", "carcinoma", "metasta", "malignan", "neoplas")
# Short ones stand alone in a name, or begin it: `liver_mets`, `pdac`, not `thymus_metsys`.
_LESION_WORDS = (
    *TUMOR_WORDS,
    *("cyst", "mass", "abnormal", "nodul", "adenoma", "abscess", "angioma", "sarcoma", "lymphoma", "polyp", "tumeur"),
)
_LESION_ABBREVIATIONS = re.compile(r"(?<![a-z])(pdac|p?nets?|hcc|icc|ccc|rcc|crlm|mets?|ipmn|fnh|gtv)(?![a-z])")


def is_tumor_name(name: str) -> bool:
    """Whether a label's name says tumor, cancer or lesion, but not cyst."""
    lowered = name.lower()
    return any(word in lowered for word in TUMOR_WORDS) and "cyst" not in lowered


def is_lesion_name(name: str) -> bool:
    """Whether a label's name says tumor, cyst, nodule or another lesion, or is an abbreviation such as HCC or PDAC."""
    lowered = name.lower()
    return any(word in lowered for word in _LESION_WORDS) or bool(_LESION_ABBREVIATIONS.search(lowered))
