"""Running a contract suite on something with a planted fault: which of its tests fail."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import pytest


def failures(
    suite: Any,
    fixtures: Mapping[str, Callable[[], AbstractContextManager[Any]]],
    caplog: pytest.LogCaptureFixture,
) -> set[str]:
    """The tests of ``suite`` (an instance of a contract) that fail. Each gets fixtures of its own, made anew."""
    return {
        name
        for name in dir(suite)
        if name.startswith("test_") and _fails(getattr(suite, name), fixtures, caplog)
    }


def _fails(
    test: Callable[..., None],
    fixtures: Mapping[str, Callable[[], AbstractContextManager[Any]]],
    caplog: pytest.LogCaptureFixture,
) -> bool:
    wanted = list(inspect.signature(test).parameters)
    caplog.clear()
    try:
        named = next((name for name in wanted if name in fixtures), None)
        given = {"caplog": caplog} if "caplog" in wanted else {}
        if named is None:
            test(**given)
        else:
            with fixtures[named]() as fixture:
                test(**given, **{named: fixture})
    except (Exception, pytest.fail.Exception):
        return True
    return False
