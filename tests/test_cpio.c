/* SPDX-License-Identifier: MIT */
/* The newc archive writer: exact bytes, padding, and what it refuses. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "cpio.h"

#define HEADER 110u

struct archive {
    struct vmm_cpio cpio;
    struct vmm_err err;
    char bytes[8192];
    size_t size;
};

static int setup(void **state)
{
    struct archive *a = calloc(1, sizeof(*a));

    vmm_cpio_init(&a->cpio, memfd_create("test-cpio", MFD_CLOEXEC));
    *state = a;
    return a->cpio.fd < 0;
}

static int teardown(void **state)
{
    struct archive *a = *state;

    close(a->cpio.fd);
    free(a);
    return 0;
}

static void read_back(struct archive *a)
{
    a->size = (size_t)pread(a->cpio.fd, a->bytes, sizeof(a->bytes), 0);
}

/* Field `index` (0: inode ... 12: check) of the header at `at`. */
static unsigned long field(const struct archive *a, size_t at, unsigned index)
{
    char text[9] = "";

    memcpy(text, a->bytes + at + 6 + 8 * index, 8);
    return strtoul(text, NULL, 16);
}

enum field { INO, MODE, UID, GID, NLINK, MTIME, FILESIZE, NAMESIZE = 11, CHECK = 12 };

static void file_header_and_data(void **state)
{
    struct archive *a = *state;

    assert_int_equal(vmm_cpio_bytes(&a->cpio, "/a", 0640, "hello", 5, &a->err), 0);
    read_back(a);
    assert_memory_equal(a->bytes, "070701", 6);
    assert_int_equal(field(a, 0, MODE), S_IFREG | 0640);
    assert_int_equal(field(a, 0, UID), 0);
    assert_int_equal(field(a, 0, MTIME), 0);
    assert_int_equal(field(a, 0, NLINK), 1);
    assert_int_equal(field(a, 0, FILESIZE), 5);
    assert_int_equal(field(a, 0, NAMESIZE), 3);
    assert_int_equal(field(a, 0, CHECK), 0);
    assert_string_equal(a->bytes + HEADER, "/a");
    /* 110 + 3 ends on 116 with padding; 5 bytes of data end on 124. */
    assert_memory_equal(a->bytes + 116, "hello\0\0\0", 8);
    assert_int_equal(a->size, 124);
    assert_int_equal(a->cpio.size, 124);
}

static void every_name_length_ends_on_4(void **state)
{
    struct archive *a = *state;
    char name[] = "abcdefgh";

    for (size_t length = 1; length <= 8; length++) {
        assert_int_equal(vmm_cpio_bytes(&a->cpio, name + 8 - length, 0644, "x", 1, &a->err), 0);
        assert_int_equal(a->cpio.size % 4, 0);
    }
    assert_int_equal(vmm_cpio_end(&a->cpio, &a->err), 0);
    read_back(a);
    assert_int_equal(a->size, a->cpio.size);
    assert_int_equal(a->size % 4, 0);
}

static void inodes_differ(void **state)
{
    struct archive *a = *state;

    vmm_cpio_bytes(&a->cpio, "a", 0644, "", 0, &a->err);
    vmm_cpio_bytes(&a->cpio, "b", 0644, "", 0, &a->err);
    read_back(a);
    assert_int_not_equal(field(a, 0, INO), field(a, 112, INO));
}

static void parents_come_first(void **state)
{
    struct archive *a = *state;

    assert_int_equal(vmm_cpio_parents(&a->cpio, "/one/two/file", &a->err), 0);
    read_back(a);
    assert_string_equal(a->bytes + HEADER, "/one");
    assert_int_equal(field(a, 0, MODE), S_IFDIR | 0755);
    assert_int_equal(field(a, 0, NLINK), 2);
    assert_string_equal(a->bytes + 116 + HEADER, "/one/two");
    assert_int_equal(a->size, 116 + 120);
}

static void a_file_s_content(void **state)
{
    struct archive *a = *state;
    char path[64];
    int fd = memfd_create("test-cpio-source", MFD_CLOEXEC);

    assert_int_equal(write(fd, "content", 7), 7);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    assert_int_equal(vmm_cpio_file(&a->cpio, "/x", 0755, path, &a->err), 0);
    close(fd);
    read_back(a);
    assert_int_equal(field(a, 0, FILESIZE), 7);
    assert_memory_equal(a->bytes + 116, "content\0", 8);
    assert_int_equal(a->size, 124);
}

static void the_end_mark(void **state)
{
    struct archive *a = *state;

    assert_int_equal(vmm_cpio_end(&a->cpio, &a->err), 0);
    read_back(a);
    assert_string_equal(a->bytes + HEADER, "TRAILER!!!");
    assert_int_equal(a->size, 124);
}

static void refuses(struct archive *a, int result, const char *text)
{
    assert_int_equal(result, -1);
    assert_non_null(strstr(a->err.text, text));
}

static void refuses_bad_names(void **state)
{
    struct archive *a = *state;
    char name[VMM_CPIO_NAME_MAX + 16];

    memset(name, 'n', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    refuses(a, vmm_cpio_dir(&a->cpio, name, &a->err), "has 1039 characters");
    refuses(a, vmm_cpio_dir(&a->cpio, "", &a->err), "has 0 characters");
    name[sizeof(name) - 2] = '/';
    refuses(a, vmm_cpio_parents(&a->cpio, name, &a->err), "too long");
    assert_int_equal(a->cpio.size, 0);
}

static void refuses_bad_files(void **state)
{
    struct archive *a = *state;

    refuses(a, vmm_cpio_file(&a->cpio, "x", 0644, "/nonexistent", &a->err), "'/nonexistent'");
    refuses(a, vmm_cpio_file(&a->cpio, "x", 0644, "/dev", &a->err), "no regular file");
    refuses(a, vmm_cpio_file(&a->cpio, "x", 0644, "/dev/null", &a->err), "no regular file");
    assert_int_equal(a->cpio.size, 0);
}

static void refuses_what_the_format_cannot_hold(void **state)
{
    struct archive *a = *state;
    char path[64];
    int fd = memfd_create("test-cpio-source", MFD_CLOEXEC);

    assert_int_equal(ftruncate(fd, (off_t)UINT32_MAX + 1), 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    refuses(a, vmm_cpio_file(&a->cpio, "x", 0644, path, &a->err), "4 GiB");
    close(fd);
    assert_int_equal(a->cpio.size, 0);
}

static void reports_a_write_error(void **state)
{
    struct archive *a = *state;
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    struct vmm_cpio cpio;

    vmm_cpio_init(&cpio, full);
    refuses(a, vmm_cpio_dir(&cpio, "d", &a->err), "cannot write the archive");
    close(full);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(file_header_and_data),
        TEST(every_name_length_ends_on_4),
        TEST(inodes_differ),
        TEST(parents_come_first),
        TEST(a_file_s_content),
        TEST(the_end_mark),
        TEST(refuses_bad_names),
        TEST(refuses_bad_files),
        TEST(refuses_what_the_format_cannot_hold),
        TEST(reports_a_write_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
