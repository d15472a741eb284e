"""The errors of this package: each message names the value, what was expected and what to do."""


class HmlError(Exception):
    """Base of every error that is meant to be read by a user."""


class ConfigError(HmlError, ValueError):
    """A setting that cannot be trained with."""


class DataError(HmlError, ValueError):
    """Images or tables that are missing, damaged or unusable."""


class DeviceError(HmlError, RuntimeError):
    """A device that this machine does not have."""


class RunError(HmlError, RuntimeError):
    """A run that failed, is damaged or cannot be recorded."""


class RunBusyError(RunError):
    """A run that another process is at work on."""
