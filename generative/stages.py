"""Names of the diffusion models: one for each organ, and for early (tiny, small) and late (medium, large) tumors."""

ORGANS = ("liver", "pancreas", "kidney")
STAGES = ("early", "late")
