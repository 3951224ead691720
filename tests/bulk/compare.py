"""Rows that are the same: a batch may change the last bits of a number."""


def alike(one: object, two: object) -> bool:
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(alike(one[key], two[key]) for key in one)
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(alike, one, two))
    if isinstance(one, float) and isinstance(two, float):
        return abs(one - two) < 1e-4
    return one == two


def within(alone: dict, row: dict) -> bool:
    """Whether a row holds all that `las transcribe` writes."""
    return alike(alone, {key: row[key] for key in alone})
