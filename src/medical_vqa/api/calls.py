"""Wrong calls of the public functions: one sentence that names the arguments, in place of Python's TypeError."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from medical_vqa.errors import ConfigError
from medical_vqa.text import did_you_mean

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def public(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """The function, which raises `ConfigError` where an argument is missing, unknown, repeated or has no name."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ConfigError(_mistake(function.__name__, signature, args, kwargs)) from error
        return function(*args, **kwargs)

    return checked


def _mistake(name: str, signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """What is wrong with a call that does not fit a signature; `self` counts neither in it nor in the arguments."""
    parameters = {key: one for key, one in signature.parameters.items() if key != "self"}
    received = len(args) - (len(signature.parameters) - len(parameters))
    positional = [key for key, one in parameters.items() if one.kind is one.POSITIONAL_OR_KEYWORD]
    by_name = [key for key, one in parameters.items() if one.kind is one.KEYWORD_ONLY]
    if unknown := [key for key in kwargs if key not in (*positional, *by_name)]:
        return f"{name}: has no argument {unknown[0]!r}; {did_you_mean(unknown[0], [*positional, *by_name])}"
    if received > len(positional):
        others = f"pass the others by name, such as {by_name[0]}=" if by_name else "leave the others out"
        return (
            f"{name}: expected at most {len(positional)} {_arguments(len(positional))} without a name "
            f"({', '.join(positional)}), got {received}; {others}"
        )
    if repeated := [key for key in positional[:received] if key in kwargs]:
        return f"{name}: {repeated[0]} is passed twice, by position and by name; leave one of them out"
    required = [key for key in (*positional[received:], *by_name) if parameters[key].default is inspect.Parameter.empty]
    missing = next(key for key in required if key not in kwargs)
    return f"{name}: the argument {missing} is missing; pass it as {missing}=..."


def _arguments(count: int) -> str:
    return "argument" if count == 1 else "arguments"
