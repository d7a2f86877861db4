"""What configs start from."""

import ml_collections

from configs import default


def study() -> ml_collections.ConfigDict:
    """A study with every field at its default (`configs/default.py`)."""
    return default.get_config()


def source() -> ml_collections.ConfigDict:
    """The section on text and activations alone."""
    return default.get_config().source
