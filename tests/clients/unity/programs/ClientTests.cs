using System;
using System.Collections.Generic;
using System.Threading.Tasks;
using Streamer;

internal static class StreamTests
{
    public static void It_authenticates_by_the_first_message()
    {
        var world = new World();
        world.Hello();

        Check.True(world.Socket.Url.StartsWith("wss://push.example/v1/stream?refusals=stream&instance=", StringComparison.Ordinal), world.Socket.Url);
        Check.True(!world.Socket.Url.Contains("t0"), "no token in the URL");
        Check.Equal("{\"type\":\"auth\",\"token\":\"t0\"}", world.Socket.Sent[0]);
        Check.Equal(StreamerState.Open, world.Client.State);
    }

    public static void The_next_run_of_the_game_resumes_from_the_stored_cursor()
    {
        var world = new World();
        world.Hello();
        world.Say(World.Note(World.Id(1), "c 1"));
        world.Client.Dispose();
        world.Begin();

        Check.True(world.Socket.Url.EndsWith("&cursor=c%201", StringComparison.Ordinal), world.Socket.Url);
    }

    public static void A_cursor_is_stored_after_the_handlers()
    {
        var world = new World();
        string during = null;
        world.Client.NotificationReceived += delegate { during = world.Client.Cursor; };
        world.Hello();
        world.Say(World.Note(World.Id(1), "c1"));

        Check.Equal("c0", during);
        Check.Equal("c1", world.Client.Cursor);
    }

    public static void A_cursor_may_be_stored_by_hand()
    {
        var world = new World(delegate (StreamerOptions options) { options.AutoCommit = false; });
        world.Hello();
        world.Say(World.Note(World.Id(1), "c1"));
        world.Say(World.Note(World.Id(2), "c2"));
        world.Client.Commit("c1");
        world.Reconnect();
        Check.True(world.Socket.Url.EndsWith("&cursor=c2", StringComparison.Ordinal), "the same run continues");
        world.Client.Dispose();
        world.Begin();

        Check.True(world.Socket.Url.EndsWith("&cursor=c1", StringComparison.Ordinal), world.Socket.Url);
    }

    public static void A_handler_that_throws_ends_nothing()
    {
        var world = new World();
        world.Client.On("t", delegate (Notification one) { throw new Exception("mine"); });
        world.Hello();
        world.Say(World.Note(World.Id(1), "c1", ",\"type\":\"t\""));

        Check.Equal("mine", world.Failures[0].Message);
        Check.Equal("c1", world.Client.Cursor);
        Check.Equal(StreamerState.Open, world.Client.State);
    }

    public static void A_handler_may_stop_the_client()
    {
        var world = new World();
        world.Client.NotificationReceived += delegate { world.Client.Stop(); };
        world.Hello();
        world.Socket.Say(World.Note(World.Id(1), "c1"));
        world.Socket.Say(World.Note(World.Id(2), "c2"));
        world.Client.Tick();

        Check.Equal(1, world.Notifications.Count);
        Check.True(world.Sockets[0].IsClosed, "closed");
        world.Client.Start();
        world.Pass(2);
        Check.True(world.Socket.Url.EndsWith("&cursor=c1", StringComparison.Ordinal), "resumes");
    }

    public static void Typed_handlers_get_their_type_until_disposed()
    {
        var world = new World();
        var got = new List<string>();
        IDisposable subscription = world.Client.On(
            "friend", delegate (JsonValue data) { return data["from"].AsString(); },
            delegate (Notification one, string from) { got.Add(from); });
        world.Hello();
        world.Say(World.Note(World.Id(1), "c1", ",\"type\":\"friend\",\"data\":{\"from\":\"bob\"}"));
        world.Say(World.Note(World.Id(2), "c2", ",\"type\":\"other\""));
        subscription.Dispose();
        world.Say(World.Note(World.Id(3), "c3", ",\"type\":\"friend\",\"data\":{\"from\":\"eve\"}"));

        Check.Equal("bob", string.Join(",", got));
    }

    public static void A_frame_takes_a_bounded_number_of_messages()
    {
        var world = new World(delegate (StreamerOptions options) { options.MessagesPerTick = 3; });
        world.Hello();
        for (int i = 0; i < 10; i++) world.Socket.Say(World.Note(World.Id(i), "c" + i));
        world.Client.Tick();

        Check.Equal(3, world.Notifications.Count);
        Check.Equal(7, world.Socket.Waiting);
    }

