"""
Where a token has what this server reads from it: JSON pointers into its claims.

Decides which pointers an app may have, and finds the value of one. The claims of RFC
7519 keep their places: ``iss``, ``aud``, ``iat``, ``exp`` and ``nbf``. Knows RFC 6901.
Knows nothing of what the values mean.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

import msgspec

__all__ = ["ABSENT", "TARGETS", "ClaimPointers", "find", "pointer_problem", "put"]

POINTER_CHARS_MAX: Final = 255

ABSENT: Final = object()
"""What `find` returns where a pointer leads nowhere."""

_STANDARD: Final = {
    "player": "sub",
    "permissions": "permissions",
    "topics": "topics",
}
_STANDARD_POINTERS: Final = {target: f"/{claim}" for target, claim in _STANDARD.items()}
TARGETS: Final = tuple(_STANDARD)
"""What can be read from another place than the standard claim."""

# Claims with a meaning of their own, in which nothing else can be.
_RESERVED: Final = frozenset({"iss", "aud", "exp", "nbf", "iat", "jti", "ver"})
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,5}", re.ASCII)
_BAD_ESCAPE: Final = re.compile(r"~(?![01])")


class ClaimPointers(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    A JSON pointer for each of `TARGETS`; an empty one stands for the standard claim.

    The standard claims are ``sub``, ``permissions`` and ``topics``.
    """

    player: str = ""
    permissions: str = ""
    topics: str = ""

    def of(self, target: str) -> str:
        """Return the pointer of one of `TARGETS`."""
        return self._mapped(target) or _STANDARD_POINTERS[target]

    def is_mapped(self, target: str) -> bool:
        """Whether the app has a pointer of its own for one of `TARGETS`."""
        return bool(self._mapped(target))

    def label(self, target: str) -> str:
        """Return how an error names the claim: by its name, or by the app's pointer."""
        return self._mapped(target) or _STANDARD[target]

    def problem(self) -> str | None:
        """Return what is wrong with the pointers and what to do, None if nothing is."""
        for target in TARGETS:
            pointer = self._mapped(target)
            if pointer and (problem := pointer_problem(pointer)):
                return f"the claim of the {target}: {problem}"
        for target in TARGETS:
            for other in TARGETS:
                inner, outer = self.of(target), self.of(other)
                if target != other and f"{inner}/".startswith(f"{outer}/"):
                    return (
                        f"the {target} at {inner} and the {other} at {outer} overlap: "
                        f"map the {target} or the {other} to another claim"
                    )
        return None

    def _mapped(self, target: str) -> str:
        pointer: str = getattr(self, target)
        return pointer


def pointer_problem(pointer: str) -> str | None:
    """Return what is wrong with the pointer of a claim and what to do, or None."""
    if len(pointer) > POINTER_CHARS_MAX:
        return f"a pointer has at most {POINTER_CHARS_MAX} characters"
    if not pointer.isprintable():
        return "a pointer has printable characters only"
    if "://" in pointer:
        # The name of a claim that is a URL, as Auth0 requires.
        escaped = _escape(pointer.removeprefix("/"))
        return (
            f"{pointer!r} is no pointer to a claim named by a URL, whose slashes are "
            f"written ~1: write /{escaped}"
        )
    if not pointer.startswith("/"):
        return f"{pointer!r} is not a JSON pointer: write {_suggested(pointer)}"
    if _BAD_ESCAPE.search(pointer):
        return (
            f"{pointer!r} has a ~ that is not part of ~0 or ~1: write ~0 for ~ and ~1 "
            "for a slash within a name"
        )
    names = _names(pointer)
    if "" in names:
        return (
            f"{pointer!r} has an empty name: write a name after each slash, and none "
            "at the end"
        )
    if names[0] in _RESERVED:
        return (
            f"the claim {names[0]} has a meaning of its own: name a claim that says "
            "who the player is, or what the player may do"
        )
    return None


def find(claims: dict[str, Any], pointer: str) -> Any:
    """
    Return the value to which a valid `pointer` leads, `ABSENT` if it leads nowhere.

    A number is an index where it meets an array, and a name where it meets an object.
    """
    value: Any = claims
    for name in _names(pointer):
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif (
            isinstance(value, list)
            and _INDEX.fullmatch(name)
            and int(name) < len(value)
        ):
            value = value[int(name)]
        else:
            return ABSENT
    return value


def put(claims: dict[str, Any], pointer: str, value: object) -> None:
    """Add `value` where a valid `pointer` leads, with objects on the way to it."""
    *path, last = _names(pointer)
    for name in path:
        claims = claims.setdefault(name, {})
    claims[last] = value


@lru_cache(maxsize=256)
def _names(pointer: str) -> tuple[str, ...]:
    # In this order: "~01" stands for "~1".
    return tuple(
        name.replace("~1", "/").replace("~0", "~") for name in pointer.split("/")[1:]
    )


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _suggested(text: str) -> str:
    """Return what was probably meant by a text that is no pointer."""
    # "#/a/b" is a pointer as part of a URL, "$.a.b" a JSONPath.
    path = text.removeprefix("#").removeprefix("$").strip("./")
    if not path:
        return "a slash and the name of a claim: /sub"
    if "/" in path or "." not in path:
        return f"/{path}"
    nested = path.replace(".", "/")
    return f"/{nested}, or /{path} if the dot is part of the name"
