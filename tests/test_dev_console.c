/* SPDX-License-Identifier: MIT */
/*
 * The console between a guest's serial port and host descriptors, the escape sequence, and the
 * terminal's raw mode (on a pseudo-terminal, in a child process).
 */
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "dev_fixture.h"

#include "dev_console.h"

#define DATA 0x3f8
#define LSR  0x3fd

struct console_fixture {
    struct fixture fix;
    struct vmm_serial serial;
    struct vmm_console console;
    int in[2];
    int out[2];
    unsigned quits; /* guarded by the device lock */
};

static void on_power(void *ctx, enum vmm_power_request request, int code)
{
    struct console_fixture *f = ctx;

    (void)code;
    f->quits += request == VMM_POWER_QUIT;
}

static void ignore_gsi(void *ctx, unsigned gsi, bool level)
{
    (void)ctx;
    (void)gsi;
    (void)level;
}

static void start(struct console_fixture *f, int in_fd, int out_fd)
{
    struct vmm_serial_backend backend;

    memset(f, 0, sizeof(*f));
    vmm_env_init(&f->fix.env);
    f->fix.env.loop = &f->fix.loop;
    f->fix.env.ports = &f->fix.ports;
    f->fix.env.irq = (struct vmm_irq_sink){f, ignore_gsi};
    f->fix.env.power = (struct vmm_power){f, on_power};
    vmm_bus_init(&f->fix.ports, VMM_BUS_LAST_PORT);
    assert_int_equal(vmm_evloop_init(&f->fix.loop, &vmm_clock_host), 0);
    assert_int_equal(pipe(f->in), 0);
    assert_int_equal(pipe(f->out), 0);
    vmm_console_init(&f->console, &f->fix.env, &f->serial, in_fd == -2 ? f->in[0] : in_fd,
                     out_fd == -2 ? f->out[1] : out_fd, true);
    backend = vmm_console_backend(&f->console);
    assert_int_equal(vmm_serial_init(&f->serial, &f->fix.env, DATA, 4, &backend), 0);
    assert_int_equal(vmm_evloop_start(&f->fix.loop), 0);
    assert_int_equal(vmm_console_start(&f->console), 0);
}

static int setup(void **state)
{
    struct console_fixture *f = malloc(sizeof(*f));

    assert_non_null(f);
    start(f, -2, -2);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct console_fixture *f = *state;

    vmm_console_stop(&f->console, 0);
    vmm_evloop_fini(&f->fix.loop);
    for (unsigned i = 0; i < 2; i++) {
        if (f->in[i] >= 0)
            close(f->in[i]);
        if (f->out[i] >= 0)
            close(f->out[i]);
    }
    free(f);
    return 0;
}

/* The guest polls for a byte; -1 after some seconds. */
static int guest_get(struct console_fixture *f)
{
    for (unsigned i = 0; i < 20000; i++) {
        if (in8(&f->fix, LSR) & 1)
            return in8(&f->fix, DATA);
        usleep(1000);
    }
    return -1;
}

/* The guest writes a byte when the port lets it; false after some seconds. */
static bool guest_put(struct console_fixture *f, uint8_t byte)
{
    for (unsigned i = 0; i < 20000; i++) {
        if (in8(&f->fix, LSR) & 0x20) {
            out8(&f->fix, DATA, byte);
            return true;
        }
        usleep(1000);
    }
    return false;
}

static void test_input_and_output(void **state)
{
    struct console_fixture *f = *state;
    char text[8];
    size_t len = 0;

    assert_int_equal(write(f->in[1], "ls\r", 3), 3);
    assert_int_equal(guest_get(f), 'l');
    assert_int_equal(guest_get(f), 's');
    assert_int_equal(guest_get(f), '\r');
    for (const char *p = "prompt#"; *p; p++)
        assert_true(guest_put(f, (uint8_t)*p));
    while (len < 7) {
        ssize_t got = read(f->out[0], text + len, 7 - len);

        assert_true(got > 0);
        len += (size_t)got;
    }
    assert_memory_equal(text, "prompt#", 7);
}

/* Far more than queue and pipe hold: every byte arrives, once and in order. */
static void *write_stream(void *arg)
{
    struct console_fixture *f = arg;

    for (unsigned i = 0; i < 50000; i++) {
        uint8_t byte = (uint8_t)('a' + i % 23);

        if (write(f->in[1], &byte, 1) != 1)
            return NULL;
    }
    return f;
}

