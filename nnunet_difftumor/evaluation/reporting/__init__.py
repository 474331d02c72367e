"""A page of the results of evaluations: tables, plots, what may be concluded, and slices of hits and errors."""
