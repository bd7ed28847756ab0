using System;
using System.Collections.Generic;
using System.Reflection;
using System.Text;
using System.Threading.Tasks;
using Streamer;
using Streamer.Unity;
using UnityEngine;
using UnityEngine.Networking;

/// <summary>A game with the part for Unity, on stubs of the engine.</summary>
internal sealed class Game : ISocketFactory
{
    internal readonly FakeClock Clock = new FakeClock();
    internal readonly List<FakeSocket> Sockets = new List<FakeSocket>();
    internal readonly StreamerClient Client;
    private readonly StreamerBehaviour _behaviour;

    internal Game()
    {
        PlayerPrefs.Values.Clear();
        PlayerPrefs.IsFull = false;
        PlayerPrefs.Saves = 0;
        Debug.Logged.Clear();
        UnityWebRequest.All.Clear();
        UnityEngine.Object.Kept.Clear();
        Application.internetReachability = NetworkReachability.ReachableViaLocalAreaNetwork;
        Client = StreamerUnity.Connect(new StreamerOptions
        {
            Url = "https://push.example", Token = "t0", Sockets = this, Clock = Clock
        });
        _behaviour = (StreamerBehaviour)((GameObject)UnityEngine.Object.Kept[0]).Components[0];
    }

    internal FakeSocket Socket { get { return Sockets[Sockets.Count - 1]; } }

    public ISocket Open(string url)
    {
        Sockets.Add(new FakeSocket(url, Clock.NowS));
        return Socket;
    }

    /// <summary>Call one of the messages that Unity sends to a component.</summary>
    internal void Send(string name, params object[] arguments)
    {
        MethodInfo method = typeof(StreamerBehaviour).GetMethod(
            name, BindingFlags.Instance | BindingFlags.NonPublic);
        method.Invoke(_behaviour, arguments);
    }

    internal void Frames(int count)
    {
        for (int i = 0; i < count; i++)
        {
            Clock.Pass(0.1);
            Time.realtimeSinceStartup += 0.1f;
            Send("Update");
        }
    }

    internal void Hello()
    {
        Frames(1);
        Socket.Accept();
        Socket.Say("{\"type\":\"hello\",\"cursor\":\"c0\"}");
        Frames(1);
    }
}

internal static class UnityPartTests
{
    [Serializable]
    public sealed class FriendRequest
    {
        public string from = "";
        public long number = 0;
    }

    public static void Events_come_from_Update_alone()
    {
        var game = new Game();
        var got = new List<string>();
        game.Client.NotificationReceived += delegate (Notification one) { got.Add(one.Title); };
        game.Hello();
        game.Socket.Say(World.Note(World.Id(1), "c1", ",\"title\":\"Hi\""));
        Check.Equal(0, got.Count);
        game.Frames(1);
        Check.Equal("Hi", string.Join(",", got));
    }

    public static void Data_arrives_as_a_class_of_the_game()
    {
        var game = new Game();
        var got = new List<string>();
        game.Client.On<FriendRequest>("friend_request", delegate (Notification one, FriendRequest request)
        {
            got.Add(request.from + request.number);
        });
        game.Hello();
        string data = ",\"type\":\"friend_request\",\"data\":{\"from\":\"bob\",\"number\":9223372036854775807}";
        game.Socket.Say(World.Note(World.Id(1), "c1", data));
        game.Socket.Say(World.Note(World.Id(2), "c2", ",\"type\":\"friend_request\""));
        game.Frames(1);

        Check.Equal("bob9223372036854775807,0", string.Join(",", got));
    }

    public static void The_cursor_is_on_disk_when_the_app_pauses_or_ends()
    {
        var game = new Game();
        game.Hello();
        Check.Equal(0, PlayerPrefs.Saves);
        game.Send("OnApplicationPause", true);
        Check.Equal(1, PlayerPrefs.Saves);
        game.Send("OnApplicationPause", true);
        Check.Equal(1, PlayerPrefs.Saves);
        Check.Equal("c0", PlayerPrefs.Values["streamer.cursor wss://push.example/v1/stream "]);
        game.Socket.Say("{\"type\":\"cursor\",\"cursor\":\"c1\"}");
        game.Frames(1);
        game.Send("OnDestroy");

        Check.Equal(2, PlayerPrefs.Saves);
        Check.True(game.Socket.IsClosed, "closed");
    }

