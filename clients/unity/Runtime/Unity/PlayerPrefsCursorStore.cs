using System;
using UnityEngine;

namespace Streamer.Unity
{
    /// <summary>
    /// Keeps cursors and waiting marks in PlayerPrefs. Writes them to disk when the app
    /// pauses or ends, since that may take longer than a frame; after a crash some
    /// notifications arrive once more, and none is lost.
    /// </summary>
    public sealed class PlayerPrefsCursorStore : ICursorStore
    {
        private bool _isChanged;

        public string Load(string name)
        {
            string value = PlayerPrefs.GetString(name, "");
            return value.Length == 0 ? null : value;
        }

        public void Save(string name, string value)
        {
            try
            {
                if (value == null) PlayerPrefs.DeleteKey(name);
                else PlayerPrefs.SetString(name, value);
                _isChanged = true;
            }
            catch (PlayerPrefsException error)
            {
                // They are full (1 MB on the Web). What is kept in memory still works.
                Debug.LogException(error);
            }
        }

        public void Flush()
        {
            if (!_isChanged) return;
            _isChanged = false;
            PlayerPrefs.Save();
        }
    }
}
