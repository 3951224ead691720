"""The one exception whose message is meant for the user."""


class LASError(Exception):
    """Something the user can cure; the message is one line and names the thing and the cure.

    The command line prints the message without a traceback and exits with a non-zero status.
    """
