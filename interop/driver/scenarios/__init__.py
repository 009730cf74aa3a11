"""The scenarios, one module for each subject."""


def load():
    """Importing them registers them."""
    from . import diverged, everyday, faults, generations, kills, replicas, tokens  # noqa: F401
