/*
 * One event to many sockets: the inner loop of a fan-out.
 *
 * Called by fanout.py, which does the same in Python if this was not compiled. Knows
 * nothing of Python, which releases its lock while this runs. Nothing here waits; the
 * caller handles what a socket does not accept at once.
 */

#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>

#ifndef MSG_NOSIGNAL /* macOS has none; Python ignores SIGPIPE. */
#define MSG_NOSIGNAL 0
#endif

/*
 * Send `size` bytes, fewer than 2^31, to each of `count` sockets, except negative ones.
 * Overwrites each descriptor with the number of bytes that the socket has accepted, 0
 * after an error. Returns how many sockets have accepted all bytes.
 */
long streamer_send_to_all(int *sockets, long count, const char *event, size_t size)
{
    long whole = 0;

    for (long i = 0; i < count; i++) {
        ssize_t sent = 0;

        if (sockets[i] >= 0)
            sent = send(sockets[i], event, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        whole += sent == (ssize_t)size;
        sockets[i] = sent > 0 ? (int)sent : 0;
    }
    return whole;
}
