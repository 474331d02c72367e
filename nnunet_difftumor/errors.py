"""The one exception for input that a user can mend."""


class InputError(ValueError):
    """Names the file or argument, what was seen, what was expected, what to do. Commands print it without traceback."""
