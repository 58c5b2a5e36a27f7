/* SPDX-License-Identifier: MIT */
/*
 * Where the rig's parts lie; see rig_host.h. The modules belong to one kernel release, which a
 * kernel image tells in its setup header [Linux boot protocol, kernel_version].
 */
#include "rig_host.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define QEMU_NAME         "qemu-system-x86_64"

#define SETUP_MAGIC_AT    0x202u
#define SETUP_VERSION_AT  0x20eu
#define SETUP_STRING_BASE 0x200u
#define SETUP_MAX         0x8000u
#define RELEASE_MAX       128u

static const char *nonempty_env(const char *name)
{
    const char *value = getenv(name);

    return value && *value ? value : NULL;
}

static int join(char out[PATH_MAX], const char *dir, const char *name, struct vmm_err *err)
{
    int length = snprintf(out, PATH_MAX, "%s/%s", dir, name);

    if (length < 0 || length >= PATH_MAX)
        return vmm_fail(err, "rig: the path '%.60s...' is too long", dir);
    return 0;
}

/* The first executable `name` on PATH; a name with a slash stands for itself. */
static int find_program(char out[PATH_MAX], const char *name)
{
    const char *path = nonempty_env("PATH");
    struct vmm_err ignored;

    if (strchr(name, '/')) {
        snprintf(out, PATH_MAX, "%s", name);
        return access(out, X_OK);
    }
    while (path && *path) {
        size_t length = strcspn(path, ":");
        char dir[PATH_MAX];

        if (length > 0 && length < sizeof(dir)) {
            memcpy(dir, path, length);
            dir[length] = '\0';
            if (join(out, dir, name, &ignored) == 0 && access(out, X_OK) == 0)
                return 0;
        }
        path += length;
        path += *path == ':';
    }
    errno = ENOENT;
    return -1;
}

static int find_qemu(struct vmm_rig_host *host, struct vmm_err *err)
{
    const char *chosen = nonempty_env("VAPIC_RIG_QEMU");

    if (find_program(host->qemu, chosen ? chosen : QEMU_NAME) == 0)
        return 0;
    if (chosen)
        return vmm_fail(err, "rig: VAPIC_RIG_QEMU: cannot execute '%.200s': %s", chosen,
                        strerror(errno));
    return vmm_fail(err,
                    "rig: %s is not installed: apt-get install qemu-system-x86 "
                    "(or run 'make build')",
                    QEMU_NAME);
}

/* The release a kernel image carries: the first word of its version string. */
static int parse_release(const unsigned char *setup, size_t size, char release[RELEASE_MAX])
{
    size_t at, length;

    if (size < SETUP_VERSION_AT + 2 || memcmp(setup + SETUP_MAGIC_AT, "HdrS", 4) != 0)
        return -1;
    at = SETUP_STRING_BASE + setup[SETUP_VERSION_AT] + 256u * setup[SETUP_VERSION_AT + 1];
    if (at == SETUP_STRING_BASE || at >= size)
        return -1;
    for (length = 0; at + length < size; length++) {
        unsigned char c = setup[at + length];

        if (c <= ' ' || c == '/' || c > '~')
            break;
    }
    if (length == 0 || length >= RELEASE_MAX || at + length == size)
        return -1;
    memcpy(release, setup + at, length);
    release[length] = '\0';
    return 0;
}

static int read_release(const char *kernel, char release[RELEASE_MAX], struct vmm_err *err)
{
    unsigned char setup[SETUP_MAX];
    int fd = open(kernel, O_RDONLY | O_CLOEXEC);
    ssize_t size;

    if (fd < 0 && errno == ENOENT)
        return vmm_fail(err,
                        "rig: there is no host kernel '%.160s': run 'make build', for another "
                        "suite's 'tools/deps.sh --suite SUITE', or set VAPIC_RIG_DIR",
                        kernel);
    if (fd < 0)
        return vmm_fail(err, "rig: cannot read the host kernel '%.200s': %s", kernel,
                        strerror(errno));
    size = read(fd, setup, sizeof(setup));
    close(fd);
    if (size < 0 || parse_release(setup, (size_t)size, release))
        return vmm_fail(err, "rig: '%.200s' is no Linux kernel image (bzImage)", kernel);
    return 0;
}

/* An image lies beside the kernel or in the rig's directory. */
static int find_image(char out[PATH_MAX], const char *kernel, const char *dir, const char *name,
                      struct vmm_err *err)
{
    const char *slash = strrchr(kernel, '/');
    char beside[PATH_MAX];

    snprintf(beside, sizeof(beside), "%.*s", slash ? (int)(slash - kernel) : 1,
             slash ? kernel : ".");
    if (join(out, beside, name, err))
        return -1;
    if (access(out, R_OK) == 0)
        return 0;
    if (join(out, dir, name, err))
        return -1;
    if (access(out, R_OK) == 0)
        return 0;
    return vmm_fail(err, "rig: there is no '%.200s': run 'make build', or set VAPIC_RIG_DIR", out);
}

int vmm_rig_host_find(struct vmm_rig_host *host, const struct vmm_rig_config *cfg,
                      struct vmm_err *err)
{
    const char *dir = cfg->dir ? cfg->dir : nonempty_env("VAPIC_RIG_DIR");
    char release[RELEASE_MAX];
    char modules[RELEASE_MAX + 16];

    if (!dir)
        dir = VAPIC_DATADIR;
    if (find_qemu(host, err))
        return -1;
    if (cfg->kernel && strlen(cfg->kernel) >= sizeof(host->kernel))
        return vmm_fail(err, "rig: the host kernel's path is too long");
    if (cfg->kernel)
        snprintf(host->kernel, sizeof(host->kernel), "%s", cfg->kernel);
    else if (join(host->kernel, dir, "vmlinuz", err))
        return -1;
    if (read_release(host->kernel, release, err))
        return -1;
    snprintf(modules, sizeof(modules), "modules-%s.cpio", release);
    if (find_image(host->base, host->kernel, dir, "rig-base.cpio", err))
        return -1;
    return find_image(host->modules, host->kernel, dir, modules, err);
}
