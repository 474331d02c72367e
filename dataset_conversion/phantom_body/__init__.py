"""What the phantom's CT is made of."""
