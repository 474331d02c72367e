"""Two or more methods on the same cases: paired differences, tests, and what may be concluded."""
