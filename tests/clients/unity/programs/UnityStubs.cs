// What the package uses of Unity's API, with so much behaviour as its tests need. Signatures
// are those of Unity 2021.3.
using System;
using System.Collections.Generic;
using System.Reflection;

namespace UnityEngine
{
    public class Object
    {
        public static readonly List<Object> Kept = new List<Object>();

        public static void DontDestroyOnLoad(Object target) { Kept.Add(target); }
    }

    public class Component : Object { }

    public class Behaviour : Component { }

    public class MonoBehaviour : Behaviour { }

    public sealed class GameObject : Object
    {
        public readonly List<Component> Components = new List<Component>();

        public GameObject(string name) { }

        public T AddComponent<T>() where T : Component
        {
            T added = Activator.CreateInstance<T>();
            Components.Add(added);
            return added;
        }
    }

    [AttributeUsage(AttributeTargets.Field)]
    public sealed class SerializeField : Attribute { }

    [AttributeUsage(AttributeTargets.Class)]
    public sealed class DisallowMultipleComponent : Attribute { }

    [AttributeUsage(AttributeTargets.Class)]
    public sealed class AddComponentMenu : Attribute
    {
        public AddComponentMenu(string menuName) { }
    }

    public enum NetworkReachability
    {
        NotReachable,
        ReachableViaCarrierDataNetwork,
        ReachableViaLocalAreaNetwork
    }

    public static class Application
    {
        public static NetworkReachability internetReachability = NetworkReachability.ReachableViaLocalAreaNetwork;
    }

    public static class Time
    {
        public static float realtimeSinceStartup;
    }

    public static class Debug
    {
        public static readonly List<object> Logged = new List<object>();

        public static void Log(object message) { Logged.Add(message); }

        public static void LogException(Exception exception) { Logged.Add(exception); }
    }

    public sealed class PlayerPrefsException : Exception
    {
        public PlayerPrefsException(string error) : base(error) { }
    }

    public static class PlayerPrefs
    {
        public static readonly Dictionary<string, string> Values = new Dictionary<string, string>();
        public static int Saves;
        public static bool IsFull;

        public static string GetString(string key, string defaultValue)
        {
            string value;
            return Values.TryGetValue(key, out value) ? value : defaultValue;
        }

        public static void SetString(string key, string value)
        {
            if (IsFull) throw new PlayerPrefsException("Could not store preference value");
            Values[key] = value;
        }

        public static void DeleteKey(string key) { Values.Remove(key); }

        public static void Save() { Saves++; }
    }

    public static class JsonUtility
    {
        public static T FromJson<T>(string json)
        {
            T made = Activator.CreateInstance<T>();
            Streamer.JsonValue value = Streamer.JsonValue.Parse(json);
            foreach (FieldInfo field in typeof(T).GetFields())
            {
                if (value[field.Name].IsMissing) continue;
                if (field.FieldType == typeof(string)) field.SetValue(made, value[field.Name].AsString());
                if (field.FieldType == typeof(long)) field.SetValue(made, value[field.Name].AsLong());
                if (field.FieldType == typeof(int)) field.SetValue(made, value[field.Name].AsInt());
            }
            return made;
        }
    }

    public static class GUILayout
    {
        public static void Label(string text) { }

        public static bool Button(string text) { return false; }
    }

    public class AsyncOperation
    {
        public bool isDone { get; set; }
    }
}

namespace UnityEngine.Scripting
{
    public sealed class PreserveAttribute : Attribute { }
}

namespace UnityEngine.Networking
{
    public class UploadHandler
    {
        public string contentType { get; set; }
    }

    public sealed class UploadHandlerRaw : UploadHandler
    {
        public readonly byte[] Bytes;

        public UploadHandlerRaw(byte[] data) { Bytes = data; }
    }

    public class DownloadHandler
    {
        public string text { get; set; }
    }

    public sealed class DownloadHandlerBuffer : DownloadHandler { }

    public sealed class UnityWebRequestAsyncOperation : AsyncOperation { }

    public sealed class UnityWebRequest : IDisposable
    {
        public static readonly List<UnityWebRequest> All = new List<UnityWebRequest>();

        public readonly string Url;
        public readonly string Method;
        public readonly Dictionary<string, string> Headers = new Dictionary<string, string>();
        public readonly Dictionary<string, string> ResponseHeaders = new Dictionary<string, string>();
        public readonly UnityWebRequestAsyncOperation Operation = new UnityWebRequestAsyncOperation();
        public bool IsDisposed;

        public UnityWebRequest(string url, string method)
        {
            Url = url;
            Method = method;
            All.Add(this);
        }

        public UploadHandler uploadHandler { get; set; }
        public DownloadHandler downloadHandler { get; set; }
        public int timeout { get; set; }
        public int redirectLimit { get; set; }
        public long responseCode { get; private set; }
        public string error { get; private set; }

        public void SetRequestHeader(string name, string value) { Headers[name] = value; }

        public string GetResponseHeader(string name)
        {
            string value;
            return ResponseHeaders.TryGetValue(name, out value) ? value : null;
        }

        public UnityWebRequestAsyncOperation SendWebRequest() { return Operation; }

        public void Abort() { }

        public void Dispose() { IsDisposed = true; }

        public void Answer(long status, string body)
        {
            responseCode = status;
            if (status == 0) error = "Cannot resolve destination host";
            downloadHandler.text = body;
            Operation.isDone = true;
        }
    }
}
