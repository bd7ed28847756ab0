/*
 * Entries of a log as JSON: most of the work for a page, and for a reader that has missed
 * some of them.
 *
 * Called by entries.py and events.py, which do the same in Python if this was not
 * compiled. Knows nothing of Python. Input that it does not expect is left to the caller.
 * The layouts of an id and of a cursor are in tests/vectors/ids.json.
 */

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#define OFFSET_MAX UINT32_MAX
#define TAG_MAX ((UINT64_C(1) << 30) - 1)
#define AT_MS_MAX UINT64_C(253402300799999) /* The year 9999 has four digits. */
#define AT_US_MAX (AT_MS_MAX * 1000 + 999)

static char *put(char *out, const char *text, size_t size)
{
    memcpy(out, text, size);
    return out + size;
}

static char *put_char(char *out, char byte)
{
    *out = byte;
    return out + 1;
}

/* The last `digits` digits of a number, in a base of at most 16. */
static char *put_number(char *out, uint64_t number, unsigned base, int digits)
{
    for (int i = digits; i--; number /= base)
        out[i] = "0123456789abcdef"[number % base];
    return out + digits;
}

/* A time in RFC 3339 with milliseconds: 24 characters. */
static char *put_time(char *out, uint64_t at_ms)
{
    time_t seconds = (time_t)(at_ms / 1000);
    struct tm utc;

    gmtime_r(&seconds, &utc);
    out = put_char(put_number(out, (uint64_t)utc.tm_year + 1900, 10, 4), '-');
    out = put_char(put_number(out, (uint64_t)utc.tm_mon + 1, 10, 2), '-');
    out = put_char(put_number(out, (uint64_t)utc.tm_mday, 10, 2), 'T');
    out = put_char(put_number(out, (uint64_t)utc.tm_hour, 10, 2), ':');
    out = put_char(put_number(out, (uint64_t)utc.tm_min, 10, 2), ':');
    out = put_char(put_number(out, (uint64_t)utc.tm_sec, 10, 2), '.');
    return put_char(put_number(out, at_ms % 1000, 10, 3), 'Z');
}

/* The second half of an id. */
static uint64_t low_of(uint64_t offset, uint64_t tag)
{
    return UINT64_C(2) << 62 | offset << 30 | tag;
}

/* The id of an entry: a UUID of version 7, 36 characters. */
static char *put_id(char *out, uint64_t at_us, uint64_t offset, uint64_t tag)
{
    uint64_t ms = at_us / 1000, fraction = at_us % 1000 * 4096 / 1000;
    uint64_t low = low_of(offset, tag);

    out = put_char(put_number(out, ms >> 16, 16, 8), '-');
    out = put_char(put_number(out, ms, 16, 4), '-');
    out = put_number(put_char(out, '7'), fraction, 16, 3);
    out = put_char(put_number(put_char(out, '-'), low >> 48, 16, 4), '-');
    return put_number(out, low, 16, 12);
}

/* The beginning of an entry's JSON: 85 bytes. */
static char *put_head(char *out, uint64_t at_us, uint64_t offset, uint64_t tag)
{
    out = put_id(put(out, "{\"id\":\"", 7), at_us, offset, tag);
    out = put_time(put(out, "\",\"created_at\":\"", 16), at_us / 1000);
    return put(out, "\",", 2);
}

/* A position as base64 for URLs: 20 bytes, the epoch and the id, in 27 characters. */
static char *put_cursor(
    char *out, uint64_t epoch, uint64_t at_us, uint64_t offset, uint64_t tag)
{
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    uint64_t high = at_us / 1000 << 16 | 7 << 12 | at_us % 1000 * 4096 / 1000;
    uint64_t low = low_of(offset, tag);
    unsigned char bytes[21] = {0}; /* The last one completes the last digit. */

    for (int i = 0; i < 4; i++)
        bytes[i] = (unsigned char)(epoch >> (24 - 8 * i));
    for (int i = 0; i < 8; i++) {
        bytes[4 + i] = (unsigned char)(high >> (56 - 8 * i));
        bytes[12 + i] = (unsigned char)(low >> (56 - 8 * i));
    }
    for (int bit = 0; bit < 27 * 6; bit += 6) {
        unsigned two = (unsigned)bytes[bit / 8] << 8 | bytes[bit / 8 + 1];
        out = put_char(out, digits[two >> (10 - bit % 8) & 63]);
    }
    return out;
}

