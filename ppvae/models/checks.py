"""Arguments of parts, checked."""


def at_least_one(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{name} should be at least 1, got {value}")
    return value