    public static void Another_player_gets_its_own_cursor_and_number()
    {
        var world = new World();
        string next = World.Jwt("alice", world.Clock.UnixAtS, world.Clock.UnixAtS + 3600);
        world.Options.Token = null;
        world.Options.TokenSource = delegate { return World.Done(next); };
        world.Begin();
        world.Hello("\"cursor\":\"a0\",\"unread\":3");
        next = World.Jwt("bob", world.Clock.UnixAtS, world.Clock.UnixAtS + 3600);
        world.Socket.End(4200, "token");
        world.Pass(3);

        Check.True(!world.Socket.Url.Contains("cursor="), world.Socket.Url);
        Check.True(world.Client.Unread == null, "no number yet");
        world.Client.Dispose();
        next = World.Jwt("alice", world.Clock.UnixAtS, world.Clock.UnixAtS + 3600);
        world.Begin();
        Check.True(world.Socket.Url.EndsWith("cursor=a0", StringComparison.Ordinal), world.Socket.Url);
    }

    public static void A_dead_line_is_noticed_and_dropped_without_a_handshake()
    {
        var world = new World();
        world.Hello("\"cursor\":\"c0\",\"heartbeat_s\":10");
        FakeSocket first = world.Socket;
        world.Pass(13);
        Check.Equal("{\"type\":\"ping\"}", first.Sent[first.Sent.Count - 1]);
        Check.Equal(2, first.Sent.Count);
        world.Pass(11);
        Check.True(!first.IsGone, "not yet");
        world.Pass(2);

        Check.True(first.IsAborted, "dropped");
    }

    public static void Time_without_frames_is_not_silence_but_the_line_is_checked()
    {
        var world = new World();
        world.Hello("\"cursor\":\"c0\",\"heartbeat_s\":10");
        world.Clock.Pass(7200);
        world.Client.Tick();
        Check.True(!world.Socket.IsGone, "it lives");
        Check.Equal("{\"type\":\"ping\"}", world.Socket.Sent[1]);
        world.Say("{\"type\":\"pong\"}");
        world.Pass(9);
        Check.True(!world.Socket.IsGone, "it has answered");
    }

    public static void Waking_often_does_not_keep_a_dead_line()
    {
        var world = new World();
        world.Hello();
        for (int i = 0; i < 8; i++)
        {
            world.Client.Wake();
            world.Pass(1);
        }

        Check.True(world.Sockets[0].IsAborted, "nobody answered");
        Check.Equal("{\"type\":\"ping\"}", world.Sockets[0].Sent[1]);
        Check.Equal(2, world.Sockets[0].Sent.Count);
    }

    public static void After_sleep_a_dead_line_is_found_in_seconds()
    {
        var world = new World();
        world.Hello();
        world.Clock.UnixAtS += 7200;
        world.Pass(6);

        Check.Equal(2, world.Sockets.Count);
        Check.True(world.Sockets[0].IsAborted, "dropped");
    }

    public static void It_never_hammers()
    {
        foreach (int kind in new[] { 0, 1, 2, 3 })
        {
            var world = new World();
            for (int i = 0; i < 6000; i++)
            {
                if (!world.Socket.IsGone)
                {
                    if (kind == 0) world.Hello();
                    if (kind == 1) world.Socket.Refuse(503);
                    else if (kind == 2) world.Hello("\"cursor\":7");
                    else world.Socket.End(1006);
                }
                world.Pass(World.FrameS);
            }
            // Ten minutes with waits of 10 s, half of the limit, after the first ones.
            Check.True(world.Sockets.Count < 70, "attempts of kind " + kind + ": " + world.Sockets.Count);
            Check.True(world.Sockets.Count > 50, "it does not give up: " + world.Sockets.Count);
        }
    }

    public static void Waking_and_restarting_never_hammer()
    {
        var world = new World();
        for (int i = 0; i < 100; i++)
        {
            if (!world.Socket.IsGone) world.Socket.End(1006);
            world.Client.Wake();
            if (i % 3 == 0)
            {
                world.Client.Stop();
                world.Client.Start();
            }
            world.Pass(World.FrameS);
        }
        // Ten seconds.
        Check.True(world.Sockets.Count <= 11, "attempts: " + world.Sockets.Count);
    }

