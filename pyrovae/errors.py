"""The one error that is the user's to mend."""


class InputError(ValueError):
    """What was given cannot be used: the message says what was expected, what came, and the way out.

    The command line prints the message alone and exits with 2; any other exception is a bug of ours and keeps its traceback.
    """
