"""Which organs the presets know by name, and what is said of the others: organs are free names."""

from nnunet_difftumor.names import nearest_name
from nnunet_difftumor.synthesis.look.presets import PRESETS
from nnunet_difftumor.synthesis.look.realistic import ORGANS, RealisticPreset, like_which
from nnunet_difftumor.synthesis.organ import HOLLOW_ORGANS, UNNAMED_ORGAN, Organ


def notes_on_organ(organ: Organ, preset: str) -> list[str]:
    """What is to be known of an organ's tumors: that they have no shapes of its own, and that it is hollow."""
    notes = [] if (note := note_on_organ(organ.name, preset)) is None else [note]
    if organ.greatest_wall_mm:
        stated = (
            f"{organ.wall_mm:g} mm, as stated"
            if organ.wall_mm is not None
            else (f"measured, at most {organ.greatest_wall_mm:g} mm")
        )
        notes.append(
            f"organ {organ.name}: hollow; tumors grow in its wall ({stated}) and out of it, never into the lumen "
            "(`wall_mm` states the wall; 0: a solid organ)"
        )
    return notes


def note_on_organ(organ: str, preset: str) -> str | None:
    """A line that says what an organ without shapes and contrast of its own gets; None if it has them.

    Args:
        organ: its name.
        preset: a name in `PRESETS`; those that draw all organs alike need no line.
    """
    if not isinstance(PRESETS[preset], RealisticPreset) or any(name in organ.lower() for name in ORGANS):
        return None
    if organ == UNNAMED_ORGAN:
        return f"no organ is named (`organ`); drawn as in the {like_which(organ)} (known: {', '.join(ORGANS)})"
    meant = nearest_name(organ, (*ORGANS, *HOLLOW_ORGANS))
    return (
        f"organ {organ}: no shapes or contrast of its own; drawn as in the {like_which(organ)} "
        f"(known: {', '.join(ORGANS)})" + (f"; is {meant} meant?" if meant else "")
    )
