"""The sources of settings, and the problems that are reported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from streamer.config import (
    Config,
    ConfigError,
    load,
    masked,
    parse_bind,
    parse_grant,
    parse_memory,
    resolve,
)
from streamer.store.keys import keys_of


def problems(
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    file: Path | None = None,
) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(flags or {}, environ or {}, file=str(file) if file else None)
    return caught.value.problems


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "streamer.toml"


def test_no_setting_is_required() -> None:
    config = load({}, {"HOME": "/home/u"})

    assert (config.host, config.port) == ("127.0.0.1", 8080)
    assert config.redis == ""
    assert Path(config.data_dir).is_absolute()


def test_a_flag_overrides_the_environment_which_overrides_the_file(toml: Path) -> None:
    toml.write_text("port = 1\nhost = '10.0.0.1'\nentries_max = 1000\n")
    environ = {"STREAMER_PORT": "2", "STREAMER_HOST": "10.0.0.2"}

    config, sources = resolve({"port": 3}, environ, file=str(toml))

    assert (config.port, config.host, config.entries_max) == (3, "10.0.0.2", 1000)
    assert sources["port"] == "--port"
    assert sources["host"] == "STREAMER_HOST"
    assert sources["entries_max"] == f"entries_max in {toml}"
    assert sources["replay_max"] == "default"


def test_a_flag_of_none_is_ignored() -> None:
    assert load({"port": None}, {"STREAMER_PORT": "2"}).port == 2


def test_the_environment_can_name_the_file(toml: Path) -> None:
    toml.write_text("port = 7\n")

    assert load({}, {"STREAMER_CONFIG": str(toml)}).port == 7


def test_text_from_the_environment_is_converted_to_the_type() -> None:
    config = load(
        {},
        {
            "STREAMER_BACKGROUND": "false",
            "STREAMER_ALLOWED_ORIGINS": "https://a.example, http://b.example:8000",
        },
    )

    assert config.background is False
    assert config.allowed_origins == ("https://a.example", "http://b.example:8000")


def test_text_in_the_file_is_not_a_number(toml: Path) -> None:
    toml.write_text('port = "8080"\n')

    assert problems(file=toml) == [
        f"port in {toml} is '8080', expected a whole number from 0 to 65535"
    ]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"STREAMER_PORT": "65536"}, "a whole number from 0 to 65535"),
        ({"STREAMER_PORT": "many"}, "a whole number from 0 to 65535"),
        ({"STREAMER_LISTENERS_PER_PLAYER_MAX": "0"}, "a whole number from 1"),
        ({"STREAMER_HEADER_TIMEOUT_S": "-1"}, "a whole number from 1"),
        ({"STREAMER_BACKGROUND": "perhaps"}, "true or false"),
        ({"STREAMER_LOG_LEVEL": "loud"}, "one of debug, info, warning, error"),
    ],
)
def test_a_value_out_of_range_is_reported_with_the_range(
    environ: dict[str, str], expected: str
) -> None:
    (problem,) = problems(environ=environ)

    assert problem.startswith(f"{next(iter(environ))} is ")
    assert expected in problem


def test_an_unknown_variable_is_an_error_with_a_suggestion() -> None:
    assert problems(environ={"STREAMER_DATADIR": "/x"}) == [
        "STREAMER_DATADIR is not a setting; did you mean STREAMER_DATA_DIR?"
    ]


def test_an_unknown_key_of_the_file_is_an_error(toml: Path) -> None:
    toml.write_text("prot = 1\n[tls]\n")

    assert problems(file=toml) == [
        f"prot in {toml} is not a setting; did you mean port?",
        f"tls in {toml} is not a setting",
    ]


@pytest.mark.parametrize("name", ["STREAMER_TEST_STORE", "STREAMER_CLI_KEY"])
def test_variables_of_tests_and_client_are_ignored(name: str) -> None:
    load({}, {name: "anything"})


def test_an_external_store_has_no_data_directory() -> None:
    flags = {"redis": "redis://127.0.0.1"}

    assert load(flags, {}).data_dir == ""
    (problem,) = problems(flags, {"STREAMER_DATA_DIR": "/x"})
    assert "redis (--redis)" in problem
    assert "data_dir (STREAMER_DATA_DIR)" in problem


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://:secret@host", "must begin with redis://"),
        ("127.0.0.1:6379", "must begin with redis://"),
        ("redis://", "has no host"),
        ("unix://", "has no path"),
        ("redis://:secret@host:port", "has a wrong port"),
        ("redis://:secret@host/staging", "has no such database"),
        ("redis://:secret@host?foo=bar", "has the option 'foo'"),
    ],
)
def test_a_wrong_redis_url_is_reported_without_its_password(
    url: str, problem: str
) -> None:
    (found,) = problems({"redis": url})

    assert problem in found
    assert "secret" not in found


@pytest.mark.parametrize("name", ["a", "0", "game-1_eu", "-", "a" * 32])
def test_a_namespace_is_a_short_name(name: str) -> None:
    assert load({}, {"STREAMER_NAMESPACE": name}).namespace == name


@pytest.mark.parametrize(
    "name", ["", "A", "a b", "a:b", "a@0", "{a}", "a*", "a\n", "é", "a" * 33]
)
def test_another_namespace_is_refused(name: str) -> None:
    (problem,) = problems({"namespace": name})

    assert problem == (
        f"namespace (--namespace) is {name!r}, expected 1 to 32 lower-case letters, "
        "digits, _ or -"
    )


def test_keys_begin_with_the_namespace_of_the_settings_by_default() -> None:
    assert Config().namespace == keys_of().namespace


def test_an_origin_that_matches_nothing_is_refused() -> None:
    (problem,) = problems(environ={"STREAMER_ALLOWED_ORIGINS": "null,https://g.a/x"})

    assert "'https://g.a/x': expected a scheme, a host" in problem


@pytest.mark.parametrize(
    "path", ["push", "/push/", "/", "//push", "/a b", "/..", "/a?b"]
)
def test_a_base_path_begins_with_a_slash_and_ends_without_one(path: str) -> None:
    (problem,) = problems(environ={"STREAMER_BASE_PATH": path})

    assert path in problem
    assert load({}, {"STREAMER_BASE_PATH": "/push/v2.0"}).base_path == "/push/v2.0"


@pytest.mark.parametrize("network", ["10.0.0.1/8", "proxy.internal", "10.0.0.0/40"])
def test_a_trusted_proxy_is_an_address_or_a_network(network: str) -> None:
    (problem,) = problems(environ={"STREAMER_TRUSTED_PROXIES": f"unix,{network}"})

    assert network in problem


@pytest.mark.stack(
    "variables of Kubernetes",
    "Services named `streamer`, `streamer-redis`, `streamer-metrics-2`",
)
@pytest.mark.parametrize(
    "service", ["STREAMER", "STREAMER_REDIS", "STREAMER_METRICS_2"]
)
@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_the_variables_of_a_kubernetes_service_are_no_settings(
    service: str, protocol: str
) -> None:
    address = f"{protocol.lower()}://10.96.0.7:9000"
    port = f"{service}_PORT_9000_{protocol}"

    config = load(
        {},
        {
            f"{service}_SERVICE_HOST": "10.96.0.7",
            f"{service}_SERVICE_PORT": "9000",
            f"{service}_SERVICE_PORT_HTTP": "9000",
            f"{service}_PORT": address,
            port: address,
            f"{port}_PROTO": protocol.lower(),
            f"{port}_PORT": "9000",
            f"{port}_ADDR": "10.96.0.7",
        },
    )

    assert config == load({}, {})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("STREAMER_PORT", "http://10.96.0.7"),
        ("STREAMER_PORT", "tcp:9000"),
        ("STREAMER_REDIS_PORT", "6379"),
        ("STREAMER_SERVICE", "10.96.0.7"),
    ],
)
def test_a_variable_that_only_looks_like_that_of_a_service_is_a_mistake(
    variable: str, value: str
) -> None:
    (problem,) = problems(environ={variable: value})

    assert variable in problem


def test_explicit_settings_must_not_contradict_each_other() -> None:
    environ = {"STREAMER_ENTRIES_MAX": "10", "STREAMER_REPLAY_MAX": "11"}

    (problem,) = problems(environ=environ)

    assert "replay_max (11, STREAMER_REPLAY_MAX)" in problem


def test_a_default_does_not_contradict_an_explicit_setting() -> None:
    assert load({}, {"STREAMER_ENTRIES_MAX": "10"}).entries_max == 10


def test_one_message_lists_all_problems(toml: Path) -> None:
    toml.write_text("colour = 1\nlog_level = 2\n")
    environ = {"STREAMER_PROT": "1", "STREAMER_PORT": "x", "STREAMER_DATA_DIR": "/x"}

    found = problems({"redis": "redis://h", "drain_s": -1}, environ, file=toml)

    assert len(found) == 6
    assert all(f"\n  {problem}" in str(ConfigError(found)) for problem in found)


def test_a_missing_or_invalid_file_is_an_error(toml: Path) -> None:
    assert problems(file=toml) == [f"cannot read {toml}: No such file or directory"]

    toml.write_text("port =\n")
    assert "is not valid TOML" in problems(file=toml)[0]

    toml.write_bytes(b"\xef\xbb\xbfport = 9000\n")  # as an editor of Windows does
    assert load({}, {}, file=str(toml)).port == 9000

    toml.write_bytes(b"\xff")
    assert "is not valid TOML" in problems(file=toml)[0]


def test_the_default_directory_is_the_platforms_data_directory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    assert load({}, {"HOME": "/h"}).data_dir == "/h/.local/share/streamer"
    assert load({}, {"HOME": "/h", "XDG_DATA_HOME": "/d"}).data_dir == "/d/streamer"
    assert (
        load({}, {"HOME": "/h", "XDG_DATA_HOME": "rel"}).data_dir
        == "/h/.local/share/streamer"
    )

    monkeypatch.setattr("sys.platform", "darwin")
    assert (
        load({}, {"HOME": "/h"}).data_dir == "/h/Library/Application Support/streamer"
    )


def test_every_default_is_a_valid_value() -> None:
    defaults = {
        f"STREAMER_{name.upper()}": str(getattr(Config(), name)).lower()
        for name in Config.__struct_fields__
        if not isinstance(getattr(Config(), name), tuple)
    }

    config = load({}, defaults)

    assert config == load({}, {})


def test_an_embedded_store_has_no_replicas() -> None:
    with pytest.raises(ConfigError, match="has no replicas"):
        load({}, {"STREAMER_DURABILITY": "replicated"})
    external = {"STREAMER_REDIS": "redis://store", "STREAMER_DURABILITY": "replicated"}
    assert load({}, external).durability == "replicated"


def test_every_worker_gets_a_share_of_every_limit() -> None:
    few = {"workers": 4, "connections_max": 3}
    with pytest.raises(ConfigError, match=r"workers \(4, --workers\) is greater"):
        load(few, {})
    assert load({**few, "connections_max": 4}, {}).workers == 4


# Metrics.


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("127.0.0.1:9100", ("127.0.0.1", 9100)),
        ("[::1]:9100", ("::1", 9100)),
        ("metrics.internal:1", ("metrics.internal", 1)),
        (":9100", ("", 9100)),
    ],
)
def test_a_bind_address_is_a_host_and_a_port(text: str, place: tuple[str, int]) -> None:
    assert parse_bind(text) == place


@pytest.mark.parametrize(
    "text", ["9100", "host", "host:", "host:x", "host:99999", "h:1/p", "u@h:1"]
)
def test_an_invalid_bind_address_is_refused(text: str) -> None:
    (problem,) = problems({"metrics_bind": text})

    assert problem.startswith(f"metrics_bind (--metrics-bind) is {text!r}")


@pytest.mark.parametrize("token", ["short", "has a blank in it, so no", "ü" * 20])
def test_an_invalid_token_is_refused_and_not_repeated(token: str) -> None:
    (problem,) = problems({}, {"STREAMER_METRICS_TOKEN": token})

    assert problem.startswith("metrics_token (STREAMER_METRICS_TOKEN) must be 16")
    assert token not in problem


def test_a_metrics_token_and_several_workers_are_refused() -> None:
    (problem,) = problems({"metrics_token": "t" * 16, "workers": 2})

    assert "2 workers (--workers) cannot be combined" in problem


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("33554432", 32 << 20),
        ("32MiB", 32 << 20),
        ("64 mb", 64 << 20),
        ("2G", 2 << 30),
        ("40000kib", 40_000 << 10),
    ],
)
def test_the_memory_of_the_store_has_a_unit(text: str, size: int) -> None:
    assert load({}, {"STREAMER_STORE_MEMORY": text, "HOME": "/home/u"}).store_memory
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["31MiB", "1", "-1", "half", "50%", "1.5GiB", "MiB"])
def test_a_wrong_memory_of_the_store_is_refused(text: str) -> None:
    (problem,) = problems(environ={"STREAMER_STORE_MEMORY": text})

    assert problem == (
        f"store_memory (STREAMER_STORE_MEMORY) is {text!r}, expected 0 or at least "
        "32 MiB, for example 512MiB"
    )


def test_the_memory_of_the_store_may_be_a_number_in_a_file(toml: Path) -> None:
    toml.write_text("store_memory = 1073741824\n")

    config = load({}, {"HOME": "/home/u"}, file=str(toml))

    assert parse_memory(config.store_memory) == 1 << 30


def test_an_external_store_has_a_limit_of_its_own() -> None:
    (problem,) = problems({"redis": "redis://r"}, {"STREAMER_STORE_MEMORY": "1GiB"})

    assert "redis (--redis) and store_memory (STREAMER_STORE_MEMORY)" in problem


def test_an_unknown_home_directory_is_one_clear_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)

    (problem,) = problems(environ={})

    assert problem.startswith("the data directory is unknown: HOME is not set")
    assert "--data-dir PATH or STREAMER_DATA_DIR" in problem
    assert load({"data_dir": "/srv/data"}, {}).data_dir == "/srv/data"
    assert load({"redis": "redis://r"}, {}).redis == "redis://r"
    assert load({}, {"XDG_DATA_HOME": "/srv"}).data_dir == "/srv/streamer"


def test_a_path_in_an_unknown_home_directory_is_a_problem() -> None:
    (problem,) = problems({"data_dir": "~nobody-of-that-name/data"})
    (of_file,) = problems(file=Path("~nobody-of-that-name/streamer.toml"))

    assert problem.startswith("the data directory is unknown")
    assert "the home directory is unknown" in of_file


@pytest.mark.parametrize(
    ("text", "surfaces"),
    [("teak, walletwerk", ("teak", "walletwerk")), ("", ()), ("native", ("native",))],
)
def test_surfaces_are_a_list(text: str, surfaces: tuple[str, ...]) -> None:
    assert load({}, {"STREAMER_SURFACES": text, "HOME": "/"}).surfaces == surfaces


@pytest.mark.parametrize("name", ["Teak", "tek", "loot-locker", ""])
def test_an_unknown_surface_is_refused(toml: Path, name: str) -> None:
    toml.write_text(f'surfaces = ["{name}"]')

    with pytest.raises(ConfigError) as refused:
        load({}, {"HOME": "/"}, file=str(toml))

    assert f"contains {name!r}, expected rallyhere, lootlocker" in str(refused.value)
    if name:
        assert "did you mean" in str(refused.value)


OIDC = {
    "STREAMER_CONSOLE_URL": "https://push.example/console",
    "STREAMER_CONSOLE_OIDC_ISSUER": "https://id.example/realms/studio",
    "STREAMER_CONSOLE_OIDC_CLIENT_ID": "console",
    "STREAMER_CONSOLE_OIDC_CLIENT_SECRET": "very secret",
    "STREAMER_CONSOLE_OIDC_ROLES": "game-ops=operator, cs=support:demo",
}


def test_an_issuer_for_the_console_is_configured() -> None:
    config = load({}, OIDC)

    assert config.console_oidc_roles == ("game-ops=operator", "cs=support:demo")
    assert [parse_grant(it) for it in config.console_oidc_roles] == [
        ("game-ops", "operator", ""),
        ("cs", "support", "demo"),
    ]
    assert masked(config)["console_oidc_client_secret"] == "(hidden)"


def test_a_value_may_have_the_signs_of_the_syntax() -> None:
    assert parse_grant("CN=Ops,DC=x:y=viewer=operator:a-b") == (
        "CN=Ops,DC=x:y=viewer",
        "operator",
        "a-b",
    )


@pytest.mark.parametrize(
    "text", ["", "x", "=viewer", " =viewer", "x=owner", "x=viewer:"]
)
def test_what_grants_nothing_is_reported(text: str) -> None:
    with pytest.raises(ValueError):
        parse_grant(text)


@pytest.mark.parametrize("missing", sorted(OIDC))
def test_an_issuer_requires_all_that_belongs_to_it(missing: str) -> None:
    name = missing.removeprefix("STREAMER_").lower()
    environ = {key: value for key, value in OIDC.items() if key != missing}

    found = problems(environ=environ)

    if name == "console_oidc_issuer":
        assert all("without console_oidc_issuer" in problem for problem in found)
    else:
        assert [name in problem for problem in found] == [True]
    assert "very secret" not in "".join(found)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("URL", "http://push.example/console", "https://"),
        ("URL", "https://push.example", "ends with /console"),
        ("URL", "https://push.example/console/", "ends with /console"),
        ("URL", "https://a@push.example/console", "without a user"),
        ("URL", "https://push.example:x/console", "no URL"),
        ("URL", "https://push.example/?/console", "without query"),
        ("OIDC_ISSUER", "id.example", "https://"),
        ("OIDC_ISSUER", "https://id.example/#x", "without query"),
        ("OIDC_ISSUER", "http://192.0.2.1", "https://"),
        ("OIDC_SCOPE", "email", "expected openid"),
        ("OIDC_CLAIM", "/a//b", "JSON pointer"),
        ("OIDC_ROLES", "game-ops", "VALUE=ROLE"),
    ],
)
def test_a_wrong_setting_of_the_console_is_reported(
    name: str, value: str, problem: str
) -> None:
    (found,) = problems(environ={**OIDC, f"STREAMER_CONSOLE_{name}": value})

    assert f"console_{name.lower()} (STREAMER_CONSOLE_{name})" in found
    assert problem in found


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8080", "[::1]:8080"])
def test_a_console_of_this_machine_needs_no_tls(host: str) -> None:
    urls = {
        "STREAMER_CONSOLE_URL": f"http://{host}/console",
        "STREAMER_CONSOLE_OIDC_ISSUER": f"http://{host}",
    }

    assert load({}, {**OIDC, **urls}).console_url == f"http://{host}/console"


def test_nodes_without_the_console_may_have_the_same_file() -> None:
    assert load({}, {**OIDC, "STREAMER_CONSOLE": "false"}).console is False


def test_a_setting_without_an_issuer_is_reported() -> None:
    alone = {"STREAMER_CONSOLE_OIDC_CLAIM": "roles"}
    secret = {"STREAMER_CONSOLE_OIDC_CLIENT_SECRET": "x"}

    (found,) = problems(environ={**alone, **secret})

    assert "console_oidc_claim" in found
    assert load({}, secret).console_oidc_issuer == ""
