/* Sends HTTP/1.1 requests at a given rate, also if responses are late, and measures the time of each.
 *
 *     paced PORT RATE SECONDS CONNECTIONS < request
 *
 * Requests are due at random times (exponential gaps, a fixed seed), as from many independent clients. Each request
 * uses a free kept connection. If no connection is free, the request waits. Latency counts from the time at which a
 * request was due, not from the time at which it was sent. Otherwise a server that stalls would delay the requests that
 * would have shown the stall (coordinated omission). The program has one thread, and allocates nothing during the
 * measurement.
 *
 * Prints `name value` lines: requests, errors, seconds, p50, p99, p999 and max in microseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST_CONNECTIONS = 4096, BUFFER = 1 << 16 };
static const double PATIENCE = 10; /* seconds for the last responses */

struct connection {
    int fd;
    int busy;
    double due;    /* time at which the running request was due */
    size_t filled; /* received bytes of the response */
    char response[BUFFER];
};

static struct sockaddr_in server;
static struct connection *connections;
static int *idle; /* a ring, so that all connections are used in turn */
static int count, first_idle, idle_count, epoll;
static char request[BUFFER];
static size_t request_size;
static unsigned long errors;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

/* Returns a random number in (0, 1], by xorshift64*. */
static double chance(void) {
    static unsigned long long state = 88172645463325252ULL;
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return ((state * 2685821657736338717ULL >> 11) + 1) / 9007199254740992.0;
}

static void make_idle(int which) {
    connections[which].busy = 0;
    connections[which].filled = 0;
    idle[(first_idle + idle_count++) % count] = which;
}

static void open_connection(int which) {
    struct connection *it = &connections[which];
    int on = 1;
    it->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (it->fd < 0 || connect(it->fd, (struct sockaddr *)&server, sizeof server)) fail("connect");
    setsockopt(it->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = which};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, it->fd, &event)) fail("epoll_ctl");
}

/* Opens a connection again. A running request is lost. The server may close an idle connection at any time. */
static void reopen(int which) {
    struct connection *it = &connections[which];
    int was_busy = it->busy;
    close(it->fd);
    open_connection(which);
    if (was_busy) {
        errors++;
        make_idle(which);
    }
}

static void send_request(double due) {
    int which = idle[first_idle];
    struct connection *it = &connections[which];
    first_idle = (first_idle + 1) % count;
    idle_count--;
    it->busy = 1;
    it->due = due;
    if (send(it->fd, request, request_size, MSG_NOSIGNAL) != (ssize_t)request_size) reopen(which);
}

/* Returns the size of the response, or 0 if its header is not complete. Sets `closes` if the server closes. */
static size_t response_size(struct connection *it, int *closes) {
    it->response[it->filled] = 0;
    char *end = strstr(it->response, "\r\n\r\n");
    if (!end) return 0;
    *end = 0;
    char *length = strcasestr(it->response, "\r\ncontent-length:");
    *closes = strcasestr(it->response, "\r\nconnection: close") != NULL;
    *end = '\r';
    if (!length) {
        fprintf(stderr, "a response without Content-Length: %.300s\n", it->response);
        exit(1);
    }
    return end + 4 - it->response + strtoul(length + 17, NULL, 10);
}

/* Receives data. Returns whether it completes a response with status 200. */
static int receive(int which) {
    struct connection *it = &connections[which];
    ssize_t got = recv(it->fd, it->response + it->filled, BUFFER - 1 - it->filled, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return 0;
    if (got <= 0 || !it->busy) {
        reopen(which);
        return 0;
    }
    it->filled += got;
    int closes = 0;
    size_t size = response_size(it, &closes);
    if (!size || it->filled < size) return 0;
    int right = !strncmp(it->response, "HTTP/1.1 200", 12);
    errors += !right;
    it->busy = 0;
    if (closes) reopen(which);
    make_idle(which);
    return right;
}

static int ascending(const void *one, const void *other) {
    float a = *(const float *)one, b = *(const float *)other;
    return (a > b) - (a < b);
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "paced PORT RATE SECONDS CONNECTIONS < request\n");
        return 2;
    }
    double rate = atof(argv[2]), seconds = atof(argv[3]);
    count = atoi(argv[4]);
    if (rate <= 0 || seconds <= 0 || count < 1 || count > MOST_CONNECTIONS) {
        fprintf(stderr, "paced: a number is not positive, or there are more than %d connections\n", MOST_CONNECTIONS);
        return 2;
    }
    server = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    request_size = fread(request, 1, sizeof request, stdin);
    prctl(PR_SET_TIMERSLACK, 1UL);
    size_t most = rate * seconds * 2 + 1000, due_count = 0, sent = 0, done = 0;
    double *due = malloc(most * sizeof *due);
    float *latencies = malloc(most * sizeof *latencies);
    connections = calloc(count, sizeof *connections);
    idle = calloc(count, sizeof *idle);
    epoll = epoll_create1(0);
    if (!due || !latencies || !connections || !idle || epoll < 0) fail("start");
    for (int which = 0; which < count; which++) {
        open_connection(which);
        make_idle(which);
    }

    double start = now();
    for (double at = start;;) {
        at -= log(chance()) / rate;
        if (at - start > seconds || due_count == most) break;
        due[due_count++] = at;
    }
    while (done + errors < due_count) {
        double time = now();
        while (sent < due_count && due[sent] <= time && idle_count) send_request(due[sent++]);
        if (time - start > seconds + PATIENCE) break;
        double pause = sent < due_count && idle_count ? due[sent] - now() : 1;
        if (pause < 0) pause = 0;
        struct timespec wait = {.tv_sec = (time_t)pause, .tv_nsec = (pause - (time_t)pause) * 1e9};
        struct epoll_event events[256];
        int ready = epoll_pwait2(epoll, events, 256, &wait, NULL);
        if (ready < 0 && errno != EINTR) fail("epoll_pwait2");
        for (int each = 0; each < ready; each++) {
            int which = events[each].data.u32;
            double began = connections[which].due;
            if (receive(which)) latencies[done++] = (now() - began) * 1e6;
        }
    }
    errors = due_count - done;
    if (!done) {
        fprintf(stderr, "no response\n");
        return 1;
    }
    qsort(latencies, done, sizeof *latencies, ascending);
    printf("requests %zu\nerrors %lu\nseconds %f\n", done, errors, now() - start);
    printf("p50 %.1f\np99 %.1f\n", latencies[(size_t)(done * 0.5)], latencies[(size_t)(done * 0.99)]);
    printf("p999 %.1f\nmax %.1f\n", latencies[(size_t)(done * 0.999)], latencies[done - 1]);
    return 0;
}
