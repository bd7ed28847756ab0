using System;
using System.IO;
using System.Security.Cryptography;
using System.Text;
using Streamer.Net;

internal static class FrameTests
{
    private static readonly RandomNumberGenerator Random = RandomNumberGenerator.Create();

    public static void The_accept_header_is_that_of_the_standard()
    {
        Check.Equal("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", WebSocketFrames.AcceptOf("dGhlIHNhbXBsZSBub25jZQ=="));
    }

    public static void Frames_of_all_sizes_are_masked_and_complete()
    {
        foreach (int size in new[] { 0, 1, 125, 126, 65535, 65536, 70000 })
        {
            var stream = new MemoryStream();
            var payload = new byte[size];
            for (int i = 0; i < size; i++) payload[i] = (byte)i;
            new WebSocketFrames(stream).Write(WebSocketFrames.Text, payload, Random);
            byte[] frame = stream.ToArray();
            Check.Equal(0x81, (int)frame[0]);
            Check.True((frame[1] & 0x80) != 0, "masked");
            int at = (frame[1] & 0x7f) < 126 ? 2 : (frame[1] & 0x7f) == 126 ? 4 : 10;
            Check.Equal(at + 4 + size, frame.Length);
            for (int i = 0; i < size; i++)
                Check.Equal((int)payload[i], frame[at + 4 + i] ^ frame[at + (i & 3)]);
        }
    }

    public static void A_message_in_fragments_with_a_ping_between_is_read()
    {
        string control = "";
        byte[] payload;
        int code = Frames(0x01, "ab", 0x89, "p", 0x00, "", 0x80, "c").Read(
            out payload, delegate (int one, byte[] bytes) { control += one + Encoding.UTF8.GetString(bytes); });

        Check.Equal(WebSocketFrames.Text, code);
        Check.Equal("abc 9p", Encoding.UTF8.GetString(payload) + " " + control);
    }

    public static void Wrong_frames_are_refused()
    {
        byte[][] wrong =
        {
            new byte[] { 0x81, 0x81, 0, 0, 0, 0, 0 }, new byte[] { 0xc1, 0 }, new byte[] { 0x80, 0 },
            new byte[] { 0x09, 0 }, new byte[] { 0x89, 126, 0, 126 },
            new byte[] { 0x82, 127, 0, 0, 0, 0, 0x7f, 0, 0, 0 },
            new byte[] { 0x82, 127, 0xff, 0, 0, 0, 0, 0, 0, 0 }, new byte[] { 0x01, 0, 0x01, 0 },
            new byte[] { 0x83, 0 }, new byte[] { 0x8b, 0 }
        };
        foreach (byte[] bytes in wrong)
        {
            var frames = new WebSocketFrames(new MemoryStream(bytes));
            byte[] payload;
            Check.Throws<WebSocketException>(delegate { frames.Read(out payload, null); });
        }
        Check.Throws<WebSocketException>(delegate { WebSocketFrames.Decode(new byte[] { 0xff }); });
    }

    public static void A_lost_connection_within_a_frame_is_noticed()
    {
        byte[] payload;
        var frames = new WebSocketFrames(new MemoryStream(new byte[] { 0x81, 5, 65 }));
        Check.Throws<EndOfStreamException>(delegate { frames.Read(out payload, null); });
    }

    /// <summary>Return a reader of frames: first bytes and payloads in turn.</summary>
    private static WebSocketFrames Frames(params object[] parts)
    {
        var stream = new MemoryStream();
        for (int i = 0; i < parts.Length; i += 2)
        {
            byte[] payload = Encoding.UTF8.GetBytes((string)parts[i + 1]);
            stream.WriteByte((byte)(int)parts[i]);
            stream.WriteByte((byte)payload.Length);
            stream.Write(payload, 0, payload.Length);
        }
        stream.Position = 0;
        return new WebSocketFrames(stream);
    }
}
