using System;
using System.Collections.Generic;
using System.Threading.Tasks;
using Streamer;
using Streamer.Unity;
using UnityEngine;

/// <summary>
/// A bell with the number of unread notifications, and the inbox below it. Put it on an object
/// of a scene, and set the address of the server and a player's token.
/// </summary>
public sealed class InboxSample : MonoBehaviour
{
    [Serializable]
    public sealed class FriendRequest
    {
        public string from;
    }

    [SerializeField] private string url = "http://127.0.0.1:8080";
    [SerializeField] private string token = "";

    private readonly List<Notification> _inbox = new List<Notification>();
    private StreamerClient _client;
    private string _toast = "";

    private async void Start()
    {
        // A game returns a token of its backend here, each time a new one.
        _client = StreamerUnity.Connect(url, delegate { return Task.FromResult(token); });
        _client.NotificationReceived += delegate (Notification one) { _inbox.Insert(0, one); };
        _client.Removed += delegate (Removal ended)
        {
            _inbox.RemoveAll(delegate (Notification one) { return one.Id == ended.Id; });
        };
        _client.On<FriendRequest>("friend_request", delegate (Notification one, FriendRequest request)
        {
            _toast = request.from + " wants to be friends";
        });
        _client.GapFound += FillGap;
        _client.Ended += delegate (StreamEnd end) { _toast = "The stream has ended: " + end.Detail; };
        try
        {
            // What is there already. What arrives meanwhile may be on the page as well.
            Page page = await _client.ReadPageAsync();
            foreach (Notification one in page.Notifications)
            {
                if (!_inbox.Exists(delegate (Notification had) { return had.Id == one.Id; })) _inbox.Add(one);
            }
        }
        catch (StreamerException error)
        {
            _toast = error.Message;
        }
    }

    private async void FillGap(Gap gap)
    {
        try
        {
            foreach (Notification one in await _client.FillGapAsync(gap)) _inbox.Insert(0, one);
        }
        catch (StreamerException error)
        {
            _toast = error.Message;
        }
    }

    private void OnGUI()
    {
        if (_client == null) return;
        GUILayout.Label("Bell: " + _client.Unread + "   " + _client.State + "   " + _toast);
        if (GUILayout.Button("Mark all as read")) _client.MarkAllRead();
        foreach (Notification one in _inbox)
        {
            if (GUILayout.Button((one.Title ?? one.Type) + "\n" + one.Body)) _client.MarkRead(one.Id);
        }
    }

    private void OnDestroy()
    {
        if (_client != null) _client.Dispose();
    }
}
