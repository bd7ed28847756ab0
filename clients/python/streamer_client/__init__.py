"""
Asyncio client of the streamer notification server.

    async with Client("http://127.0.0.1:8080", token=token) as client:
        async for event in client.notifications(cursor=stored):
            ...

`Client` makes HTTP requests: publish, read pages, mark as read. `Client.notifications`
returns a `Stream`, which keeps a live connection, reconnects by itself and reports
gaps. `SyncClient` is a synchronous API to the same. ``clients/PROTOCOL.md`` documents
the protocol. This package imports nothing from the server.
"""

from __future__ import annotations

from .client import Client
from .credential import TokenSource
from .errors import (
    BadResponse,
    CommandFailed,
    Error,
    Refused,
    Rejected,
    TokenExpired,
    Unavailable,
)
from .events import CursorMoved, Event, Gap, Read, Replaced, Unread, Withdrawn
from .model import (
    EVERYONE,
    Audience,
    AudienceReceipt,
    FieldProblem,
    Membership,
    Message,
    Mutes,
    Notification,
    Page,
    Property,
    Receipt,
    Resource,
    Schedule,
    SchedulePage,
    Sent,
    Ticket,
    Token,
)
from .publisher import AsyncPublisher
from .stream import Stream
from .sync import SyncClient, SyncStream

__all__ = [
    "EVERYONE",
    "AsyncPublisher",
    "Audience",
    "AudienceReceipt",
    "BadResponse",
    "Client",
    "CommandFailed",
    "CursorMoved",
    "Error",
    "Event",
    "FieldProblem",
    "Gap",
    "Membership",
    "Message",
    "Mutes",
    "Notification",
    "Page",
    "Property",
    "Read",
    "Receipt",
    "Refused",
    "Rejected",
    "Replaced",
    "Resource",
    "Schedule",
    "SchedulePage",
    "Sent",
    "Stream",
    "SyncClient",
    "SyncStream",
    "Ticket",
    "Token",
    "TokenExpired",
    "TokenSource",
    "Unavailable",
    "Unread",
    "Withdrawn",
]
