"""
How an append is written for the store.

Decides what `lua/append` is told of a batch, and what of that is written once for all
batches of a request. Knows that commands are written before they are sent: made as
tuples, which something else then writes, they were a quarter of what a batch cost a
node. Knows nothing of when to append, nor of what is answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from ...model import Log, new_epoch, new_tags
from ..client.commands import PackedCall, Script, pack_args
from ..keys import channel, devices_key, inbox_keys, lease_key, mutes_key, once_key
from .entries import Draft, Once
from .settings import LogSettings

__all__ = ["INLINE_MAX", "ONCE_MS", "append_calls", "distinct_drafts"]

INLINE_MAX: Final = 16_384
"""Largest fragment announced whole, in bytes. A larger one is read from the log, so
that a few large notifications cannot fill a subscriber's 32 MB output buffer."""

ONCE_MS: Final = 24 * 3_600_000

HEAD_LENGTH: Final = 7
"""Arguments that are the same for all batches of a request, in front of the channel."""

NAMES_MAX: Final = 4_096
"""Logs whose names are kept as they are written; about 0.6 KiB each."""

_APPEND: Final = Script(
    "append", includes=("_append_fast", "_inbox", "_append", "_device")
)

Batch = tuple[Log, Sequence[Draft | bytes]]


def distinct_drafts(batches: Sequence[Batch]) -> dict[int, Draft]:
    """Return the drafts that there are, by the `id` of each one given."""
    given = {id(draft): draft for _, batch in batches for draft in batch}
    return {
        i: Draft(draft) if isinstance(draft, bytes) else draft
        for i, draft in given.items()
    }


def append_calls(
    batches: Sequence[Batch],
    drafts: Mapping[int, Draft],
    *,
    settings: LogSettings,
    once: Once | None = None,
    nodes: Sequence[bytes] = (),
) -> list[PackedCall]:
    """
    Return the calls that append a batch, not an empty one, to each log.

    Args:
        batches: What is for whom.
        drafts: The `distinct_drafts`. One that is for many logs is written once.
        settings: The settings of all logs.
        once: The idempotency key of all of it.
        nodes: Those that are alive, if something is for the device used last.

    """
    plain = all(map(_is_plain, drafts.values()))
    written = {i: _written(draft, plain=plain) for i, draft in drafts.items()}
    form = _PLAIN if plain else _form(6, len(nodes), *nodes)
    # One for all of them that are new: epochs of different logs are never compared.
    epoch, digest = new_epoch(), once.digest if once else ""
    head = pack_args(
        *settings.script_args(),
        settings.entries_max,
        epoch,
        INLINE_MAX,
        digest,
        ONCE_MS,
    )
    tags = iter(new_tags(sum([len(batch) for _, batch in batches])))
    calls = []
    for log, batch in batches:
        assert batch
        names = _names_with(log, once, nodes) if once or nodes else _names(log)
        parts = [names.keys, head, names.channel, form.packed]
        for draft in batch:
            tag = b"%d" % next(tags)
            parts.append(b"$%d\r\n%b\r\n%b" % (len(tag), tag, written[id(draft)]))
        length = names.length + HEAD_LENGTH + form.length + form.each * len(batch)
        calls.append(PackedCall(_APPEND, length, b"".join(parts)))
    return calls


class _Form(NamedTuple):
    """How many arguments each entry has; what says so, written, and its length."""

    each: int
    packed: bytes
    length: int


def _form(each: int, *more: int | bytes) -> _Form:
    return _Form(each, pack_args(each, *more), 1 + len(more))


_PLAIN: Final = _form(3)


def _is_plain(draft: Draft) -> bool:
    ends = draft.expires_ms or draft.collapse_key
    return not ends and draft.device == "all"


def _written(draft: Draft, *, plain: bool) -> bytes:
    """Return what the script is told of an entry behind its tag."""
    if plain:
        return pack_args(draft.fragment, draft.type)
    return pack_args(*draft[:4], int(draft.device == "latest"))


class _Names(NamedTuple):
    """A log's keys behind their number, and its channel, written; and their length."""

    keys: bytes
    channel: bytes
    length: int


@lru_cache(maxsize=NAMES_MAX)
def _names(log: Log) -> _Names:
    return _names_with(log, None, ())


def _names_with(log: Log, once: Once | None, nodes: Sequence[bytes]) -> _Names:
    keys = [*inbox_keys(log), mutes_key(log)]
    if once:
        keys.append(once_key(log, once.key))
    if nodes:
        keys += [devices_key(log), lease_key(log)]
    packed = pack_args(len(keys), *keys)
    return _Names(packed, pack_args(channel(log)), 1 + len(keys) + 1)
