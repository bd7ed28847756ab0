"""
Asyncio client of the streamer notification server.

    async with Client("http://127.0.0.1:8080", token=token) as client:
        async for event in client.notifications(cursor=stored):
            ...

`Client` speaks HTTP: publish, pages, marks. `Stream`, which `Client.notifications`
returns, holds the live connection, comes back by itself and reports gaps. The wire is
described in ``clients/PROTOCOL.md``. Imports nothing from the server.
"""

from __future__ import annotations

from .client import Client
from .credential import TokenSource
from .errors import BadAnswer, Error, Refused, Rejected, TokenExpired, Unavailable
from .model import FieldProblem, Gap, Notification, Page, Property, Resource, Sent
from .stream import Event, Stream

__all__ = [
    "BadAnswer",
    "Client",
    "Error",
    "Event",
    "FieldProblem",
    "Gap",
    "Notification",
    "Page",
    "Property",
    "Refused",
    "Rejected",
    "Resource",
    "Sent",
    "Stream",
    "TokenExpired",
    "TokenSource",
    "Unavailable",
]
