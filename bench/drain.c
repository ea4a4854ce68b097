/* Drains a sock_diag dump of every TCP socket and does nothing with it: what a look costs at least.
 *
 * drain [TIMES]: prints, for each dump, its sockets and the milliseconds it took.
 * The same request and receive buffer as twbench/kernel/netlink.py has, without its filters.
 */
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

enum { STATES = (1 << 13) - 2, RECEIVE_BUFFER = 1 << 20 };

static char buffer[256 * 1024];

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

/* Returns the number of sockets, or -1 with errno set. */
static long drain(int fd)
{
    struct {
        struct nlmsghdr head;
        struct inet_diag_req body;
    } ask = {.head = {.nlmsg_len = sizeof ask,
                      .nlmsg_type = TCPDIAG_GETSOCK,
                      .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
             .body = {.idiag_states = STATES}};
    long sockets = 0;

    if (send(fd, &ask, sizeof ask, 0) < 0)
        return -1;
    for (;;) {
        ssize_t left = recv(fd, buffer, sizeof buffer, 0);

        if (left <= 0)
            return -1;
        for (struct nlmsghdr *at = (void *)buffer; NLMSG_OK(at, left); at = NLMSG_NEXT(at, left)) {
            if (at->nlmsg_type == NLMSG_DONE)
                return sockets;
            if (at->nlmsg_type == NLMSG_ERROR)
                return -1;
            sockets++;
        }
    }
}

int main(int argc, char **argv)
{
    int times = argc > 1 ? atoi(argv[1]) : 1, room = RECEIVE_BUFFER;
    int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG);

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room)) {
        perror("drain");
        return 1;
    }
    while (times-- > 0) {
        double started_ms = now_ms();
        long sockets = drain(fd);

        if (sockets < 0) {
            perror("drain");
            return 1;
        }
        printf("%ld %.4f\n", sockets, now_ms() - started_ms);
    }
    return 0;
}
