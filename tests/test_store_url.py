"""The URL of a store: what each part means, and what is refused with which words."""

from __future__ import annotations

import re

import pytest

from streamer.store_url import ClusterUrl, SentinelUrl, StoreUrl, parse_store_url


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("redis://host", StoreUrl("redis", "host")),
        ("redis://host/", StoreUrl("redis", "host")),
        ("redis://host:/3", StoreUrl("redis", "host", database=3)),
        ("redis://host:1/007", StoreUrl("redis", "host", 1, database=7)),
        ("redis://host:65535?db=3", StoreUrl("redis", "host", 65_535, database=3)),
        ("redis://host/3?db=3", StoreUrl("redis", "host", database=3)),
        ("redis://host/2147483647", StoreUrl("redis", "host", database=2**31 - 1)),
        ("REDIS://HOST:6380", StoreUrl("redis", "HOST", 6_380)),
        ("valkey://host", StoreUrl("redis", "host")),
        ("valkeys://host", StoreUrl("rediss", "host")),
        ("rediss://host", StoreUrl("rediss", "host")),
        ("redis://[::1]", StoreUrl("redis", "::1")),
        (
            "redis://[2001:db8::7]:6380/2",
            StoreUrl("redis", "2001:db8::7", 6_380, "", 2),
        ),
        ("redis://user@host", StoreUrl("redis", "host", username="user")),
        ("redis://user:@host", StoreUrl("redis", "host", username="user")),
        ("redis://:pw@host", StoreUrl("redis", "host", password="pw")),
        (
            "redis://us%3Aer:p%40%2F%3F%23%25%20w@host/1",
            StoreUrl(
                "redis", "host", database=1, username="us:er", password="p@/?#% w"
            ),
        ),
        ("redis://:a@b@host", StoreUrl("redis", "host", password="a@b")),
        ("redis://:a:b@host", StoreUrl("redis", "host", password="a:b")),
        ("redis://host?client_name=x", StoreUrl("redis", "host", client_name="x")),
        ("unix:///run/valkey.sock", StoreUrl("unix", path="/run/valkey.sock")),
        ("unix:///a%20b@c.sock?db=2", StoreUrl("unix", path="/a b@c.sock", database=2)),
        (
            "unix://user:pw@/run/s",
            StoreUrl("unix", path="/run/s", username="user", password="pw"),
        ),
        (
            "rediss://host?ssl_cert_reqs=none",
            StoreUrl("rediss", "host", tls={"ssl_cert_reqs": "none"}),
        ),
        (
            "rediss://host?ssl_ca_certs=/etc/ca.pem&ssl_check_hostname=False",
            StoreUrl(
                "rediss",
                "host",
                tls={"ssl_ca_certs": "/etc/ca.pem", "ssl_check_hostname": "false"},
            ),
        ),
        (" redis://host\n", StoreUrl("redis", "host")),
    ],
)
def test_the_parts_of_a_url(url: str, parts: StoreUrl) -> None:
    assert parse_store_url(url) == parts


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "must begin with redis://"),
        ("host", "must begin with redis://"),
        ("127.0.0.1:6379", "must begin with redis://"),
        ("http://host", "must begin with redis://"),
        ("redis:host", "must begin with redis://"),
        ("unix:/run/s", "must begin with unix://"),
        ("redis://", "has no host"),
        ("redis:///0", "has no host"),
        ("redis://:secret@/0", "has no host"),
        ("redis://:se/cret@host", "has no host; percent-encode"),
        ("redis://user:6/secret@host/0", "contains @ after the host; percent-encode"),
        ("redis://user:6?secret@host/0", "contains @ after the host; percent-encode"),
        ("redis://:secret#1@host", "contains #: percent-encode"),
        ("redis://user:secret", "has a wrong port, expected 1 to 65535"),
        ("redis://host:0", "has a wrong port, expected 1 to 65535"),
        ("redis://host:70000", "has a wrong port, expected 1 to 65535"),
        ("redis://host:65536", "has a wrong port, expected 1 to 65535"),
        ("redis://host:-1", "has a wrong port, expected 1 to 65535"),
        ("redis://host:+1", "has a wrong port, expected 1 to 65535"),
        ("redis://host:99999999999999999999", "has a wrong port"),
        ("redis://host:٣", "has a wrong port"),
        ("redis://::1:6379", "has an IPv6 address without brackets"),
        ("redis://[::1", "an IPv6 address needs brackets"),
        ("redis://[::1]6379", "nothing but a port may follow ]"),
        ("redis://ho st", "contains a space or a control character"),
        ("redis://ho\nst", "contains a space or a control character"),
        ("redis://:%FF@host", "has a password that is not UTF-8"),
        ("redis://:%00@host", "has a password with a null character"),
        ("redis://host/staging", "no such database: its path is 'staging'"),
        ("redis://host/-1", "no such database: its path is '-1'"),
        ("redis://host/+1", "no such database: its path is '+1'"),
        ("redis://host/1.0", "no such database: its path is '1.0'"),
        ("redis://host/٣", "no such database: its path is '٣'"),
        ("redis://host/2147483648", "no such database: its path is '2147483648'"),
        ("redis://host/" + "9" * 40, "no such database: its path is '9999"),
        ("redis://host/0/1", "has a path of several parts"),
        ("redis://host//1", "has a path of several parts"),
        ("redis://host/1/", "has a path of several parts"),
        ("redis://host?db=staging", "no such database: the option db is 'staging'"),
        ("redis://host?db=-1", "no such database: the option db is '-1'"),
        ("redis://host?db=", "has the option db without a value"),
        ("redis://host?db", "has the option db without a value"),
        ("redis://host?db=1&db=1", "has the option db twice"),
        ("redis://host/1?db=2", "names two databases"),
        ("redis://host/0?db=2", "names two databases"),
        ("unix://", "has no path"),
        ("unix:///", "has no path"),
        ("unix://run/valkey.sock", "names a host, expected a path"),
        ("unix:///s?db=x", "no such database"),
        (
            "redis://host?foo=bar",
            "has the option 'foo', which is not accepted; accepted are db, client_name",
        ),
        ("redis://host?protocol=3", "(the server speaks RESP2), which is not accepted"),
        ("redis://host?decode_responses=true", "'decode_responses' (the server reads"),
        ("redis://host?password=secret", "(it goes before the host"),
        ("redis://host?socket_timeout=1", "has the option 'socket_timeout'"),
        ("redis://host?DB=1", "has the option 'DB'"),
        ("redis://host?client_name=a%20b", "not 1 to 64 visible ASCII"),
        ("redis://host?ssl_cert_reqs=none", "'ssl_cert_reqs', which needs TLS"),
        ("unix:///s?ssl_cert_reqs=none", "'ssl_cert_reqs', which needs TLS"),
        ("rediss://host?ssl_cert_reqs=maybe", "expected required or none"),
        ("rediss://host?ssl_check_hostname=1", "expected true or false"),
        ("rediss://host?ssl_ca_certs=", "without a value"),
        (
            "rediss://host?ssl_keyfile_=/k",
            "accepted are db, client_name, ssl_ca_certs, ssl_ca_path",
        ),
        ("redis+sentinel://host", "does not name the primary"),
        ("redis+sentinel://host/", "does not name the primary"),
        ("redis+sentinel:///main", "has no host"),
        ("redis+sentinel://a,,b/main", "has no host"),
        ("redis+sentinel://a,b:0/main", "has a wrong port"),
        ("redis+sentinel://a,::1/main", "an IPv6 address without brackets"),
        ("redis+sentinel://a/main/x", "no such database"),
        ("redis+sentinel://a/main/1?db=2", "names two databases"),
        ("redis+sentinel://a:se/cret@b/main", "has a wrong port"),
        ("redis+sentinel://a/main?sentinel_password=", "without a value"),
        ("redis://a?sentinel_password=secret", "which is for Sentinels"),
        ("unix+sentinel:///run/s", "or with redis+sentinel://"),
        ("unix+cluster:///run/s", "redis+cluster:// or rediss+cluster://"),
        ("redis+cluster://", "has no host"),
        ("redis+cluster://a,,b", "has no host"),
        ("redis+cluster://a,b:0", "has a wrong port"),
        ("redis+cluster://a,::1", "an IPv6 address without brackets"),
        ("redis+cluster://a,b/1", "a cluster has none but 0"),
        ("redis+cluster://a?db=1", "a cluster has none but 0"),
        ("redis+cluster://a/main", "no such database"),
        ("redis+cluster://a?sentinel_password=x", "which is for Sentinels"),
        ("redis+cluster://a?ssl_ca_certs=/ca", "which needs TLS"),
        ("redis://a,b:7000", "names several hosts: redis+cluster://"),
        ("valkeys://a,b", "names several hosts: valkeys+cluster://"),
    ],
)
def test_a_wrong_url_is_refused_and_no_secret_repeated(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)) as refused:
        parse_store_url(url)

    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://user:secret@host/3", "host:6379"),
        ("redis://[::1]:7000", "[::1]:7000"),
        ("unix://user:secret@/run/s?db=1", "/run/s"),
        (
            "redis+sentinel://user:secret@a,[::1]:7000/main?sentinel_password=secret",
            "'main' of the Sentinels a:26379, [::1]:7000",
        ),
    ],
)
def test_messages_name_the_place_of_a_store(url: str, place: str) -> None:
    assert parse_store_url(url).place == place