    public static void An_app_that_returns_checks_its_line_at_once()
    {
        var game = new Game();
        game.Hello();
        game.Send("OnApplicationPause", true);
        game.Clock.Pass(1800);
        game.Send("OnApplicationPause", false);
        Check.Equal("{\"type\":\"ping\"}", game.Socket.Sent[1]);
        game.Frames(70);

        Check.Equal(2, game.Sockets.Count);
        Check.True(game.Sockets[0].IsAborted, "nobody answered");
    }

    public static void Without_a_network_it_waits_and_then_it_is_back_at_once()
    {
        var game = new Game();
        game.Hello();
        Application.internetReachability = NetworkReachability.NotReachable;
        game.Frames(20);
        game.Socket.End(1006);
        game.Frames(300);
        Check.Equal(1, game.Sockets.Count);
        Application.internetReachability = NetworkReachability.ReachableViaCarrierDataNetwork;
        game.Frames(20);
        Check.Equal(2, game.Sockets.Count);
    }

    public static void A_mark_is_a_request_of_Unity()
    {
        var game = new Game();
        game.Hello();
        Task<int> mark = game.Client.MarkRead("a");
        game.Frames(1);
        UnityWebRequest web = UnityWebRequest.All[0];
        Check.Equal("POST https://push.example/v1/players/me/notifications/read Bearer t0",
            web.Method + " " + web.Url + " " + web.Headers["Authorization"]);
        Check.Equal("{\"ids\":[\"a\"]}", Encoding.UTF8.GetString(((UploadHandlerRaw)web.uploadHandler).Bytes));
        Check.Equal("application/json", web.uploadHandler.contentType);
        web.ResponseHeaders["Retry-After"] = "2";
        web.Answer(503, "");
        game.Frames(15);
        Check.Equal(1, UnityWebRequest.All.Count);
        Check.True(web.IsDisposed, "disposed");
        game.Frames(20);
        UnityWebRequest.All[1].Answer(200, "{\"unread\":4}");
        game.Frames(2);
        Check.Equal(4, mark.Result);
    }

    public static void A_request_without_a_response_is_repeated()
    {
        var game = new Game();
        Task<Page> page = game.Client.ReadPageAsync();
        game.Frames(1);
        UnityWebRequest.All[0].Answer(0, null);
        game.Frames(10);

        Check.True(!page.IsCompleted, "it waits");
        Check.Equal(2, UnityWebRequest.All.Count);
    }

    public static void Full_preferences_end_nothing()
    {
        var game = new Game();
        PlayerPrefs.IsFull = true;
        game.Hello();

        Check.Equal(StreamerState.Open, game.Client.State);
        Check.True(Debug.Logged[0] is PlayerPrefsException, "told");
    }

    public static void An_idle_frame_allocates_nothing()
    {
        var game = new Game();
        game.Frames(1);
        game.Socket.Accept();
        game.Socket.Say("{\"type\":\"hello\",\"cursor\":\"c0\",\"heartbeat_s\":100000000}");
        var update = (Action)Delegate.CreateDelegate(
            typeof(Action), ((GameObject)UnityEngine.Object.Kept[0]).Components[0],
            typeof(StreamerBehaviour).GetMethod("Update", BindingFlags.Instance | BindingFlags.NonPublic));
        for (int i = 0; i < 1000; i++) Frame(game, update);
        long before = GC.GetTotalMemory(true);
        for (int i = 0; i < 10000; i++) Frame(game, update);

        Check.True(GC.GetTotalMemory(false) - before <= 0, "bytes");
    }

    private static void Frame(Game game, Action update)
    {
        game.Clock.Pass(0.016);
        Time.realtimeSinceStartup += 0.016f;
        update();
    }
}
