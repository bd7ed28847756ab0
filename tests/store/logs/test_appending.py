"""The names of an append's keys, encoded in two ways."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamer.model import App, Log, Topic, topic_log
from streamer.store.keys import keys_of
from streamer.store.logs.appending import _encode_names, _names

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1)


@given(name=NAMES, is_topic=st.booleans(), namespace=st.sampled_from(["streamer", "x"]))
def test_names_are_encoded_as_any_other_keys(
    name: str, is_topic: bool, namespace: str
) -> None:
    keys, app = keys_of(namespace, 3), App("app")
    log = topic_log(app, Topic(name)) if is_topic else Log(app, name)

    assert _names(keys, log) == _encode_names(keys, log, None, ())
