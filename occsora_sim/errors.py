"""The errors that a user can meet. Every message is one line: what is wrong, where, and what to do."""


class OccSoraError(Exception):
    """Base of all errors that are the input's fault. The command line prints it in one line and exits with 2."""


class ConfigurationError(OccSoraError, ValueError):
    """A configuration, preset or option that cannot work."""


class CheckpointError(OccSoraError):
    """A weights file that is missing, truncated, foreign or made for another preset."""


class SceneError(OccSoraError):
    """A scene file or folder that is missing, truncated, foreign or empty."""


class ActionError(OccSoraError, ValueError):
    """An action or trajectory of the wrong shape, not finite, or out of range."""


class NotResetError(OccSoraError, RuntimeError):
    """`step` was called before `reset`, or after the end of the episode."""


class ClusterError(OccSoraError):
    """A Ray cluster that does not answer, or that loses workers again and again."""


class MissingDependencyError(OccSoraError, ImportError):
    """An optional library is not installed; the message holds the line that installs it."""


class SceneWarning(UserWarning):
    """A part of what was asked for that is left out, and why; one line."""
