"""The error tree. Every message says what was expected, what came, and what to do.

::

    ExplainVADError
    ├── UsageError              exit code 2: the caller can put it right
    │   ├── ConfigError         an unknown key, a value out of range, an unreadable TOML
    │   ├── ModelNotFoundError  no bundle was named and none could be found
    │   ├── LotError            the lot (or reference folder) is missing, empty or not a folder
    │   ├── WeightsError        pretrained weights are missing, incomplete or not what the lock says
    │   ├── TooFewImagesError   fewer calibration images than the asked alpha needs
    │   └── RunConflictError    the output folder holds another run
    ├── UnreadableImageError    one file cannot be inspected; never stops a lot
    ├── NotFittedError          a scorer or calibrator was used before ``fit``
    ├── NotExplainableError     a scorer or network cannot give an explanation of a kind; the message says why
    ├── StorageError            exit code 2: disk full or not writable; the run can be resumed
    ├── RenderError             exit code 2: a report could not be produced; the record is whole
    ├── SigningError            exit code 2: a report could not be signed; it is as it was
    └── IntegrityError          exit code 4: a bundle or a record is not what was written
"""

from __future__ import annotations

from pathlib import Path


class ExplainVADError(Exception):
    """Base of all errors this package raises on purpose."""

    exit_code = 2


class UsageError(ExplainVADError):
    """The call or its input is wrong; the message names the remedy."""


class ConfigError(UsageError):
    """A configuration file or option is not valid."""


class ModelNotFoundError(UsageError):
    """No model bundle was named, and none could be found for the lot."""


class LotError(UsageError):
    """The lot or reference folder is missing, empty or not a folder."""


class WeightsError(UsageError):
    """Pretrained weights are missing, incomplete or not loadable. The message names the command to run."""


class TooFewImagesError(UsageError):
    """Fewer images than a guarantee at the asked level needs."""


class RunConflictError(UsageError):
    """The output folder already holds the record of something else."""


class UnreadableImageError(ExplainVADError):
    """One file cannot be inspected. ``str(error)`` is the reason that the report prints."""


class NotFittedError(ExplainVADError):
    """Something was used before it was fitted."""


class NotExplainableError(ExplainVADError):
    """An explanation that a scorer, or its network, cannot give. ``str(error)`` is the reason that is passed on."""


class StorageError(ExplainVADError):
    """Writing failed (disk full, no permission). What was written before is whole."""


class RenderError(ExplainVADError):
    """A report could not be rendered. The record is not affected; ``written`` are the files of other formats."""

    written: tuple[Path, ...] = ()


class SigningError(ExplainVADError):
    """The key did not sign, or no time stamp could be had. Nothing was changed."""


class IntegrityError(ExplainVADError):
    """A bundle, ledger or artefact differs from what was recorded."""

    exit_code = 4
