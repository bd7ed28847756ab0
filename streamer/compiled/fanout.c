/*
 * One event to many sockets: the loop that a fan-out consists of.
 *
 * Called by fanout.py, which does the same in Python where this could not be compiled.
 * Knows nothing of Python; Python lets go of its lock while this runs. Nothing here
 * waits: what a socket does not take at once is for the caller to see to.
 */

#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>

#ifndef MSG_NOSIGNAL /* Not on macOS, where Python has SIGPIPE ignored. */
#define MSG_NOSIGNAL 0
#endif

/*
 * Send `size` bytes, fewer than 2^31, to each of `count` sockets, all but those with
 * negative numbers. In place of its number comes how much each has taken: 0 where that
 * was none, for whatever reason. Returns how many have taken all of it.
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