static void test_long_input(void **state)
{
    struct console_fixture *f = *state;
    pthread_t thread;
    void *done;

    assert_int_equal(pthread_create(&thread, NULL, write_stream, f), 0);
    usleep(50000); /* let it run into the back-pressure */
    for (unsigned i = 0; i < 50000; i++)
        assert_int_equal(guest_get(f), 'a' + i % 23);
    assert_int_equal(pthread_join(thread, &done), 0);
    assert_ptr_equal(done, f);
}

/* Nobody reads for a while: the guest is held back, and in the end nothing is missing. */
static void *read_stream(void *arg)
{
    struct console_fixture *f = arg;
    static uint8_t data[4096];
    unsigned total = 0;

    usleep(100000);
    while (total < 300000) {
        ssize_t got = read(f->out[0], data, sizeof(data));

        if (got <= 0)
            return NULL;
        for (ssize_t i = 0; i < got; i++) {
            if (data[i] != (uint8_t)('a' + total++ % 23))
                return NULL;
        }
    }
    return f;
}

static void test_long_output(void **state)
{
    struct console_fixture *f = *state;
    pthread_t thread;
    void *done;

    assert_int_equal(pthread_create(&thread, NULL, read_stream, f), 0);
    for (unsigned i = 0; i < 300000; i++)
        assert_true(guest_put(f, (uint8_t)('a' + i % 23)));
    assert_int_equal(pthread_join(thread, &done), 0);
    assert_ptr_equal(done, f);
}

static void test_stop_writes_out(void **state)
{
    struct console_fixture *f = *state;
    char text[4] = {0};

    out8(&f->fix, DATA, 'b');
    out8(&f->fix, DATA, 'y');
    out8(&f->fix, DATA, 'e');
    assert_true(vmm_console_stop(&f->console, 20000));
    assert_int_equal(read(f->out[0], text, 3), 3);
    assert_string_equal(text, "bye");
}

/* The reader is stuck: stopping gives up after its time, and does not hang. */
static void test_stop_stuck(void **state)
{
    struct console_fixture *f = *state;

    for (unsigned i = 0; i < 200000; i++)
        out8(&f->fix, DATA, 'x');
    assert_int_equal(in8(&f->fix, LSR) & 0x20, 0);
    assert_false(vmm_console_stop(&f->console, 50));
}

static void test_output_closed(void **state)
{
    struct console_fixture *f = *state;

    signal(SIGPIPE, SIG_DFL); /* the output thread must not die of it */
    close(f->out[0]);
    f->out[0] = -1;
    for (unsigned i = 0; i < 200000; i++)
        assert_true(guest_put(f, 'x'));
    assert_true(vmm_console_stop(&f->console, 20000));
}

static void test_end_of_input(void **state)
{
    struct console_fixture *f = *state;

    assert_int_equal(write(f->in[1], "z", 1), 1);
    close(f->in[1]);
    f->in[1] = -1;
    assert_int_equal(guest_get(f), 'z');
    usleep(20000);
    fix_lock(&f->fix);
    assert_false(f->console.watching);
    fix_unlock(&f->fix);
    assert_true(guest_put(f, 'x'));
}

static void test_no_input(void **state)
{
    struct console_fixture *f = malloc(sizeof(*f));
    int null_fd = open("/dev/null", O_RDWR);

    (void)state;
    assert_non_null(f);
    start(f, null_fd, null_fd);
    assert_true(guest_put(f, 'x'));
    assert_true(vmm_console_stop(&f->console, 20000));
    teardown((void **)&f);
    close(null_fd);
}

static void test_quit(void **state)
{
    struct console_fixture *f = *state;
    unsigned quits = 0;

    assert_int_equal(write(f->in[1], "a\001\001b\001", 5), 5);
    assert_int_equal(guest_get(f), 'a');
    assert_int_equal(guest_get(f), 1);
    assert_int_equal(guest_get(f), 'b');
    assert_int_equal(write(f->in[1], "x", 1), 1);
    for (unsigned i = 0; i < 20000 && !quits; i++) {
        usleep(1000);
        fix_lock(&f->fix);
        quits = f->quits;
        fix_unlock(&f->fix);
    }
    assert_int_equal(quits, 1);
}

