using System;
using System.Collections.Generic;
using System.IO;
using System.Text;
using Streamer;

internal static class CountingTests
{
    public static void The_number_of_unread_follows_the_vectors()
    {
        JsonValue cases = JsonValue.Parse(File.ReadAllText(Program.CountingPath, Encoding.UTF8))["cases"];
        Check.True(cases.Count >= 15, "the vectors are there");
        for (int i = 0; i < cases.Count; i++)
        {
            var topics = new List<string>();
            for (int j = 0; j < cases[i]["topics"].Count; j++) topics.Add(cases[i]["topics"][j].AsString());
            var number = new UnreadNumber(topics);
            JsonValue steps = cases[i]["steps"];
            for (int j = 0; j < steps.Count; j++)
            {
                number.Take(Message.Decode(steps[j][0].ToString()));
                string found = number.Value.HasValue ? number.Value.ToString() : "null";
                Check.Equal(cases[i]["name"].AsString() + ": " + steps[j][1], cases[i]["name"].AsString() + ": " + found);
            }
        }
    }
}

internal static class SeenIdsTests
{
    public static void Only_what_an_earlier_connection_delivered_is_a_repeat()
    {
        var seen = new SeenIds();
        seen.BeginConnection();
        Check.True(!seen.IsRepeat("a") && !seen.IsRepeat("a"), "the same connection");
        seen.BeginConnection();
        Check.True(seen.IsRepeat("a"), "another connection");
        Check.True(seen.WasDeliveredBefore("a") && !seen.WasDeliveredBefore("b"), "asking remembers nothing");
    }

    public static void What_a_page_gave_is_a_repeat()
    {
        var seen = new SeenIds();
        seen.BeginConnection();
        seen.MarkDelivered("a");
        Check.True(seen.IsRepeat("a"), "of a page");
    }

    public static void The_memory_is_bounded_and_forgets_the_oldest()
    {
        var seen = new SeenIds(2);
        seen.BeginConnection();
        foreach (string id in new[] { "a", "b", "c" }) seen.IsRepeat(id);
        Check.True(!seen.Contains("a") && seen.Contains("b") && seen.Contains("c"), "two ids");
    }
}

internal static class BackoffTests
{
    private static readonly Ending Lost = new Ending(1006, "lost");

    public static void Waits_double_up_to_twenty_seconds()
    {
        var reconnect = new Reconnect(new FakeClock { Fraction = 1 });
        foreach (double wanted in new[] { 0.5, 1, 2, 4, 8, 16, 20, 20 })
        {
            Check.Equal(NextStep.Wait, reconnect.After(Lost, false));
            Check.Equal(wanted, reconnect.WaitS);
        }
    }

    public static void Thousands_of_attempts_do_not_overflow()
    {
        var reconnect = new Reconnect(new FakeClock { Fraction = 1 });
        for (int i = 0; i < 5000; i++) reconnect.After(Lost, false);
        Check.Equal(20.0, reconnect.WaitS);
    }

    public static void A_greeting_does_not_start_the_waits_again()
    {
        var clock = new FakeClock { Fraction = 1 };
        var reconnect = new Reconnect(clock);
        for (int i = 0; i < 4; i++)
        {
            reconnect.MarkOpen();
            clock.Pass(9.9);
            reconnect.After(Lost, false);
        }
        Check.Equal(4.0, reconnect.WaitS);
    }

    public static void Ten_seconds_start_the_waits_again()
    {
        var clock = new FakeClock { Fraction = 1 };
        var reconnect = new Reconnect(clock);
        for (int i = 0; i < 4; i++) reconnect.After(Lost, false);
        reconnect.MarkOpen();
        clock.Pass(10);
        reconnect.After(Lost, false);
        Check.Equal(0.5, reconnect.WaitS);
    }

    public static void The_delay_of_the_server_is_kept_and_bounded()
    {
        var reconnect = new Reconnect(new FakeClock { Fraction = 0 });
        reconnect.After(new Ending(4100, "draining", 7), false);
        Check.Equal(7.0, reconnect.WaitS);
        reconnect.After(new Ending(4100, "draining", 1e9), false);
        Check.Equal(Reconnect.DelayMaxS, reconnect.WaitS);
        reconnect.After(new Ending(4000, "slow", 7), false);
        Check.Equal(0.0, reconnect.WaitS);
    }

    public static void A_refused_token_is_replaced_once()
    {
        var reconnect = new Reconnect(new FakeClock());
        var refused = new Ending(4200, "expired");
        Check.Equal(NextStep.Stop, reconnect.After(refused, false));
        Check.Equal(NextStep.NewToken, reconnect.After(refused, true));
        Check.Equal(NextStep.Stop, reconnect.After(refused, true));
    }

