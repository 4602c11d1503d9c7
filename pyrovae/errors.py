"""The errors of our own."""


class InputError(ValueError):
    """What was given cannot be used: the message says what was expected, what came, and the way out.

    The command line prints the message alone and exits with 2; any other exception is a bug of ours and keeps its traceback.
    """


class CaptureError(ValueError):
    """A program cannot be captured: the message names what stands in the way and says what to do."""
