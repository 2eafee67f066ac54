"""Arguments of networks, checked."""

from collections.abc import Collection, Sequence
from difflib import get_close_matches


def at_least_one(family: object = None, /, **sizes: int | Sequence[int]) -> None:
    """Every size, and every one of a list of sizes, is at least 1; what is said begins with the family they are of."""
    for name, size in sizes.items():
        if isinstance(size, int):
            if size < 1:
                raise ValueError(f"{whose(family)}{name} should be at least 1, got {size}")
        elif any(one < 1 for one in size):
            raise ValueError(f"{whose(family)}every one of {name} should be at least 1, got {list(size)}")


def known(family: object, name: str, value: str, names: Collection[str]) -> None:
    """A name is one of those there are, which are said nearest first."""
    if value not in names:
        nearest = get_close_matches(str(value), names, n=len(names), cutoff=0.0)
        raise ValueError(f"{whose(family)}{name} should be one of {', '.join(nearest)}, got {value}")


def whose(family: object) -> str:
    return "" if family is None else f"{type(family).__name__}: "


def sequence_shape(shape: Sequence[int], family: str, least: int = 1) -> tuple[int, int]:
    """(steps, features), or a refusal that says so; a grey image, (1, height, width), is read row by row."""
    given = tuple(shape)
    shape = given[1:] if len(given) == 3 and given[0] == 1 else given
    if len(shape) != 2 or shape[0] < least or shape[1] < 1:
        many = f" with steps at least {least}" if least > 1 else ""
        raise ValueError(f"{family} takes data of shape (steps, features){many}, or (1, height, width), got {given}")
    return shape[0], shape[1]


def image_shape(shape: Sequence[int], family: str) -> tuple[int, int, int]:
    """(channels, height, width), or a refusal that says so."""
    if len(shape) not in (2, 3) or min(shape) < 1:
        rule = f"{family} takes data of shape (height, width) or (channels, height, width)"
        raise ValueError(f"{rule}, got {tuple(shape)}")
    return (shape[0] if len(shape) == 3 else 1), shape[-2], shape[-1]
