"""The one exception type for mistakes that a user can mend."""


class PizaError(Exception):
    """Says what is wrong, where it is, and what to do; the command line prints it without a traceback."""
