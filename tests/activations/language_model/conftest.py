"""What all families share is tested on some of them, on the others with `make test-slow`."""

import pytest

WHOLE = ("gpt2", "gemma3", "bert")
SHARED = ("test_sites", "test_the_splice_of_the_identity", "test_bfloat16")


def pytest_collection_modifyitems(items):
    for item in items:
        name = getattr(item, "callspec", None) and item.callspec.params.get("name")
        if item.name.startswith(SHARED) and name not in (None, *WHOLE):
            item.add_marker(pytest.mark.slow)