    public static void Statuses_are_close_codes()
    {
        var codes = new Dictionary<int, int>
        {
            { 400, 4203 }, { 401, 4200 }, { 403, 4201 }, { 409, 4101 }, { 426, 4203 }, { 503, 4102 },
            { 404, 4102 }, { 429, 4102 }, { 502, 4102 }, { 200, 4102 }, { 302, 4102 }
        };
        foreach (KeyValuePair<int, int> one in codes)
            Check.Equal(one.Value, Ending.OfStatus(one.Key, "", null).Code);
    }

    public static void Retry_After_is_a_number_or_a_date()
    {
        Check.Equal(7.0, Reconnect.ParseRetryAfter(" 7 ", 0).Value);
        Check.Equal(30.0, Reconnect.ParseRetryAfter("Fri, 15 Jan 2027 08:00:30 GMT", 1800000000).Value);
        Check.Equal(0.0, Reconnect.ParseRetryAfter("Fri, 15 Jan 2027 07:00:00 GMT", 1800000000).Value);
        Check.Equal(300.0, Reconnect.ParseRetryAfter("99999999999999999999", 0).Value);
        foreach (string wrong in new[] { null, "", "-1", "1.5", "soon" })
            Check.True(Reconnect.ParseRetryAfter(wrong, 0) == null, "unreadable: " + wrong);
    }
}

internal static class MessageTests
{
    public static void A_known_message_that_cannot_be_read_is_an_error()
    {
        string[] wrong =
        {
            "", "[]", "7", "{}", "{\"type\":7}", "{\"type\":\"hello\"}", "{\"type\":\"cursor\"}",
            "{\"type\":\"unread\",\"unread\":\"2\"}", "{\"type\":\"unread\"}", "{\"type\":\"bye\"}",
            "{\"type\":\"notification\",\"cursor\":\"c\"}", "{\"type\":\"withdrawn\"}",
            "{\"type\":\"notification\",\"notification\":{\"id\":\"a\"}}",
            "{\"type\":\"notification\",\"notification\":{\"id\":\"a\",\"created_at\":\"yesterday\"}}",
            "{\"type\":\"notification\",\"notification\":{\"id\":\"a\",\"created_at\":\"2026-11-20T22:52:39Z\",\"title\":7}}"
        };
        foreach (string text in wrong)
        {
            string copy = text;
            Check.Throws<UnreadableException>(delegate { Message.Decode(copy); });
        }
    }

    public static void An_unknown_message_is_ignored()
    {
        Check.Equal(MessageKind.Unknown, Message.Decode("{\"type\":\"party\",\"cursor\":7}").Kind);
    }

    public static void A_notification_has_all_its_members()
    {
        Notification one = Message.Decode(World.Note("0197f1c2-0000-7000-8000-000000000001", "c1",
            ",\"type\":\"t\",\"title\":\"T\",\"body\":\"B\",\"data\":{\"n\":9223372036854775807},"
            + "\"properties\":[{\"key\":\"k\",\"value\":\"1\"},{\"key\":\"k\",\"value\":\"2\"}],"
            + "\"priority\":\"high\",\"resource\":{\"url\":\"/u\",\"etag\":\"e\"},\"source\":\"native\","
            + "\"topic\":\"news\",\"everyone\":true,\"expires_at\":\"2026-11-21T00:00:00Z\","
            + "\"collapse_key\":\"ck\",\"due_at\":\"2026-11-20T01:00:00+01:00\",\"new\":{}")).Notification;

        Check.Equal(new DateTime(2026, 11, 20, 22, 52, 39, 123, DateTimeKind.Utc), one.CreatedAt);
        Check.Equal(DateTimeKind.Utc, one.CreatedAt.Kind);
        Check.Equal("t T B high native news ck c1", string.Join(" ", new[]
        {
            one.Type, one.Title, one.Body, one.Priority, one.Source, one.Topic, one.CollapseKey, one.Cursor
        }));
        Check.Equal(long.MaxValue, one.Data["n"].AsLong());
        Check.Equal("k=1,k=2", one.Properties[0].Key + "=" + one.Properties[0].Value + "," + one.Properties[1].Key + "=" + one.Properties[1].Value);
        Check.Equal("/u e", one.ResourceUrl + " " + one.ResourceEtag);
        Check.Equal(new DateTime(2026, 11, 20, 0, 0, 0, DateTimeKind.Utc), one.DueAt.Value);
        Check.True(one.Everyone && one.ExpiresAt.HasValue && !one.ReadAt.HasValue && one.IsStored, "the rest");
    }
}
