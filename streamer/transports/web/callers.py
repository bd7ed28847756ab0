"""
Who sends a request, for the surfaces whose credentials come in the usual headers.

Decides that a foreign page cannot act in its visitor's name. Knows Starlette's request
and the authenticator. Knows nothing of rights, nor of any surface's shape.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.requests import Request

from ...core.access.rights import Caller
from ...service.access.authenticator import Authenticator, Credentials
from .requests import header_of, require_origin

__all__ = ["Callers"]


class Callers:
    """
    Recognise callers.

    Args:
        authenticator: Who knows them.
        allowed_origins: Whose pages may send requests.

    """

    def __init__(
        self, authenticator: Authenticator, allowed_origins: Collection[str]
    ) -> None:
        self._authenticator = authenticator
        self._allowed_origins = allowed_origins

    async def of(self, request: Request) -> Caller:
        """
        Return who sends `request`.

        Raises:
            Unauthenticated: It has no credential that holds.
            Forbidden: It comes from a foreign page.
            StoreUnavailable: The credential cannot be looked up now.

        """
        credentials = Credentials.from_headers(request.headers.raw)
        caller = await self._authenticator.caller(credentials)
        from_cookie = credentials.from_cookie
        # A page that reads from its own host sends no Origin. A foreign one could not
        # read the answer, but would hold what its visitor may hold, such as a
        # listener's slot.
        reads = request.method in ("GET", "HEAD")
        from_page = header_of(request, b"origin", None) is not None
        if (from_cookie and from_page) if reads else (from_cookie or from_page):
            require_origin(
                request.headers, self._allowed_origins, from_cookie=from_cookie
            )
        return caller
