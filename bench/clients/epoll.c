/* The practical limit: the same exchange with epoll in C and nothing around it.
 *
 *     epoll ADDRESS PORT USERS SECONDS
 *
 * USERS connections at a time, one request on each: socket, connect, send when it is writable, read
 * when there is something, close, and the next. The first answers are read to their end; a later one
 * of the same length is over when the FIN is there too (EPOLLRDHUP), without a read that returns 0.
 * An answer that does not begin with "HTTP/1.1 200" or a call that fails is an error. Prints one line
 * of JSON: connections, errors, and from the first connect to the last close seconds and cpu_seconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { AT_ONCE = 256, BUFFER = 4096 };
static const char good[] = "HTTP/1.1 200";

struct user {
    int fd;
    bool sent;
    bool answered;
    size_t got;
};

static int poller;
static struct sockaddr_in server;
static char request[256], buffer[BUFFER];
static size_t length, whole; /* of the request, and of an answer that was read to its end */
static long connections, errors;

static double now_s(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void begin(struct user *user)
{
    /* edge-triggered: one epoll_ctl a connection */
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                .data.ptr = user};

    user->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (user->fd < 0)
        die("socket");
    user->sent = user->answered = false;
    user->got = 0;
    if (connect(user->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS)
        die("connect");
    if (epoll_ctl(poller, EPOLL_CTL_ADD, user->fd, &event) < 0)
        die("epoll_ctl");
}

/* Return whether the connection is over. */
static bool go_on(struct user *user, uint32_t events)
{
    if (!user->sent) {
        user->sent = send(user->fd, request, length, MSG_NOSIGNAL) == (ssize_t)length;
        return !user->sent;
    }
    for (;;) {
        if (whole && user->got == whole && (events & (EPOLLRDHUP | EPOLLERR)) == EPOLLRDHUP)
            return true;
        const ssize_t got = recv(user->fd, buffer, sizeof buffer, 0);
        if (got < 0 && errno == EAGAIN)
            return false;
        if (got < 0)
            user->answered = false;
        if (got == 0 && user->answered)
            whole = user->got;
        if (got <= 0)
            return true;
        if (got >= (ssize_t)sizeof good - 1 && memcmp(buffer, good, sizeof good - 1) == 0)
            user->answered = true;
        user->got += (size_t)got;
        /* nothing is left in the socket: what comes next is another event */
        if (got < (ssize_t)sizeof buffer && !(events & EPOLLRDHUP))
            return false;
    }
}

int main(int count, char **words)
{
    if (count != 5)
        return 2;
    const int port = atoi(words[2]), users = atoi(words[3]);
    const double span_s = atof(words[4]);
    struct user *all = calloc((size_t)users, sizeof *all);
    struct epoll_event events[AT_ONCE];
    int left = users;

    server.sin_family = AF_INET;
    server.sin_port = htons((uint16_t)port);
    if (all == NULL || inet_pton(AF_INET, words[1], &server.sin_addr) != 1)
        return 2;
    length = (size_t)snprintf(request, sizeof request,
                              "GET / HTTP/1.1\r\nHost: %s:%d\r\nUser-Agent: epoll\r\n"
                              "Connection: close\r\n\r\n",
                              words[1], port);
    if ((poller = epoll_create1(0)) < 0)
        die("epoll_create1");

    const double start_s = now_s(CLOCK_MONOTONIC), cpu_s = now_s(CLOCK_PROCESS_CPUTIME_ID);
    for (int i = 0; i < users; i++)
        begin(&all[i]);
    while (left > 0) {
        const int found = epoll_wait(poller, events, AT_ONCE, -1);
        const bool over = now_s(CLOCK_MONOTONIC) - start_s >= span_s;
        for (int i = 0; i < found; i++) {
            struct user *user = events[i].data.ptr;
            if (!go_on(user, events[i].events))
                continue;
            connections += user->answered;
            errors += !user->answered;
            close(user->fd);
            if (over)
                left--;
            else
                begin(user);
        }
    }
    printf("{\"connections\": %ld, \"errors\": %ld, \"seconds\": %.6f, \"cpu_seconds\": %.6f}\n",
           connections, errors, now_s(CLOCK_MONOTONIC) - start_s,
           now_s(CLOCK_PROCESS_CPUTIME_ID) - cpu_s);
    return 0;
}
