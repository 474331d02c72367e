"""How well tumors are found and outlined: per case, over all cases, by size, with bootstrap intervals."""
