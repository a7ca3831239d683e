"""What the readers of other people's files raise."""

from __future__ import annotations


class DataMissing(ValueError):
    """A data set that is not here and could not be fetched; the message says which files to put where."""


def one_line(error: BaseException, limit: int = 160) -> str:
    r"""A foreign exception as one short line, fit for the inside of a sentence.

    Args:
        error: Any exception.
        limit: Longest text returned, in characters.

    >>> one_line(OSError("bad\n  file."))
    'OSError: bad file'
    """
    text = " ".join(str(error).split()).rstrip(".")
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return line if len(line) <= limit else line[: limit - 3] + "..."
