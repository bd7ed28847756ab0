"""
The commands of a WebSocket client on an open stream.

Executes them: marks notifications as read, subscribes to topics, acknowledges, and
replaces the token. Knows the services. Knows nothing of how commands arrive.
"""

from __future__ import annotations

import contextlib
from typing import assert_never

from ...core.access.rights import Caller
from ...core.streams.client_messages import (
    TOPICS_MAX,
    Acknowledge,
    Authenticate,
    Command,
    MarkRead,
    Subscribe,
    Unsubscribe,
)
from ...core.streams.session import Session
from ...errors import (
    FORBIDDEN,
    TOKEN_INVALID,
    Error,
    FieldError,
    Invalid,
    Unauthenticated,
)
from ...model import Log, Topic, parse_topic
from ...service.access.authenticator import Credentials
from ...service.inboxes.inbox import parse_cursor
from ...service.streams.admission import Connection
from .opening import StreamComponents

__all__ = ["Commands"]


class Commands:
    """
    Executes commands.

    Args:
        components: The services that streams use.

    """

    def __init__(self, components: StreamComponents) -> None:
        self._components = components

    async def execute(
        self, command: Command, session: Session, connection: Connection
    ) -> None:
        """
        Execute a command of a stream's client, and reply to it through the session.

        A stream's commands must not be executed concurrently. A refused command gets
        its error as the reply. A token that is refused ends the session.
        """
        caller = connection.caller
        assert caller is not None
        match command:
            case Authenticate():
                await self._renew(command, session, connection, caller)
            case MarkRead():
                # The player has just used this device.
                log = Log(caller.app, caller.require_player())
                await self._components.admission.note_use(log, session)
                try:
                    session.reply(command.ref, await self._mark(caller, command))
                except Error as error:
                    session.fail(command.ref, str(error))
            case Subscribe() | Unsubscribe():
                await self._change_topics(command, session, caller)
            case Acknowledge():
                try:
                    cursor = parse_cursor(command.cursor, "cursor")
                    await self._components.receipts.acknowledge(
                        caller, caller.require_player(), cursor
                    )
                    session.reply(command.ref)
                except Error as error:
                    session.fail(command.ref, str(error))
            case _:
                assert_never(command)

    async def _mark(self, caller: Caller, command: MarkRead) -> int:
        inboxes, player = self._components.inboxes, caller.require_player()
        if command.ids is not None:
            marked = await inboxes.mark_ids(caller, player, command.ids)
        elif command.up_to is not None:
            position = parse_cursor(command.up_to, "up_to")
            marked = await inboxes.mark_up_to(caller, player, position)
        else:
            marked = await inboxes.mark_all(caller, player)
        return marked.unread

    async def _change_topics(
        self, command: Subscribe | Unsubscribe, session: Session, caller: Caller
    ) -> None:
        """Change the topics of a stream, by all that the command names or by none."""
        log = Log(caller.app, caller.require_player())
        try:
            requested = [_topic(name) for name in command.topics]
            if isinstance(command, Subscribe):
                for topic in requested:
                    caller.require_topic(topic)
                topics = list(dict.fromkeys([*session.topics, *requested]))
            else:
                topics = [topic for topic in session.topics if topic not in requested]
            if len(topics) > TOPICS_MAX:
                problem = f"would be {len(topics)}, allowed {TOPICS_MAX}"
                raise Invalid(FieldError(("topics",), problem))
            await self._components.admission.listen_to(log, session, topics)
            session.reply(command.ref)
        except Error as error:
            session.fail(command.ref, str(error))

    async def _renew(
        self,
        command: Authenticate,
        session: Session,
        connection: Connection,
        old: Caller,
    ) -> None:
        try:
            credentials = Credentials.from_token(command.token)
            renewed = await self._components.authenticator.caller(credentials)
        except Unauthenticated as error:
            connection.failed_renewal(error)
            session.end(TOKEN_INVALID)
            return
        except Error:
            # The old token remains valid, and the client will try again.
            return
        player = old.require_player()
        is_same_player = (renewed.app, renewed.player) == (old.app, player)
        if not is_same_player or not renewed.may_listen(player):
            session.end(FORBIDDEN)
            return
        session.renew(renewed.expires_at_s)
        connection.renew(renewed)
        allowed = [topic for topic in session.topics if renewed.may_subscribe(topic)]
        # If the store is unavailable, they are dropped with the next read of the log.
        with contextlib.suppress(Error):
            log = Log(renewed.app, player)
            await self._components.admission.listen_to(log, session, allowed)


def _topic(name: str) -> Topic:
    topic = parse_topic(name)
    if topic is None:
        raise Invalid(FieldError(("topics",), "contains an invalid topic name"))
    return topic