    public static void Waking_keeps_the_delay_of_the_server()
    {
        var world = new World();
        world.Hello();
        world.Say("{\"type\":\"bye\",\"code\":4100,\"reason\":\"draining\",\"reconnect\":true,\"delay_ms\":60000}");
        world.Client.Wake();
        world.Pass(59);
        Check.Equal(1, world.Sockets.Count);
        world.Pass(2);
        Check.Equal(2, world.Sockets.Count);
    }

    public static void A_refusal_for_good_ends_the_stream_with_the_words_of_the_server()
    {
        var world = new World();
        StreamEnd end = null;
        world.Client.Ended += delegate (StreamEnd one) { end = one; };
        world.Socket.Refuse(403, "{\"title\":\"forbidden\",\"detail\":\"the token may not listen\"}");
        world.Pass(100);

        Check.Equal(1, world.Sockets.Count);
        Check.Equal(StreamerState.Ended, world.Client.State);
        Check.Equal("4201 403 the token may not listen", end.Code + " " + end.Detail);
    }

    public static void A_message_before_hello_that_makes_no_sense_ends_the_connection()
    {
        var world = new World();
        world.Socket.Accept();
        world.Say("{\"type\":\"unread\",\"unread\":3}");

        Check.True(world.Socket.IsClosed, "closed");
    }

    public static void It_stays_away_while_there_is_no_network_and_tries_once_a_minute()
    {
        var world = new World();
        world.Hello();
        world.Client.SetNetwork(false);
        world.Socket.End(1006);
        world.Pass(300);
        int attempts = world.Sockets.Count - 1;
        Check.True(attempts <= 5, "attempts: " + attempts);
        world.Client.SetNetwork(true);
        world.Pass(2);
        Check.True(!world.Socket.IsGone && world.Sockets.Count <= 7, "it is back");
    }

    public static void An_idle_client_allocates_nothing()
    {
        var world = new World(delegate (StreamerOptions options)
        {
            options.TokenSource = delegate { return World.Done(options.Token); };
        });
        world.Hello("\"cursor\":\"c0\",\"heartbeat_s\":100000000");
        for (int i = 0; i < 1000; i++) Frame(world);
        long before = GC.GetTotalMemory(true);
        int collections = GC.CollectionCount(0);
        for (int i = 0; i < 10000; i++) Frame(world);
        long after = GC.GetTotalMemory(false);

        Check.Equal(collections, GC.CollectionCount(0));
        // The counter has the size of a thread's allocation buffers.
        Check.True(after - before <= 0, "bytes: " + (after - before));
    }

    public static void A_waiting_client_allocates_nothing()
    {
        var world = new World();
        world.Hello();
        world.Say("{\"type\":\"bye\",\"code\":4100,\"reason\":\"draining\",\"reconnect\":true,\"delay_ms\":299000}");
        for (int i = 0; i < 1000; i++) Frame(world);
        long before = GC.GetTotalMemory(true);
        for (int i = 0; i < 10000; i++) Frame(world);

        Check.True(GC.GetTotalMemory(false) - before <= 0, "bytes");
        Check.Equal(StreamerState.Waiting, world.Client.State);
    }

    private static void Frame(World world)
    {
        world.Clock.Pass(0.016);
        world.Client.Tick();
    }
}

internal static class TokenTests
{
    public static void A_token_is_renewed_on_the_open_stream_before_it_ends()
    {
        var world = new World();
        int calls = 0;
        world.Options.Token = null;
        world.Options.TokenSource = delegate
        {
            calls++;
            return World.Done(World.Jwt("alice", world.Clock.UnixAtS, world.Clock.UnixAtS + 100));
        };
        world.Begin();
        world.Hello("\"cursor\":\"c0\",\"heartbeat_s\":100000000");
        world.Pass(80);
        Check.Equal(1, calls);
        world.Pass(5);

        Check.Equal(2, calls);
        Check.Equal(2, world.Socket.Sent.Count);
        Check.True(world.Socket.Sent[1].StartsWith("{\"type\":\"auth\"", StringComparison.Ordinal), world.Socket.Sent[1]);
    }

    public static void A_token_that_ends_soon_is_replaced_before_the_next_connection()
    {
        var world = new World();
        int calls = 0;
        world.Options.Token = null;
        world.Options.TokenSource = delegate
        {
            calls++;
            return World.Done(World.Jwt("alice", world.Clock.UnixAtS, world.Clock.UnixAtS + 3600));
        };
        world.Begin();
        world.Hello();
        world.Reconnect();
        Check.Equal(1, calls);
        world.Hello();
        world.Clock.UnixAtS += 3590;
        world.Reconnect();
        Check.Equal(2, calls);
    }

