"""Errors a user can act on: one line that names the file, the item and the mend."""


class UserError(Exception):
    """A mistake in what the user gave; tools print it as one line and exit with status 2."""


class ConfigError(UserError):
    """A config file, key or command-line option that cannot be carried out."""


class AnnotationError(UserError):
    """An annotation file that cannot be read or contradicts itself."""


class ImageError(UserError):
    """An image file that is missing, truncated or not an image."""


class CheckpointError(UserError):
    """A checkpoint that cannot be read or written, or that belongs to another model."""


def one_line(error: BaseException) -> str:
    """The message alone; data loader workers wrap it in a traceback whose last line it is."""
    last = (str(error).strip().splitlines() or [''])[-1]
    return last.removeprefix(f'{type(error).__module__}.{type(error).__name__}: ')
