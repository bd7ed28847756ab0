"""
The caller of a request, for surfaces whose credentials come in the usual headers.

Ensures that a page of a foreign origin cannot act on behalf of its visitor. Knows
Starlette's requests and the authenticator. Knows nothing of rights, nor of any surface.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from starlette.requests import HTTPConnection, Request

from ...core.access.rights import Caller
from ...errors import Defect, Unauthenticated
from ...service.access.authenticator import Authenticator, Credentials
from .requests import header_of, require_origin

__all__ = ["Callers", "credentials_of"]

URL_HINT: Final = (
    "URLs are logged, so a credential in one does not count: send it in the header "
    "Authorization, or open a stream with a ticket from POST /v1/tickets"
)
"""What to do instead, where a credential is in the URL."""

_URL_NAMES: Final = {
    *("token", "access_token", "auth_token", "auth", "authorization", "bearer", "jwt"),
    *("key", "api_key", "apikey"),
}
_CREDENTIAL: Final = re.compile(r"sk_.+|eyJ[^.]*\.[^.]*\.[^.]*", re.DOTALL)


def credentials_of(connection: HTTPConnection) -> Credentials:
    """
    Return the credential of a request.

    Raises:
        Unauthenticated: MISSING, AMBIGUOUS or SCHEME. Says what to do if there is none
            but one in the URL.

    """
    try:
        return Credentials.from_headers(connection.scope["headers"])
    except Unauthenticated as error:
        if error.defect is Defect.MISSING and has_credential_in_url(connection):
            raise Unauthenticated(Defect.MISSING, URL_HINT) from None
        raise


def has_credential_in_url(connection: HTTPConnection) -> bool:
    """Whether the query has what looks like a token or a key, or is named so."""
    return bool(connection.scope["query_string"]) and any(
        name.lower() in _URL_NAMES or _CREDENTIAL.fullmatch(value)
        for name, value in connection.query_params.multi_items()
    )


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
        credentials = credentials_of(request)
        caller = await self._authenticator.caller(credentials)
        # Only a cookie is sent by a browser itself, for a page that need not know it.
        # Browsers send no Origin with a GET request to the page's own origin. A foreign
        # page cannot read the response, but could use up its visitor's limits, such as
        # the number of connections.
        if credentials.from_cookie and not (
            request.method in ("GET", "HEAD")
            and header_of(request, b"origin", None) is None
        ):
            require_origin(request, self._allowed_origins)
        return caller
