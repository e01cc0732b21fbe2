"""What methods take."""

import inspect
import sys
from collections.abc import Callable
from typing import Any

_OPTIONS: dict[str, Any] = {}
if sys.version_info >= (3, 14):  # pragma: no cover (not where the coverage is measured)
    import annotationlib

    # Annotations are evaluated when somebody asks, and may name what is imported for type checkers alone.
    _OPTIONS['annotation_format'] = annotationlib.Format.FORWARDREF


def _signature(method: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(method, **_OPTIONS)
    except Exception:  # those of what users have put in its place, too
        return None


def fits(method: Callable[..., Any], arguments: list[Any], keywords: dict[str, Any] | None = None) -> bool:
    """Whether a method takes these arguments; True where it cannot be told."""
    signature = _signature(method)
    if signature is None:
        return True
    try:
        signature.bind(*arguments, **(keywords or {}))
    except TypeError:
        return False
    return True


def has_parameter(method: Callable[..., Any], name: str) -> bool:
    """Whether a method has a parameter of that name; False where it cannot be told."""
    signature = _signature(method)
    return signature is not None and name in signature.parameters