@pytest.mark.parametrize(
    ("url", "verifies"),
    [
        ("rediss://host", True),
        ("rediss://host?ssl_cert_reqs=required", True),
        ("rediss://host?ssl_cert_reqs=none", False),
        ("redis://host", False),
        ("rediss+sentinel://host/main", True),
        ("valkeys+sentinel://host/main?ssl_cert_reqs=none", False),
        ("redis+sentinel://host/main", False),
    ],
)
def test_a_store_proves_its_identity_over_tls(url: str, verifies: bool) -> None:
    assert parse_store_url(url).verifies_certificate is verifies


def test_sentinels_have_credentials_of_their_own_and_the_options_for_tls() -> None:
    tls = {"ssl_ca_certs": "/ca"}
    url = (
        "rediss+sentinel://user:pw@a:1,b/my%20primary/3?ssl_ca_certs=/ca"
        "&sentinel_username=watch&sentinel_password=p%40w&client_name=me"
    )
    sentinel = StoreUrl(
        *("rediss", "a", 1),
        username="watch",
        password="p@w",
        client_name="me",
        tls=tls,
    )
    assert parse_store_url(url) == SentinelUrl(
        "my primary",
        (sentinel, sentinel._replace(host="b", port=26_379)),
        StoreUrl(
            "rediss",
            database=3,
            username="user",
            password="pw",
            client_name="me",
            tls=tls,
        ),
    )


def test_the_nodes_of_a_cluster_have_credentials_and_options_in_common() -> None:
    node = StoreUrl(
        "rediss",
        "a",
        7000,
        username="user",
        password="p@w",
        client_name="me",
        tls={"ssl_ca_certs": "/ca"},
    )

    url = parse_store_url(
        "rediss+cluster://user:p%40w@a:7000,[::1]/0?ssl_ca_certs=/ca&client_name=me"
    )

    assert url == ClusterUrl((node, node._replace(host="::1", port=6_379)))
    assert (url.scheme, url.database) == ("rediss", 0)
    assert url.place == "a:7000, [::1]:6379 (cluster)"
    assert url.verifies_certificate
    assert parse_store_url("valkey+cluster://a") == ClusterUrl(
        (StoreUrl("redis", "a"),)
    )
