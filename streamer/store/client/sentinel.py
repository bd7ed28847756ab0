"""
A store that Sentinels watch: they name the server that is the primary now.

Decides whom to ask, how long, and what a failure says. Knows one command of Sentinels.
`address_at` chooses how a store is found by its URL.

Every connect asks again. Sentinels close the connections to a server that they demote,
and a replica refuses writes, so a connection to a former primary ends, or leaves, by
itself. (https://redis.io/docs/latest/develop/reference/sentinel-clients/, read
2026-11-28.)
"""

from __future__ import annotations

from contextlib import aclosing

from redis.exceptions import RedisError

from ...errors import StoreUnavailable
from ...store_url import ClusterUrl, SentinelUrl, StoreUrl, parse_store_url
from .address import FixedAddress, StoreAddress
from .asking import ANSWER_TIMEOUT_S, answers_of
from .cluster_address import ClusterAddress
from .connection import RedisConnection

__all__ = ["SentinelAddress", "address_at"]


class SentinelAddress:
    """
    The address of the primary that Sentinels name.

    Args:
        url: The Sentinels, the name of the primary, and the credentials of both.

    """

    def __init__(self, url: SentinelUrl) -> None:
        self._url = url
        self._sentinels = list(url.sentinels)

    @property
    def where(self) -> str:
        return self._url.place

    @property
    def database(self) -> int:
        return self._url.database

    async def locate(self) -> StoreUrl:
        """
        Return the URL of the primary, from the first Sentinel that names one.

        Each call begins with another Sentinel: one that is cut off from the others may
        name a former primary for long.

        Raises:
            StoreUnavailable: None of them names one. It has the answer of each.

        """
        self._sentinels.append(self._sentinels.pop(0))
        failures: list[str] = []
        async with aclosing(
            answers_of(self._sentinels, self._ask, failures)
        ) as answers:
            async for named in answers:
                if named:
                    return named[0]
        raise StoreUnavailable(
            f"no Sentinel names a primary ({'; '.join(failures)})", where=self.where
        )

    async def _ask(self, sentinel: StoreUrl) -> StoreUrl:
        """Return the primary by one Sentinel. Raises StoreUnavailable."""
        redis = RedisConnection(
            FixedAddress(sentinel),
            name="streamer-sentinel",
            timeout_s=ANSWER_TIMEOUT_S,
        )
        try:
            reply = await redis.call(
                "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._url.service
            )
        except RedisError as error:
            raise StoreUnavailable(str(error)) from error
        finally:
            await redis.close()
        if reply is None:
            raise StoreUnavailable(f"knows no primary named {self._url.service!r}")
        if not isinstance(reply, list) or len(reply) != 2:
            raise StoreUnavailable("answers as no Sentinel does")
        host, port = reply
        return self._url.store._replace(host=host.decode(), port=int(port))


def address_at(store: str | StoreAddress) -> StoreAddress:
    """
    Return the address of the store that a URL names. An address is returned as it is.

    Raises:
        ValueError: `store_url.parse_store_url` does not accept the URL.

    """
    if not isinstance(store, str):
        return store
    parsed = parse_store_url(store)
    if isinstance(parsed, SentinelUrl):
        return SentinelAddress(parsed)
    if isinstance(parsed, ClusterUrl):
        return ClusterAddress(parsed)
    return FixedAddress(parsed)
