/* The floor of a fan-out: one epoll loop, one frame, send() to everybody.
 * A request with "Upgrade" makes a WebSocket reader, any other GET an SSE reader; what
 * is POSTed goes to all of them. Requests are expected to arrive in one piece. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READERS_MAX = 1 << 20, REQUEST_MAX = 1 << 16 };
static int readers[READERS_MAX];
static char is_sse[READERS_MAX]; /* by descriptor */
static int count;
static char request[REQUEST_MAX + 1], frame[REQUEST_MAX], event[REQUEST_MAX + 64];

static void reply(int fd, const char *text) { send(fd, text, strlen(text), MSG_NOSIGNAL); }

static void leave(int fd) {
    for (int i = 0; i < count; i++)
        if (readers[i] == fd) { readers[i] = readers[--count]; break; }
    close(fd);
}

static void broadcast(const char *text, size_t size) {
    size_t head = 2;
    frame[0] = (char)0x81; /* a final text frame */
    if (size < 126) frame[1] = (char)size;
    else { frame[1] = 126; frame[2] = (char)(size >> 8); frame[3] = (char)size; head = 4; }
    memcpy(frame + head, text, size);
    int chunk = sprintf(event, "%zx\r\ndata: %.*s\n\n\r\n", size + 8, (int)size, text);
    for (int i = 0; i < count; i++) {
        int fd = readers[i];
        if (is_sse[fd]) send(fd, event, (size_t)chunk, MSG_DONTWAIT | MSG_NOSIGNAL);
        else send(fd, frame, head + size, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
}

int main(int argc, char **argv) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0), epoll = epoll_create1(0);
    at.sin_port = htons((unsigned short)atoi(argv[argc - 1]));
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 4096)) return 1;
    struct epoll_event new = {.events = EPOLLIN, .data.fd = listener}, events[256];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &new);
    for (;;) {
        int ready = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                new.data.fd = accept(listener, NULL, NULL);
                setsockopt(new.data.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                epoll_ctl(epoll, EPOLL_CTL_ADD, new.data.fd, &new);
                continue;
            }
            ssize_t size = recv(fd, request, REQUEST_MAX, 0);
            if (size <= 0) { leave(fd); continue; }
            request[size] = 0;
            char *body = strstr(request, "\r\n\r\n");
            if (!body) continue;
            if (!strncmp(request, "POST", 4)) {
                broadcast(body + 4, (size_t)(request + size - body - 4));
                reply(fd, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
            } else if (count < READERS_MAX) {
                is_sse[fd] = !strstr(request, "Upgrade");
                readers[count++] = fd;
                reply(fd, is_sse[fd] ? "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                    : "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
            }
        }
    }
}
