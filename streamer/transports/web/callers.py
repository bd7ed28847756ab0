"""
The caller of a request, for surfaces whose credentials come in the usual headers.

Ensures that a page of a foreign origin cannot act on behalf of its visitor. Knows
Starlette's requests and the authenticator. Knows nothing of rights, nor of any surface.
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
    Authenticates callers.

    Args:
        authenticator: Verifies credentials.
        allowed_origins: Origins whose pages may send requests.

    """

    def __init__(
        self, authenticator: Authenticator, allowed_origins: Collection[str]
    ) -> None:
        self._authenticator = authenticator
        self._allowed_origins = allowed_origins

    async def of(self, request: Request) -> Caller:
        """
        Return the caller of `request`.

        Raises:
            Unauthenticated: The request has no valid credential.
            ForeignOrigin: The request comes from a page of a foreign origin.
            StoreUnavailable: The credential cannot be verified now.

        """
        credentials = Credentials.from_headers(request.headers.raw)
        caller = await self._authenticator.caller(credentials)
        # Only a cookie is sent by a browser itself, for a page that need not know it.
        # Browsers send no Origin with a GET request to the page's own origin. A foreign
        # page cannot read the response, but could use up its visitor's limits, such as
        # the number of connections.
        reads = request.method in ("GET", "HEAD")
        if credentials.from_cookie and not (
            reads and header_of(request, b"origin", None) is None
        ):
            require_origin(request, self._allowed_origins)
        return caller
