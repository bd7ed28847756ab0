from __future__ import annotations

import msgspec

from streamer.errors import Defect, Forbidden, Limit, LimitReached, Unauthenticated
from streamer.surfaces.rallyhere.refusals import refusal


def test_every_defect_of_a_credential_has_auth_success_false() -> None:
    for defect in Defect:
        response = refusal(Unauthenticated(defect, "detail"))
        body = msgspec.json.decode(response.body)
        assert response.status_code == 403
        assert body["auth_success"] is False
        assert body["error_code"].startswith("auth_")
        assert "{}" not in body["desc"]


def test_a_missing_right_has_auth_success_true() -> None:
    response = refusal(Forbidden("the permission x"))

    assert response.status_code == 403
    assert msgspec.json.decode(response.body)["auth_success"] is True


def test_every_limit_is_409_or_503() -> None:
    # Limits of native operations are refused by the native surface only.
    native = {Limit.TOPICS_PER_PLAYER, Limit.MUTES_PER_PLAYER}
    limits = set(Limit) - native
    statuses = {limit: refusal(LimitReached(limit)).status_code for limit in limits}

    assert {limit for limit, status in statuses.items() if status == 409} == {
        Limit.LISTENERS_PER_PLAYER,
        Limit.REQUESTS_PER_PLAYER,
    }
    assert set(statuses.values()) == {409, 503}
