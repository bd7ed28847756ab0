"""Which names are valid, and which are one player."""

from __future__ import annotations

import string
import unicodedata
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.names import PLAYER_CHARS_MAX, parse_app, parse_player, parse_topic

DASHED = "01563e3a-b5d3-d676-4c61-efb99302bd5b"
HEX = DASHED.replace("-", "")
ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
SPELLINGS = [
    DASHED,
    DASHED.upper(),
    HEX,
    HEX.upper(),
    f"{{{DASHED}}}",
    f"{{{HEX}}}",
    f"urn:uuid:{DASHED}",
    f"URN:UUID:{DASHED.upper()}",
    f"urn:uuid:{HEX}",
    ULID,
    ULID.lower(),
    ULID.title(),
]


@pytest.mark.parametrize("text", SPELLINGS)
def test_every_spelling_of_a_uuid_is_one_player(text: str) -> None:
    assert parse_player(text) == DASHED


@pytest.mark.parametrize(
    "text",
    [
        "p",
        "x" * PLAYER_CHARS_MAX,
        "a:b/c d",
        "Jürgen ♥",
        "ME",
        "Alice",
        "...",
        "\uff41lice",  # full width
        "al\u0131ce",  # a letter that looks like i
        "\u0646\u200c\u0645",  # a joiner between Persian letters
        "\U0001f468\u200d\U0001f469",  # and between emoji
        "\u2764\ufe0f",
        # Nearly spellings of 128 bits, so each is a name of its own.
        HEX[1:],
        "g" + HEX[1:],
        HEX[:8] + "-" + HEX[8:],
        f"{{{DASHED}",
        f"({DASHED})",
        f"urn:uuid:{{{DASHED}}}",
        f"uuid:{DASHED}",
        "8" + ULID[1:],
        ULID[:-1] + "U",
        ULID[:-1] + "I",
        # Letters that a case-insensitive match finds in Unicode.
        ULID[:-1] + "\u017f",
        "\u0661" * 32,
    ],
)
def test_every_other_name_stands_for_itself(text: str) -> None:
    assert parse_player(text) == text


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Ju\u0308rgen", "J\xfcrgen"),
        ("\u1112\u1161\u11ab", "\ud55c"),
        ("\u212bngstrom", "\xc5ngstrom"),
        ("\u212aate", "Kate"),  # the kelvin sign
    ],
)
def test_a_name_is_compared_in_normalization_form_c(text: str, normal: str) -> None:
    assert parse_player(text) == parse_player(normal) == normal


@pytest.mark.parametrize(
    "text",
    [
        "",
        "me",
        ".",
        "..",
        "x" * (PLAYER_CHARS_MAX + 1),
        "e\u0301" * (PLAYER_CHARS_MAX // 2) + "x",
        "\u0958" * (PLAYER_CHARS_MAX // 2 + 1),  # becomes two characters each
        *("a\0", "a\n", "a\tb", "\x7f", "a\x80", "\x85a"),
        *("\ud800", "a\udfff"),
        *(" alice", "alice ", " ", "alice\xa0", "\u3000alice", "a\u2028b"),
        *("alice\u200b", "\ufeffalice", "ali\u2060ce", "ali\xadce"),
        *("alice\u200d", "\u200calice", "alice\ufe0f"),
        *("\u202ealice", "alice\u2066", "\u200falice", "alice\u061c"),
        *("\U000e0061lice", "\u3164", "a\ufffd", "a\uffff"),
    ],
)
def test_an_invalid_player_is_none(text: str) -> None:
    assert parse_player(text) is None


def test_a_name_of_decomposed_characters_has_the_limit_of_what_was_sent() -> None:
    longest = "e\u0301" * (PLAYER_CHARS_MAX // 2)

    assert parse_player(longest) == "\xe9" * (PLAYER_CHARS_MAX // 2)


@given(st.text())
def test_a_normalised_name_is_kept_as_it_is(text: str) -> None:
    player = parse_player(text)

    assert player is None or parse_player(player) == player


_hex = st.text("0123456789abcdefABCDEF", min_size=32, max_size=32)
_names = st.one_of(
    st.text(string.ascii_letters + string.digits + "-_:{}", max_size=45),
    st.text("eE\u0301\xe9\xc9\u212a\u212bKk\xc5", max_size=4),
    _hex,
    _hex.map(lambda text: f"{{{text}}}"),
    st.uuids().map(str),
)


@given(_names, _names)
def test_names_are_one_player_only_as_one_uuid_or_one_text(a: str, b: str) -> None:
    one, other = parse_player(a), parse_player(b)
    if one is None or one != other:
        return

    is_one_text = unicodedata.normalize("NFC", a) == unicodedata.normalize("NFC", b)
    assert is_one_text or uuid.UUID(a.lower()) == uuid.UUID(b.lower())


@given(st.uuids(), st.uuids())
def test_different_uuids_are_different_players(a: uuid.UUID, b: uuid.UUID) -> None:
    assert (parse_player(a.hex) == parse_player(b.hex.upper())) == (a == b)
    assert parse_player(a.hex) == str(a)


@pytest.mark.parametrize("text", ["1001", "my-game_2", "A" * 64])
def test_a_valid_app_is_kept_as_it_is(text: str) -> None:
    assert parse_app(text) == text


@pytest.mark.parametrize("text", ["", "a:b", "a b", "é", "A" * 65, "a\n", ".probe"])
def test_an_invalid_app_is_none(text: str) -> None:
    assert parse_app(text) is None


@pytest.mark.parametrize("text", ["news", "News", "match/17", "a.b:c_d-e", "x" * 128])
def test_a_topic_is_kept_as_it_is(text: str) -> None:
    assert parse_topic(text) == text


@pytest.mark.parametrize("text", ["", "a b", "news\n", "é", "x" * 129, "\u212a"])
def test_an_invalid_topic_is_none(text: str) -> None:
    assert parse_topic(text) is None
