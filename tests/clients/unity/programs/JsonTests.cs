using System;
using Streamer;

internal static class JsonTests
{
    public static void Integers_of_64_bits_keep_every_digit()
    {
        JsonValue read = JsonValue.Parse("[9223372036854775807,-9223372036854775808,18446744073709551615]");

        Check.Equal(long.MaxValue, read[0].AsLong());
        Check.Equal(long.MinValue, read[1].AsLong());
        Check.Equal(ulong.MaxValue, read[2].AsULong());
        Check.Equal("[9223372036854775807,-9223372036854775808,18446744073709551615]", read.ToString());
    }

    public static void Numbers_keep_their_text()
    {
        Check.Equal("[1.0,1e3,-0,0.1]", JsonValue.Parse("[1.0, 1e3, -0, 0.1]").ToString());
        Check.Equal(1000.0, JsonValue.Parse("1e3").AsDouble());
        Check.Equal(7L, JsonValue.Parse("1.5").AsLong(7));
        Check.Equal(7L, JsonValue.Parse("18446744073709551616").AsLong(7));
    }

    public static void A_missing_member_is_another_thing_than_null()
    {
        JsonValue read = JsonValue.Parse("{\"a\":null}");

        Check.Equal(JsonKind.Null, read["a"].Kind);
        Check.Equal(JsonKind.Missing, read["b"].Kind);
        Check.Equal("otherwise", read["b"]["c"][3].AsString("otherwise"));
    }

    public static void The_last_of_two_members_with_one_name_counts()
    {
        Check.Equal(2L, JsonValue.Parse("{\"a\":1,\"a\":2}")["a"].AsLong());
    }

    public static void Strings_come_back_unchanged()
    {
        foreach (string text in new[] { "", "\"\\/\b\f\n\r\t", "é€😀", "\u0000\u001f\u007f", "\ud800", "a\udc00b" })
        {
            string written = JsonValue.Of(text).ToString();
            Check.Equal(text, JsonValue.Parse(written).AsString());
        }
        Check.Equal("😀/", JsonValue.Parse("\"\\ud83d\\ude00\\/\"").AsString());
    }

    public static void What_is_not_JSON_is_refused()
    {
        string[] wrong =
        {
            "", " ", "{", "[1,]", "{\"a\":1,}", "{a:1}", "'a'", "01", "1.", ".5", "+1", "1e", "-", "nul", "True",
            "\"", "\"\\x\"", "\"\\u12g4\"", "\"a\nb\"", "[1 2]", "{\"a\" 1}", "1 2", "NaN", "[", "\u00a01",
            "{\"a\":1", "\"\\", "[1}", "\ufeff1", "\u0663"
        };
        foreach (string text in wrong)
        {
            string copy = text;
            try
            {
                Check.Throws<JsonException>(delegate { JsonValue.Parse(copy); });
            }
            catch (Exception error)
            {
                throw new Exception(error.Message + " for " + text);
            }
        }
    }

    public static void Deep_values_are_read_and_too_deep_ones_refused()
    {
        string deep = new string('[', JsonValue.DepthMax) + new string(']', JsonValue.DepthMax);
        Check.Equal(deep, JsonValue.Parse(deep).ToString());

        string bomb = new string('[', 1000000);
        Check.Throws<JsonException>(delegate { JsonValue.Parse(bomb); });
    }

    public static void Missing_members_are_not_written()
    {
        JsonValue value = JsonValue.ObjectOf("a", JsonValue.Missing, "b", "x", "c", null);

        Check.Equal("{\"b\":\"x\",\"c\":null}", value.ToString());
    }
}
