"""
Known attacks, and the tests against each of them.

Knows nothing of how tests run: `test_report.py` checks that they exist.
"""

from __future__ import annotations

TOKENS = "tests/core/access/test_tokens.py"
AUTHENTICATOR = "tests/service/access/test_authenticator.py"
HTTP = "tests/transports/server/test_http_protocol.py"
WEBSOCKET = "tests/transports/server/test_websocket_protocol.py"
HANDSHAKE = "tests/transports/server/test_handshake_protocol.py"
CREDENTIALS = "tests/surfaces/test_credentials.py"
NATIVE = "tests/surfaces/native/test_native.py"
RIGHTS = "tests/e2e/test_rights.py"
STREAMS = "tests/e2e/test_streams.py"
QUOTAS = "tests/service/node/test_quotas.py"
HOSTILE = "tests/faults/test_hostile.py"

CHECKLIST: list[tuple[str, list[str]]] = [
    (
        "no credential, an empty one, two different ones",
        [
            f"{AUTHENTICATOR}::test_missing_and_ambiguous_credentials_have_a_defect",
            f"{NATIVE}::test_no_credential_is_401",
            f"{STREAMS}::test_a_websocket_without_a_credential_is_closed",
        ],
    ),
    (
        "alg none, NoNe or missing; HS256 signed with the public key",
        [
            f"{TOKENS}::test_an_invalid_token_is_refused_with_its_defect",
            f"{TOKENS}::test_an_invalid_foreign_token_is_refused_with_its_defect",
        ],
    ),
    (
        "kid that is a path or not a string; jwk, jku, x5u; unknown crit",
        [
            f"{TOKENS}::test_an_invalid_key_id_is_not_looked_up",
            f"{TOKENS}::test_an_invalid_token_is_refused_with_its_defect",
        ],
    ),
    (
        "claims missing, of the wrong type or duplicated; a token of megabytes",
        [
            f"{TOKENS}::test_a_signed_token_with_odd_members_never_crashes",
            f"{TOKENS}::test_the_corpus_reaches_every_defect_of_a_token",
        ],
    ),
    (
        "another audience, issuer or kind of token",
        [
            f"{TOKENS}::test_a_token_is_not_valid_in_another_app",
            f"{TOKENS}::test_an_invalid_foreign_token_is_refused_with_its_defect",
        ],
    ),
    (
        "clock skew beyond the leeway",
        [f"{TOKENS}::test_an_invalid_token_is_refused_with_its_defect"],
    ),
    (
        "a token that expires or is revoked while it streams",
        [
            f"{STREAMS}::test_an_expired_token_ends_its_streams",
            f"{CREDENTIALS}"
            "::test_streams_and_polls_end_when_a_players_tokens_are_revoked",
        ],
    ),
    (
        "a key set that is unavailable, slow or huge; a flood of unknown kids",
        [
            "tests/service/access/test_key_sets.py"
            "::test_the_last_set_stays_in_use_when_a_fetch_fails",
            "tests/service/access/test_key_sets.py::test_a_flood_of_unknown_ids_is_one_fetch",
            "tests/service/access/test_key_sets.py::test_an_endless_set_is_rejected",
            "tests/service/access/test_key_sets.py::test_a_slow_issuer_times_out",
        ],
    ),
    (
        "confused permissions: substrings, case, another's inbox",
        [
            f"{RIGHTS}::test_every_route_responds_as_the_table_says",
            "tests/core/access/test_rights.py::test_rights_match_the_table",
        ],
    ),
    (
        "access to objects of another player or app by their id",
        [
            f"{RIGHTS}::test_an_app_has_no_access_to_another_app",
            f"{NATIVE}::test_inboxes_of_another_app_are_invisible",
        ],
    ),
    (
        "a backend key that is wrong, truncated or not ASCII",
        [
            "tests/store/access/test_apps.py::test_only_the_key_itself_is_found",
            "tests/store/access/test_apps.py"
            "::test_the_store_holds_the_digest_of_a_key_and_not_the_key",
            f"{AUTHENTICATOR}::test_noise_in_headers_never_crashes",
        ],
    ),
    (
        "a credential in the query string; a ticket used twice",
        [
            f"{CREDENTIALS}::test_the_query_accepts_only_tickets_as_credentials",
            "tests/store/access/test_tickets.py::test_a_ticket_is_used_once",
            f"{CREDENTIALS}::test_a_ticket_is_in_no_log",
        ],
    ),
    (
        "a page of another origin opens a stream with a cookie",
        [
            f"{CREDENTIALS}::test_a_page_of_another_origin_is_refused_before_a_stream_opens",
            "tests/surfaces/rallyhere/test_errors.py"
            "::test_a_page_of_another_origin_cannot_poll_with_a_cookie",
        ],
    ),
    (
        "a form on another site posts with a cookie",
        [
            f"{NATIVE}::test_a_post_with_a_cookie_needs_an_origin",
            f"{NATIVE}::test_other_media_are_unsupported",
        ],
    ),
    (
        "WebSocket messages that are too large, compressed or never end",
        [
            f"{WEBSOCKET}::test_a_violation_closes_with_its_code_and_the_app_is_notified",
            f"{HANDSHAKE}::test_compression_is_not_negotiated",
        ],
    ),
    (
        "floods of messages and pings; malformed messages",
        [
            f"{STREAMS}::test_a_flood_of_messages_ends_a_websocket",
            f"{STREAMS}::test_an_invalid_message_ends_a_websocket",
            f"{WEBSOCKET}::test_pongs_do_not_pile_up_for_a_client_that_does_not_read",
        ],
    ),
    (
        "any number of streams; streams of other players",
        [
            f"{STREAMS}::test_a_player_can_have_ten_streams",
            f"{STREAMS}::test_a_full_node_refuses_streams_and_serves_pages",
            f"{RIGHTS}::test_a_stream_is_for_a_player_that_may_read",
        ],
    ),
    (
        "silence, half a head, half a body, a reader that does not read",
        [
            f"{HTTP}::test_a_silent_connection_is_closed_without_a_response",
            f"{HTTP}::test_an_incomplete_head_times_out",
            f"{HTTP}::test_an_incomplete_body_times_out_and_the_app_is_notified",
            "tests/faults/test_slots.py"
            "::test_stalled_readers_are_disconnected_and_delay_no_other",
        ],
    ),
    (
        "JSON that is deep, huge, not UTF-8, duplicated or has trailing data",
        [
            f"{HOSTILE}::test_an_invalid_body_is_refused_as_a_whole",
            f"{NATIVE}::test_hostile_bodies_are_refused_and_nothing_is_stored",
        ],
    ),
    (
        "bodies that never end, or are encoded",
        [
            f"{NATIVE}::test_a_body_over_two_mib_is_too_large",
            f"{NATIVE}::test_other_media_are_unsupported",
        ],
    ),
    (
        "free-form data with a million keys",
        [
            "tests/surfaces/rallyhere/test_create.py::test_a_batch_has_limits",
            f"{NATIVE}::test_strings_have_limits",
        ],
    ),
    (
        "texts with line breaks in an event stream",
        [
            f"{HOSTILE}::test_a_text_stays_within_its_event",
            "tests/core/streams/test_codec.py::test_any_notification_is_exactly_one_sse_event",
            "tests/e2e/test_browser.py::test_every_text_stays_within_its_event",
        ],
    ),
    (
        "a cursor that is garbage, another player's, in the future or huge",
        [
            "tests/service/streams/test_catch_up.py::test_a_forged_cursor_harms_nobody",
            f"{NATIVE}::test_hostile_cursors_are_refused",
            "tests/store/logs/test_inbox.py::test_a_forged_time_skips_no_entry",
        ],
    ),
    (
        "a URL in a notification: never followed, and kept within its event",
        [f"{HOSTILE}::test_a_text_from_rallyhere_stays_within_its_event"],
    ),
    (
        "Host missing, duplicated or malformed; unusual bytes in paths",
        [
            f"{HTTP}::test_an_ambiguous_or_malformed_request_is_refused_and_the_"
            "connection_closed",
            f"{NATIVE}::test_hostile_player_names_are_refused",
        ],
    ),
    (
        "requests that two servers parse differently",
        [
            f"{HTTP}::test_an_ambiguous_or_malformed_request_is_refused_and_the_"
            "connection_closed",
            "tests/faults/test_wire.py::test_ambiguous_requests_get_a_single_response",
        ],
    ),
    (
        "line breaks and secrets in the log",
        [
            f"{HOSTILE}::test_headers_and_paths_are_escaped_in_responses_and_log",
            f"{HOSTILE}::test_log_and_output_contain_no_credential",
        ],
    ),
    (
        "filling up the store",
        [
            "tests/faults/test_full.py"
            "::test_a_full_store_refuses_publishes_and_serves_the_rest",
            "tests/store/logs/test_inbox.py::test_every_key_expires",
            "tests/store/logs/test_inbox.py::test_only_the_newest_entries_are_kept",
            f"{QUOTAS}::test_bytes_are_counted_for_each_inbox",
            f"{QUOTAS}::test_at_the_quota_only_players_with_an_inbox_are_sent_to",
            f"{QUOTAS}::test_pending_schedules_are_limited",
        ],
    ),
    (
        "storms of reconnects",
        [
            f"{STREAMS}::test_connecting_too_fast_is_refused",
            "tests/service/streams/test_admission.py"
            "::test_connections_that_arrive_too_fast_are_refused",
            "tests/service/node/test_in_flight.py::test_a_player_has_a_limit_of_its_own",
        ],
    ),
    (
        "operation: short secrets, stores that evict, files of other users",
        [
            f"{TOKENS}::test_a_secret_of_31_bytes_is_refused",
            "tests/store/server/test_embedded.py::test_only_the_owner_can_read_the_store",
            "tests/core/test_store_health.py::test_a_store_that_evicts_is_refused",
        ],
    ),
]
"""The attack, and the names of its tests in pytest, without parameters."""