/*
 * Parse a decimal number of at most `max`, followed by the separator or the end of the
 * text. Returns the position after that, or NULL if there is no such number.
 */
static const char *parse(const char *text, char separator, uint64_t max, uint64_t *number)
{
    if (text == NULL || *text < '0' || *text > '9')
        return NULL;
    for (*number = 0; *text >= '0' && *text <= '9'; text++) {
        *number = *number * 10 + (uint64_t)(*text - '0');
        if (*number > max)
            return NULL;
    }
    if (*text == separator)
        return text + 1;
    return *text == '\0' ? text : NULL;
}

/*
 * Write `count` entries, separated by commas. `stream_ids` ("<at_us>-<offset>") and `tags`
 * (decimal) are separated by spaces. `fragments` are lines, `size` bytes in total; each
 * is the end of its entry. `read_at_ms` has the time of each read mark, 0 for none, and
 * may be NULL. An entry takes at most 124 bytes plus its fragment.
 *
 * Returns the number of bytes written, or -1 if an argument is not in this form.
 */
long streamer_join_entries(char *out, long count, const char *stream_ids,
    const char *tags, const char *fragments, size_t size, const int64_t *read_at_ms)
{
    const char *begin = out, *end = fragments + size;

    for (long i = 0; i < count; i++) {
        uint64_t at_us, offset, tag;
        const char *line;

        stream_ids = parse(stream_ids, '-', AT_US_MAX, &at_us);
        stream_ids = parse(stream_ids, ' ', OFFSET_MAX, &offset);
        tags = parse(tags, ' ', TAG_MAX, &tag);
        if (stream_ids == NULL || tags == NULL || fragments > end)
            return -1;
        line = memchr(fragments, '\n', (size_t)(end - fragments));
        if (line == NULL)
            line = end;
        if (i > 0)
            out = put_char(out, ',');
        out = put_head(out, at_us, offset, tag);
        out = put(out, fragments, (size_t)(line - fragments));
        if (read_at_ms != NULL && read_at_ms[i] != 0) {
            if (read_at_ms[i] < 0 || read_at_ms[i] > (int64_t)AT_MS_MAX)
                return -1;
            /* Replaces the closing brace. */
            out = put_time(put(out - 1, ",\"read_at\":\"", 12), (uint64_t)read_at_ms[i]);
            out = put(out, "\"}", 2);
        }
        fragments = line + 1;
    }
    /* All input has to be used: `fragments` is after the separator of the last line. */
    if (*stream_ids != '\0' || *tags != '\0' || fragments != end + 1)
        return -1;
    return out - begin;
}

/*
 * Write `count` events, one after the other: `before`, the cursor, `between`, the entry and
 * `after`. Without a cursor `between_size` is negative. `positions` has epoch, time, offset
 * and tag of each entry, `sizes` the size of each fragment. The sizes of an event's parts
 * are known to the caller: the cursor takes 27 bytes, and an entry 85 plus its fragment.
 *
 * Returns the number of bytes written, or -1 if a position cannot be written so.
 */
long streamer_write_events(char *out, long count, const uint64_t *positions,
    const char *fragments, const uint64_t *sizes, const char *before, long before_size,
    const char *between, long between_size, const char *after, long after_size)
{
    const char *begin = out;

    for (long i = 0; i < count; i++) {
        const uint64_t *at = positions + 4 * i;

        if (at[0] > UINT32_MAX || at[1] > AT_US_MAX || at[2] > OFFSET_MAX || at[3] > TAG_MAX)
            return -1;
        out = put(out, before, (size_t)before_size);
        if (between_size >= 0) {
            out = put_cursor(out, at[0], at[1], at[2], at[3]);
            out = put(out, between, (size_t)between_size);
        }
        out = put_head(out, at[1], at[2], at[3]);
        out = put(out, fragments, sizes[i]);
        out = put(out, after, (size_t)after_size);
        fragments += sizes[i];
    }
    return out - begin;
}