    public static void After_the_end_a_start_asks_for_another_token()
    {
        int calls = 0;
        var world = new World(delegate (StreamerOptions options)
        {
            options.Token = null;
            options.TokenSource = delegate { return World.Done("t" + ++calls); };
        });
        for (int i = 0; i < 2; i++)
        {
            world.Socket.End(4200, "token");
            world.Pass(2);
        }
        Check.Equal(StreamerState.Ended, world.Client.State);
        world.Client.Start();
        world.Pass(3);
        world.Hello();

        Check.Equal("{\"type\":\"auth\",\"token\":\"t3\"}", world.Socket.Sent[0]);
        Check.Equal(StreamerState.Open, world.Client.State);
    }

    public static void The_clock_of_the_device_may_be_hours_ahead()
    {
        var world = new World();
        int calls = 0;
        world.Options.Token = null;
        world.Options.TokenSource = delegate
        {
            calls++;
            double server = world.Clock.UnixAtS - 7200;
            return World.Done(World.Jwt("alice", server, server + 100));
        };
        world.Begin();
        world.Hello("\"cursor\":\"c0\",\"heartbeat_s\":100000000");
        world.Pass(80);
        Check.Equal(1, calls);
        world.Pass(15);
        Check.Equal(2, calls);
    }

    public static void A_source_that_fails_is_not_hammered_and_a_good_token_connects()
    {
        int calls = 0;
        bool works = false;
        var world = new World(delegate (StreamerOptions options)
        {
            options.Token = null;
            options.TokenSource = delegate
            {
                calls++;
                if (!works) throw new Exception("the backend is away");
                return World.Done("t1");
            };
        });
        world.Pass(600);
        Check.True(calls > 5 && calls < 20, "calls: " + calls);
        Check.Equal(calls, world.Failures.Count);
        Check.Equal(0, world.Sockets.Count);
        works = true;
        world.Client.Wake();
        world.Pass(1);
        Check.Equal(1, world.Sockets.Count);
    }

    public static void A_source_that_does_not_answer_is_asked_again()
    {
        int calls = 0;
        var world = new World(delegate (StreamerOptions options)
        {
            options.Token = null;
            options.TokenSource = delegate
            {
                calls++;
                return new TaskCompletionSource<string>().Task;
            };
        });
        world.Pass(29);
        Check.Equal(1, calls);
        world.Pass(5);
        Check.Equal(2, calls);
    }

    public static void A_refused_token_is_replaced_once_and_then_the_stream_ends()
    {
        int calls = 0;
        var world = new World(delegate (StreamerOptions options)
        {
            options.TokenSource = delegate { return World.Done("t" + ++calls); };
        });
        world.Hello();
        world.Socket.End(4200, "token");
        world.Pass(1);
        Check.Equal(2, world.Sockets.Count);
        world.Socket.Accept();
        world.Pass(1);
        Check.Equal("{\"type\":\"auth\",\"token\":\"t1\"}", world.Socket.Sent[0]);
        world.Socket.End(4200, "token");
        world.Pass(100);

        Check.Equal(StreamerState.Ended, world.Client.State);
        Check.Equal(1, calls);
    }
}

internal static class MarkTests
{
    public static void Marks_go_one_after_the_other_and_waiting_ids_join()
    {
        var world = new World();
        world.Hello();
        Task<int> first = world.Client.MarkRead("a");
        world.Pass(0.1);
        world.Client.MarkRead("b");
        Task<int> last = world.Client.MarkRead("c");
        world.Pass(0.1);
        Check.Equal(1, world.Http.Exchanges.Count);
        Check.Equal("https://push.example/v1/players/me/notifications/read", world.Http.Last.Request.Url);
        Check.Equal("{\"ids\":[\"a\"]}", world.Http.Last.Request.Body);
        world.Http.Last.Answer(200, "{\"unread\":5}");
        world.Pass(0.3);
        Check.Equal(5, first.Result);
        Check.Equal("{\"ids\":[\"b\",\"c\"]}", world.Http.Last.Request.Body);
        world.Http.Last.Answer(200, "{\"unread\":3}");
        world.Pass(0.3);

        Check.Equal(3, last.Result);
        Check.Equal(0, world.Client.PendingMarks);
    }

