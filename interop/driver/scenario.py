"""Scenarios are functions named after the promise that they check; each is played with every SDK."""

SCENARIOS = []
"""(name, function, SDKs that it is played with or None for all of them), in the order of definition."""


def scenario(function=None, *, sdks=None):
    """Registers a scenario. `sdks`: when it is about some of them only."""

    def register(function):
        SCENARIOS.append((function.__name__, function, sdks))
        return function

    return register(function) if function else register


def refused(action, *words):
    """Runs an action that must fail with all these words in its message."""
    from .clients import SdkError

    try:
        action()
    except SdkError as error:
        missing = [word for word in words if word.lower() not in str(error).lower()]
        assert not missing, f"the message lacks {missing}: {error}"
        return str(error)
    raise AssertionError(f"this should have failed with {words}")