/* ---- the escape sequence ---- */

static void test_escape_filter(void **state)
{
    static const struct {
        const char *in, *out;
        bool quit, pending;
    } rows[] = {
        {"plain", "plain", false, false},      {"", "", false, false},
        {"a\001", "a", false, true},           {"\001x", "", true, true},
        {"ab\001xcd", "ab", true, true},       {"ab\001Xcd", "ab", true, true},
        {"\001\001", "\001", false, false},    {"\001\001x", "\001x", false, false},
        {"\001\001\001x", "\001", true, true}, {"\001qx", "x", false, false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        /* Whole, and cut between any two bytes. */
        for (size_t cut = 0; cut <= strlen(rows[i].in); cut++) {
            struct vmm_escape escape = {0};
            uint8_t data[16];
            size_t len = strlen(rows[i].in);
            size_t kept;
            bool quit;

            memcpy(data, rows[i].in, len);
            kept = vmm_escape_filter(&escape, data, cut, &quit);
            if (!quit) {
                memmove(data + kept, data + cut, len - cut);
                kept += vmm_escape_filter(&escape, data + kept, len - cut, &quit);
            }
            assert_int_equal(quit, rows[i].quit);
            assert_int_equal(escape.pending, rows[i].pending);
            assert_int_equal(kept, strlen(rows[i].out));
            assert_memory_equal(data, rows[i].out, kept);
        }
    }
}

/* ---- raw mode ---- */

static bool is_raw(int fd)
{
    struct termios mode;

    assert_int_equal(tcgetattr(fd, &mode), 0);
    return !(mode.c_lflag & (ICANON | ECHO | ISIG)) && (mode.c_oflag & OPOST);
}

enum ending { END_LEAVE, END_EXIT, END_KILL, END_ABORT };

static void child(int ready_fd, enum ending ending)
{
    bool entered;

    /* Whoever runs the tests may ignore them: nohup does. */
    signal(SIGHUP, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    entered = vmm_term_enter(0);
    if (write(ready_fd, entered ? "y" : "n", 1) != 1)
        _exit(1);
    if (ending == END_LEAVE) {
        vmm_term_leave();
        vmm_term_leave();
        _exit(0);
    }
    if (ending == END_EXIT)
        exit(0);
    if (ending == END_ABORT)
        abort();
    pause();
    _exit(1);
}

/* However the process ends, the terminal is as it was. */
static void test_raw_mode(void **state)
{
    static const int endings[][2] = {
        {END_LEAVE, 0},     {END_EXIT, 0},        {END_KILL, SIGTERM},
        {END_KILL, SIGHUP}, {END_ABORT, SIGABRT},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(endings); i++) {
        int ready[2];
        int master;
        int status;
        char answer = 0;
        pid_t pid;

        assert_int_equal(pipe(ready), 0);
        pid = forkpty(&master, NULL, NULL, NULL);
        assert_true(pid >= 0);
        if (pid == 0)
            child(ready[1], (enum ending)endings[i][0]);
        assert_int_equal(read(ready[0], &answer, 1), 1);
        assert_int_equal(answer, 'y');
        if (endings[i][0] == END_KILL) {
            assert_true(is_raw(master));
            kill(pid, endings[i][1]);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (endings[i][1])
            assert_int_equal(WTERMSIG(status), endings[i][1]);
        else
            assert_int_equal(status, 0);
        assert_false(is_raw(master));
        close(master);
        close(ready[0]);
        close(ready[1]);
    }
}

static void test_not_a_terminal(void **state)
{
    int fds[2];

    (void)state;
    assert_int_equal(pipe(fds), 0);
    assert_false(vmm_term_enter(fds[0]));
    assert_false(vmm_term_enter(-1));
    vmm_term_leave();
    close(fds[0]);
    close(fds[1]);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_input_and_output),
        T(test_long_input),
        T(test_long_output),
        T(test_stop_writes_out),
        T(test_stop_stuck),
        T(test_output_closed),
        T(test_end_of_input),
        cmocka_unit_test(test_no_input),
        T(test_quit),
        cmocka_unit_test(test_escape_filter),
        cmocka_unit_test(test_raw_mode),
        cmocka_unit_test(test_not_a_terminal),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
