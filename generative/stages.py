"""Names of the diffusion models: one for each organ, and for early (tiny, small) and late (medium, large) tumors."""

# Of which the DiffTumor authors have published models. Anybody may train and name others.
PUBLISHED_ORGANS = ("liver", "pancreas", "kidney")
STAGES = ("early", "late")
# Equivalent diameter of the real tumors that early models are trained with; late ones get the others.
EARLY_BELOW_MM = 20.0
