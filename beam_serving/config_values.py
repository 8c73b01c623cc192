"""How values may be written in config.yaml: lists with commas, numbers or a word, blank for unset."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field


def _numbers(value: Any) -> Any:
    """Reads `3,224,224` (the seed's form) and `[3, 224, 224]` alike."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    if value == []:
        raise ValueError("wants at least one number")
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else value


def _worker_count(value: Any) -> Any:
    if value == "auto":
        return value
    if not str(value).isdecimal() or not 1 <= int(value) <= 256:
        raise ValueError("wants a number from 1 to 256 or 'auto'")
    return int(value)


def _names(value: Any) -> Any:
    """Reads `a, b` and `[a, b]` alike."""
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


def _batch_size(value: Any) -> Any:
    if value == "auto":
        return value
    if not str(value).isdecimal() or not 1 <= int(value) <= 4096:
        raise ValueError("wants a number from 1 to 4096 or 'auto'")
    return int(value)


def _blank_is_unset(value: Any) -> Any:
    return None if value == "" else value


Shape = Annotated[tuple[Annotated[int, Field(gt=0)], ...], BeforeValidator(_numbers)]
OptionalShape = Annotated[Shape | None, BeforeValidator(_blank_is_unset)]
Floats = Annotated[tuple[float, ...], BeforeValidator(_numbers)]
Seconds = Annotated[float, Field(gt=0)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
WorkerCount = Annotated[int | Literal["auto"], BeforeValidator(_worker_count)]
BatchSize = Annotated[int | Literal["auto"], BeforeValidator(_batch_size)]