    public static void Marks_survive_an_outage_and_the_end_of_the_game()
    {
        var world = new World();
        world.Hello();
        world.Client.MarkRead("a");
        world.Client.Ack();
        for (int i = 0; i < 300; i++)
        {
            world.Pass(1);
            if (!world.Http.Last.IsDone) world.Http.Last.Lose();
        }
        Check.Equal(2, world.Client.PendingMarks);
        Check.True(world.Http.Exchanges.Count < 25, "attempts: " + world.Http.Exchanges.Count);
        world.Client.Dispose();
        int before = world.Http.Exchanges.Count;
        world.Begin();
        world.Pass(1);
        world.Http.Last.Answer(200, "{\"unread\":0}");
        world.Pass(1);

        Check.Equal("{\"ids\":[\"a\"]}", world.Http.Exchanges[before].Request.Body);
        Check.Equal("{\"cursor\":\"c0\"}", world.Http.Last.Request.Body);
        world.Http.Last.Answer(204);
        world.Pass(1);
        Check.Equal(0, world.Client.PendingMarks);
    }

    public static void A_closed_client_keeps_its_marks_for_the_next_run()
    {
        var world = new World();
        world.Hello();
        Task<int> mark = world.Client.MarkRead("a");
        world.Client.Dispose();
        Check.True(mark.IsFaulted, "told");
        world.Begin();
        world.Pass(0.1);

        Check.Equal("{\"ids\":[\"a\"]}", world.Http.Last.Request.Body);
    }

    public static void A_refused_mark_is_dropped_and_told()
    {
        var world = new World();
        world.Hello();
        Task<int> first = world.Client.MarkRead("a");
        world.Client.Ack();
        world.Pass(0.1);
        world.Http.Last.Answer(422, "{\"type\":\"about:invalid\",\"detail\":\"no such id\"}");
        world.Pass(0.3);

        Check.Equal("422 no such id", world.Failures[0].Message);
        Check.True(first.IsFaulted, "the task fails");
        Check.Equal("{\"cursor\":\"c0\"}", world.Http.Last.Request.Body);
    }

    public static void A_mark_that_comes_at_a_bad_moment_is_kept()
    {
        foreach (int status in new[] { 409, 429, 503, 401, 200 })
        {
            var world = new World();
            world.Hello();
            world.Client.MarkRead("a");
            world.Pass(0.1);
            world.Http.Last.Answer(status, "<html>", "2");
            world.Pass(1.9);
            Check.Equal(1, world.Client.PendingMarks);
            world.Pass(4);
            Check.Equal(2, world.Http.Exchanges.Count);
        }
    }

    public static void Only_the_last_acknowledgement_is_sent()
    {
        var world = new World();
        world.Hello();
        world.Client.Ack("a");
        world.Client.Ack("b");
        world.Client.Ack("c");
        world.Pass(0.1);

        Check.Equal("{\"cursor\":\"c\"}", world.Http.Last.Request.Body);
        Check.Equal(1, world.Client.PendingMarks);
    }

    public static void Marking_all_offline_means_what_has_arrived()
    {
        var world = new World();
        world.Hello();
        world.Client.MarkAllRead();
        world.Socket.End(1006);
        world.Pass(0.1);
        Check.Equal("{\"all\":true}", world.Http.Last.Request.Body);
        world.Client.MarkAllRead();
        world.Http.Last.Answer(200, "{\"unread\":0}");
        world.Pass(0.3);
        Check.Equal("{\"up_to\":\"c0\"}", world.Http.Last.Request.Body);
    }

    public static void A_thousand_ids_fit_into_one_mark()
    {
        var world = new World();
        world.Hello();
        var ids = new string[1500];
        for (int i = 0; i < ids.Length; i++) ids[i] = "i" + i;
        world.Client.MarkRead(ids);
        world.Pass(0.1);
        Check.Equal(1000, JsonValue.Parse(world.Http.Last.Request.Body)["ids"].Count);
        Check.Equal(2, world.Client.PendingMarks);
    }

    public static void The_queue_is_bounded()
    {
        var world = new World();
        for (int i = 0; i < 1000; i++) world.Client.MarkReadUpTo("c" + i);

        Check.Equal(MarkQueue.OperationsMax, world.Client.PendingMarks);
    }

