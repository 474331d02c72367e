"""The scores of public challenges, as their own published code computes them."""
