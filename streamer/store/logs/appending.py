"""
The arguments of ``lua/logs/append``, encoded for many logs at once.

Decides which arguments are encoded once for all batches of a request. Encodes them
itself instead of building tuples for `commands.pack_all`, which took a quarter of a
node's time per batch. Knows nothing of when to append, nor of replies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from ...core.trace_context import TraceContext
from ...model import Log, new_epoch, new_tags
from ..client.commands import PackedCall, Script, pack_args
from ..keys import InboxKeys, Keys
from .entries import Draft, Once
from .settings import LogSettings

__all__ = ["INLINE_MAX", "ONCE_MS", "append_calls", "are_plain", "distinct_drafts"]

INLINE_MAX: Final = 16_384
"""Largest fragment that is announced, in bytes. Readers get a larger one from the log,
so that a few large notifications cannot fill a subscriber's output buffer of 32 MB."""

ONCE_MS: Final = 24 * 3_600_000

HEAD_LENGTH: Final = 7
"""Arguments before the channel; they are the same for all batches of a request."""

NAMES_MAX: Final = 4_096
"""Logs whose encoded keys are cached; about 0.6 KiB each."""

_INCLUDES: Final = (
    *("_announce", "_append_fast", "_whole"),
    *("_inbox", "_append", "_device"),
)
_APPEND: Final = Script("append", includes=_INCLUDES)
_APPEND_WHEN_FULL: Final = Script("append", includes=_INCLUDES, allow_oom=True)

Batch = tuple[Log, Sequence[Draft | bytes]]


def distinct_drafts(batches: Sequence[Batch]) -> dict[int, Draft]:
    """Return the distinct drafts of batches, by the `id` of the object."""
    distinct: dict[int, Draft] = {}
    for _, batch in batches:
        for draft in batch:
            if id(draft) not in distinct:
                distinct[id(draft)] = (
                    Draft(draft) if isinstance(draft, bytes) else draft
                )
    return distinct


def append_calls(
    batches: Sequence[Batch],
    drafts: Mapping[int, Draft],
    *,
    keys: Keys,
    settings: LogSettings,
    once: Once | None = None,
    plain: bool = False,
    nodes: Sequence[bytes] = (),
    when_full: bool = False,
    trace: TraceContext | None = None,
) -> list[PackedCall]:
    """
    Return the calls that append a batch, which must not be empty, to each log.

    Args:
        batches: The logs and what to append to each.
        drafts: The `distinct_drafts`. A draft for many logs is encoded once.
        keys: The names of keys.
        settings: The settings of all logs.
        once: The idempotency key of the request.
        plain: Whether all drafts are plain; see `are_plain`.
        nodes: The live nodes, if a draft is for the device used last.
        when_full: Whether a full store appends, too.
        trace: The trace of the request, which is announced with every entry.

    """
    script = _APPEND_WHEN_FULL if when_full else _APPEND
    encoded = {i: _encode(draft, plain=plain) for i, draft in drafts.items()}
    form = _PLAIN
    if not plain:
        form = _form(6, len(nodes), *nodes, trace=trace)
    elif trace is not None:
        form = _form(3, trace=trace)
    # All new logs get the same epoch: those of different logs are never compared.
    epoch = b"%d" % new_epoch()
    head = b"%b$%d\r\n%b\r\n%b" % (
        _settings(*settings.script_args(), settings.entries_max),
        len(epoch),
        epoch,
        pack_args(INLINE_MAX, once.digest, ONCE_MS) if once else _NO_ONCE,
    )
    count = 0
    for _, batch in batches:
        assert batch
        count += len(batch)
    tags = iter(new_tags(count))
    calls = []
    for log, batch in batches:
        names = (
            _encode_names(keys, log, once, nodes)
            if once or nodes
            else _names(keys, log)
        )
        parts = [names.keys, head, names.channel, form.packed]
        for draft in batch:
            tag = b"%d" % next(tags)
            parts.append(b"$%d\r\n%b\r\n%b" % (len(tag), tag, encoded[id(draft)]))
        length = names.length + HEAD_LENGTH + form.length + form.each * len(batch)
        calls.append(PackedCall(script, length, b"".join(parts)))
    return calls


@lru_cache(maxsize=16)
def _settings(*args: int) -> bytes:
    return pack_args(*args)


_NO_ONCE: Final = pack_args(INLINE_MAX, "", ONCE_MS)


class _Form(NamedTuple):
    """Arguments per entry, the encoded arguments that say so, and their number."""

    each: int
    packed: bytes
    length: int


def _form(each: int, *more: int | bytes, trace: TraceContext | None = None) -> _Form:
    first = each if trace is None else f"{each} {trace.fields}"
    return _Form(each, pack_args(first, *more), 1 + len(more))


_PLAIN: Final = _form(3)


def are_plain(drafts: Iterable[Draft]) -> bool:
    """Whether none of the drafts can end, replace, or is for one device."""
    for _, _, expires_ms, collapse_key, device in drafts:
        if expires_ms or collapse_key or device != "all":
            return False
    return True


def _encode(draft: Draft, *, plain: bool) -> bytes:
    """Return the arguments of an entry after its tag, encoded."""
    if plain:
        fragment, kind = draft.fragment, draft.type.encode()
        return b"$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
            len(fragment),
            fragment,
            len(kind),
            kind,
        )
    return pack_args(*draft[:4], int(draft.device == "latest"))


class _Names(NamedTuple):
    """A log's keys after their number, its channel, and the number of all of these."""

    keys: bytes
    channel: bytes
    length: int


_KINDS: Final = (*(kind.encode() for kind in InboxKeys._fields), b"mutes")
_COUNT: Final = pack_args(len(_KINDS))


@lru_cache(maxsize=NAMES_MAX)
def _names(keys: Keys, log: Log) -> _Names:
    """
    Return what `_encode_names` does for a log without more keys, thrice as fast.

    With many players most names are not cached. Nor are they worth a place in the
    caches of `Keys` then.
    """
    head, tail = (part.encode() for part in keys.affixes(log))
    size = len(head) + len(tail)
    packed = [
        b"$%d\r\n%b%b%b\r\n" % (size + len(kind), head, kind, tail) for kind in _KINDS
    ]
    channel = keys.channel_of(log).encode()
    return _Names(
        b"".join([_COUNT, *packed]),
        b"$%d\r\n%b\r\n" % (len(channel), channel),
        len(_KINDS) + 2,
    )


def _encode_names(
    keys: Keys, log: Log, once: Once | None, nodes: Sequence[bytes]
) -> _Names:
    names = [*keys.inbox(log), keys.mutes(log)]
    if once:
        names.append(keys.once(log, once.key))
    if nodes:
        names += [keys.devices(log), keys.lease(log)]
    packed = pack_args(len(names), *names)
    return _Names(packed, pack_args(keys.channel(log)), 1 + len(names) + 1)