    public static void Marks_of_one_player_are_not_sent_for_another()
    {
        var world = new World();
        string next = World.Jwt("alice", world.Clock.UnixAtS, world.Clock.UnixAtS + 3600);
        world.Options.Token = null;
        world.Options.TokenSource = delegate { return World.Done(next); };
        world.Begin();
        world.Hello();
        world.Client.MarkAllRead();
        world.Pass(0.1);
        next = World.Jwt("bob", world.Clock.UnixAtS, world.Clock.UnixAtS + 3600);
        world.Socket.End(4200, "token");
        world.Http.Last.Lose();
        world.Pass(60);

        Check.Equal(0, world.Client.PendingMarks);
        foreach (FakeHttp.Exchange one in world.Http.Exchanges) Check.True(one.Token != next, "bob's token");
    }
}

internal static class RequestTests
{
    private const string EmptyPage = "{\"notifications\":[],\"next\":null,\"unread\":0,\"cursor\":\"c\"}";

    public static void A_page_is_asked_for_with_all_its_filters()
    {
        var world = new World();
        Task<Page> page = world.Client.ReadPageAsync(new PageQuery
        {
            Limit = 5, Before = "b", After = "a", Topic = "n/1", UnreadOnly = true, Types = new[] { "x,y", "z" },
            Priorities = new[] { "high" }
        });
        world.Pass(0.1);

        Check.True(!page.IsCompleted, "it waits");
        Check.Equal(
            "https://push.example/v1/players/me/notifications?limit=5&before=b&after=a&topic=n%2F1"
            + "&type=x%5C%2Cy&type=z&priority=high&unread=true", world.Http.Last.Request.Url);
    }

    public static void A_busy_server_is_asked_again_after_its_delay_a_bounded_number_of_times()
    {
        var world = new World();
        Task<Page> page = world.Client.ReadPageAsync();
        world.Pass(0.1);
        world.Http.Last.Answer(503, "", "3");
        world.Pass(2.9);
        Check.Equal(1, world.Http.Exchanges.Count);
        for (int i = 0; i < 100; i++)
        {
            world.Pass(1);
            if (!world.Http.Last.IsDone) world.Http.Last.Answer(503);
        }
        Check.Equal(6, world.Http.Exchanges.Count);
        Check.Equal(503, ((StreamerException)page.Exception.InnerException).Status);
    }

    public static void A_request_without_a_response_is_given_up_and_repeated()
    {
        var world = new World();
        Task<Page> page = world.Client.ReadPageAsync();
        world.Pass(16);

        Check.True(!page.IsCompleted && world.Http.Exchanges[0].IsAborted, "given up");
        Check.Equal(2, world.Http.Exchanges.Count);
    }

    public static void A_wrong_request_is_not_repeated()
    {
        var world = new World();
        Task<Notification> one = world.Client.GetAsync("a b");
        world.Pass(0.1);
        Check.True(world.Http.Last.Request.Url.EndsWith("/a%20b", StringComparison.Ordinal), "escaped");
        world.Http.Last.Answer(404, "{\"type\":\"about:not-found\",\"title\":\"not found\"}");
        world.Pass(10);

        Check.Equal(1, world.Http.Exchanges.Count);
        Check.Equal("not-found", ((StreamerException)one.Exception.InnerException).Problem);
    }

    public static void The_page_of_a_captive_portal_is_an_error()
    {
        var world = new World();
        Task<Page> page = world.Client.ReadPageAsync();
        world.Pass(0.1);
        world.Http.Last.Answer(200, "<html>Please sign in</html>");
        world.Pass(0.2);

        Check.True(page.Exception.InnerException is StreamerException, "told");
    }

    public static void A_gap_is_filled_from_pages_without_repeats()
    {
        var world = new World();
        Gap gap = null;
        world.Client.GapFound += delegate (Gap one) { gap = one; };
        world.Hello();
        world.Say(World.Note(World.Id(1), "c1"));
        world.Say("{\"type\":\"gap\",\"reason\":\"too_far\",\"cursor\":\"c9\"}");
        world.Say(World.Note(World.Id(10), "c10"));
        Task<IList<Notification>> fill = world.Client.FillGapAsync(gap);
        world.Pass(0.1);
        Check.True(world.Http.Last.Request.Url.EndsWith("?limit=100&after=c1", StringComparison.Ordinal), world.Http.Last.Request.Url);
        world.Http.Last.Answer(200, Page("\"p2\"", 11, 10, 9));
        world.Pass(0.3);
        Check.True(world.Http.Last.Request.Url.EndsWith("&before=p2&after=c1", StringComparison.Ordinal), world.Http.Last.Request.Url);
        world.Http.Last.Answer(200, Page("null", 8));
        world.Pass(0.3);

        var ids = new List<string>();
        foreach (Notification one in fill.Result) ids.Add(one.Id);
        Check.Equal(World.Id(8) + World.Id(9) + World.Id(11), string.Concat(ids));
        // It was on the page; the stream was about to deliver it.
        world.Say(World.Note(World.Id(11), "c11"));
        Check.Equal(2, world.Notifications.Count);
    }

