"""Every error that a user can cause: one line that tells the next step, and the exit code of the command line."""

import errno
import os


class LLMOpsError(Exception):
    """A mistake in the input or a limit of the machine, not a bug: printed as one line, without a traceback."""

    exit_code = 2


class ConfigError(LLMOpsError):
    """An option has a value that cannot work."""


class ModelError(LLMOpsError):
    """A model is not there, cannot be read, or does not fit the task or the method."""


class DataError(LLMOpsError):
    """A data file is not there, cannot be read, or does not hold what the options say."""


class MissingExtra(LLMOpsError):
    """A library that only this method needs is not installed."""


class ArtifactMismatch(LLMOpsError):
    """A saved model, loaded in a fresh process, gives other outputs than the one in memory."""


class StorageError(LLMOpsError):
    """The disk is full, or a quota or file-size limit is reached."""


class MainStopped(LLMOpsError):
    """Another process of the same job, the first one, ended before this one got what it waits for."""


class Overloaded(LLMOpsError):
    """More calls wait for a model than it may keep waiting."""


class GateFailed(LLMOpsError):
    """A model version is not proven to be good enough for the place it was to take."""

    exit_code = 3
    shown: tuple[object, ...] = ()
    """What was measured, for the terminal."""


class NotMended(LLMOpsError):
    """The registry's places are not as the record of promotions has them, and stay so."""

    exit_code = 4
    shown: tuple[object, ...] = ()
    """What was found, for the terminal."""


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def as_storage_error(error: BaseException) -> StorageError | None:
    """The error of a full disk, whichever library met it; None for any other error.

    Rust libraries (safetensors, tokenizers) give no errno, only its text.
    """
    text = str(error)
    if "database or disk is full" in text:  # SQLite's own words
        return StorageError("no room on the disk for the tracking store; free some. Nothing was registered")
    for number in _NO_ROOM:
        if getattr(error, "errno", None) == number or f"os error {number}" in text or os.strerror(number) in text:
            return StorageError(
                f"no room on the disk while writing ({text.splitlines()[0][:160]}); free some, or point TMPDIR and "
                "the artifact store elsewhere. Nothing was registered"
            )
    return None