    public static void The_cursor_of_a_gap_is_stored_when_the_gap_is_filled()
    {
        var world = new World();
        Task<IList<Notification>> fill = null;
        Gap gap = null;
        world.Client.GapFound += delegate (Gap one) { gap = one; fill = world.Client.FillGapAsync(one); };
        world.Hello();
        world.Say("{\"type\":\"gap\",\"reason\":\"too_far\",\"cursor\":\"c9\"}");
        world.Say(World.Note(World.Id(10), "c10"));
        Check.Equal("c10", world.Client.Cursor);
        Check.Equal("c0", world.Stored);
        world.Pass(0.1);
        world.Http.Last.Answer(403, "{\"detail\":\"no\"}");
        world.Pass(0.3);
        Check.True(fill.IsFaulted, "refused");
        Check.Equal("c0", world.Stored);
        fill = world.Client.FillGapAsync(gap);
        world.Pass(0.1);
        string during = null;
        fill.ContinueWith(
            delegate { during = world.Stored; }, TaskContinuationOptions.ExecuteSynchronously);
        world.Http.Last.Answer(200, Page("null", 8));
        world.Pass(0.3);
        Check.Equal(1, fill.Result.Count);
        Check.Equal("c0", during);
        Check.Equal("c10", world.Stored);
    }

    public static void The_cursor_of_a_gap_is_stored_after_the_handlers()
    {
        var world = new World();
        string during = null;
        world.Client.GapFound += delegate { during = world.Stored; };
        world.Hello();
        world.Say("{\"type\":\"gap\",\"reason\":\"too_far\",\"cursor\":\"c9\"}");

        Check.Equal("c0", during);
        Check.Equal("c9", world.Stored);
    }

    public static void Marking_all_before_anything_has_arrived_is_no_mark_up_to_a_point()
    {
        var world = new World(delegate (StreamerOptions options) { options.StartCursor = "earliest"; });
        world.Client.MarkAllRead();
        world.Pass(0.1);

        Check.Equal("{\"all\":true}", world.Http.Last.Request.Body);
        Check.Throws<InvalidOperationException>(delegate { world.Client.Ack(); });
    }

    public static void In_another_inbox_the_old_cursor_is_not_used()
    {
        foreach (string reason in new[] { "epoch", "ahead", "diverged", "new" })
        {
            var world = new World();
            Gap gap = null;
            world.Client.GapFound += delegate (Gap one) { gap = one; };
            world.Hello();
            world.Say("{\"type\":\"gap\",\"reason\":\"" + reason + "\",\"cursor\":\"c9\",\"topic\":\"news\"}");
            Task<IList<Notification>> fill = world.Client.FillGapAsync(gap);
            world.Pass(0.1);
            Check.True(!fill.IsCompleted, "it waits");
            Check.True(world.Http.Last.Request.Url.EndsWith("?limit=100&topic=news", StringComparison.Ordinal), world.Http.Last.Request.Url);
        }
    }

    public static void A_closed_client_fails_what_waits()
    {
        var world = new World();
        Task<Page> page = world.Client.ReadPageAsync();
        world.Pass(0.1);
        world.Client.Dispose();

        Check.True(page.IsFaulted && world.Http.Last.IsAborted, "it fails");
        Check.True(world.Client.ReadPageAsync().IsFaulted, "later ones as well");
        Check.Throws<ObjectDisposedException>(world.Client.Start);
    }

    private static string Page(string next, params int[] numbers)
    {
        var list = new List<string>();
        foreach (int number in numbers)
            list.Add(JsonValue.Parse(World.Note(World.Id(number)))["notification"].ToString());
        return EmptyPage.Replace("[]", "[" + string.Join(",", list) + "]").Replace("null", next);
    }
}
