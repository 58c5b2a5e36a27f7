/* SPDX-License-Identifier: MIT */
/*
 * The initramfs of one run; see rig_pack.h. Inside, everything of ours lies in /rig:
 *
 *   /rig/run          sets the environment and executes the command
 *   /rig/ports        how many virtio ports there are
 *   /rig/quiet        only with icount: /init must not make timers of its own
 *   /rig/bin/NAME     the running program
 *   /rig/lib/         its shared objects; the ELF interpreter keeps its own absolute path
 *   /rig/in/N/NAME    the input files, by position in the command
 */
#include "rig_pack.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cpio.h"

#define LIBRARIES_MAX 64u

struct library_list {
    const char *path[LIBRARIES_MAX];
    unsigned count;
    bool full;
    const char *interpreter; /* NULL: the program is static */
};

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

/*
 * The first object is the program itself, in whose segments the interpreter's name lies; the
 * vDSO has no file, and an object without a slash in its name has none either.
 */
static int visit_object(struct dl_phdr_info *info, size_t size, void *data)
{
    struct library_list *list = data;

    (void)size;
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type == PT_INTERP && !list->interpreter)
            list->interpreter = (const char *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    }
    if (!strchr(info->dlpi_name, '/'))
        return 0;
    list->full = list->count == LIBRARIES_MAX;
    if (!list->full)
        list->path[list->count++] = info->dlpi_name;
    return list->full;
}

static int pack_libraries(struct vmm_cpio *cpio, struct vmm_err *err)
{
    struct library_list list = {0};
    char name[VMM_CPIO_NAME_MAX];

    dl_iterate_phdr(visit_object, &list);
    if (list.full)
        return vmm_fail(err, "rig: this program uses more than %u shared objects", LIBRARIES_MAX);
    if (!list.interpreter)
        return 0;
    if (vmm_cpio_parents(cpio, list.interpreter, err) ||
        vmm_cpio_file(cpio, list.interpreter, 0755, list.interpreter, err))
        return -1;
    for (unsigned i = 0; i < list.count; i++) {
        if (!strcmp(list.path[i], list.interpreter))
            continue;
        snprintf(name, sizeof(name), "/rig/lib/%s", base_name(list.path[i]));
        if (vmm_cpio_file(cpio, name, 0755, list.path[i], err))
            return -1;
    }
    return 0;
}

static void self_name(char *out, size_t size, const struct vmm_rig_arg *arg)
{
    snprintf(out, size, "/rig/bin/%s", base_name(arg->text));
}

static void input_name(char *out, size_t size, size_t index, const struct vmm_rig_arg *arg)
{
    snprintf(out, size, "/rig/in/%zu/%s", index, base_name(arg->text));
}

static int pack_self(struct vmm_cpio *cpio, const struct vmm_rig_arg *arg, struct vmm_err *err)
{
    char name[VMM_CPIO_NAME_MAX];

    self_name(name, sizeof(name), arg);
    if (vmm_cpio_file(cpio, name, 0755, "/proc/self/exe", err))
        return -1;
    return pack_libraries(cpio, err);
}

static int pack_input(struct vmm_cpio *cpio, size_t index, const struct vmm_rig_arg *arg,
                      struct vmm_err *err)
{
    char name[VMM_CPIO_NAME_MAX];

    input_name(name, sizeof(name), index, arg);
    if (vmm_cpio_parents(cpio, name, err))
        return -1;
    return vmm_cpio_file(cpio, name, 0755, arg->text, err);
}

/* Quoted for the shell: only ' is special between two of them. */
static void write_quoted(FILE *script, const char *text)
{
    fputc('\'', script);
    for (; *text; text++) {
        if (*text == '\'')
            fputs("'\\''", script);
        else
            fputc(*text, script);
    }
    fputc('\'', script);
}

static void write_arg(FILE *script, const struct vmm_rig_arg *arg, size_t index,
                      unsigned *next_output)
{
    char name[VMM_CPIO_NAME_MAX];

    switch (arg->kind) {
    case VMM_RIG_TEXT:
        write_quoted(script, arg->text);
        return;
    case VMM_RIG_SELF:
        self_name(name, sizeof(name), arg);
        break;
    case VMM_RIG_IN:
        input_name(name, sizeof(name), index, arg);
        break;
    case VMM_RIG_OUT:
        snprintf(name, sizeof(name), "/dev/vport0p%u", VMM_RIG_PORT_OUTPUT + (*next_output)++);
        break;
    }
    write_quoted(script, name);
}

/* Settings of the sanitizers' run-time libraries are meant for the program in there too. */
static void write_environment(FILE *script)
{
    fputs("export PATH=/rig/bin:/bin HOME=/tmp LD_LIBRARY_PATH=/rig/lib\n", script);
    for (char **entry = environ; *entry; entry++) {
        const char *value = strchr(*entry, '=');
        const char *name = value ? strstr(*entry, "SAN_OPTIONS=") : NULL;

        if (!name || name > value)
            continue;
        fprintf(script, "export %.*s=", (int)(value - *entry), *entry);
        write_quoted(script, value + 1);
        fputc('\n', script);
    }
}

static char *make_script(const struct vmm_rig_config *cfg, size_t *size)
{
    char *text = NULL;
    FILE *script = open_memstream(&text, size);
    unsigned next_output = 0;

    if (!script)
        return NULL;
    write_environment(script);
    fputs("cd /tmp && exec", script);
    for (size_t i = 0; i < cfg->nargs; i++) {
        fputc(' ', script);
        write_arg(script, &cfg->args[i], i, &next_output);
    }
    fputc('\n', script);
    if (fclose(script) == 0)
        return text;
    free(text);
    return NULL;
}

static int pack_script(struct vmm_cpio *cpio, const struct vmm_rig_config *cfg, struct vmm_err *err)
{
    size_t size = 0;
    char *text = make_script(cfg, &size);
    int result;

    if (!text)
        return vmm_fail(err, "rig: out of memory");
    result = vmm_cpio_bytes(cpio, "/rig/run", 0644, text, size, err);
    free(text);
    return result;
}

static int pack_settings(struct vmm_cpio *cpio, const struct vmm_rig_config *cfg,
                         struct vmm_err *err)
{
    unsigned ports = VMM_RIG_PORT_CONTROL;
    char text[16];
    int length;

    for (size_t i = 0; i < cfg->nargs; i++)
        ports += cfg->args[i].kind == VMM_RIG_OUT;
    length = snprintf(text, sizeof(text), "%u\n", ports);
    if (vmm_cpio_bytes(cpio, "/rig/ports", 0644, text, (size_t)length, err))
        return -1;
    return cfg->icount ? vmm_cpio_bytes(cpio, "/rig/quiet", 0644, "", 0, err) : 0;
}

static int pack_args(struct vmm_cpio *cpio, const struct vmm_rig_config *cfg, struct vmm_err *err)
{
    int result = 0;

    for (size_t i = 0; i < cfg->nargs && result == 0; i++) {
        if (cfg->args[i].kind != VMM_RIG_TEXT && strlen(cfg->args[i].text) >= PATH_MAX)
            return vmm_fail(err, "rig: a file name of more than %d characters: give a shorter one",
                            PATH_MAX - 1);
        if (cfg->args[i].kind == VMM_RIG_SELF)
            result = pack_self(cpio, &cfg->args[i], err);
        else if (cfg->args[i].kind == VMM_RIG_IN)
            result = pack_input(cpio, i, &cfg->args[i], err);
    }
    return result;
}

static int pack_files(struct vmm_cpio *cpio, const struct vmm_rig_config *cfg, struct vmm_err *err)
{
    if (cfg->nfiles > VMM_RIG_FILES_MAX)
        return vmm_fail(err, "rig: more than %u files", VMM_RIG_FILES_MAX);
    for (size_t i = 0; i < cfg->nfiles; i++) {
        const struct vmm_rig_file *file = &cfg->files[i];

        if (vmm_cpio_parents(cpio, file->name, err) ||
            vmm_cpio_file(cpio, file->name, 0755, file->path, err))
            return -1;
    }
    return 0;
}

static int pack_command(int fd, const struct vmm_rig_config *cfg, uint64_t *size,
                        struct vmm_err *err)
{
    static const char *const dirs[] = {"/rig", "/rig/bin", "/rig/lib"};
    struct vmm_cpio cpio;

    vmm_cpio_init(&cpio, fd);
    for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
        if (vmm_cpio_dir(&cpio, dirs[i], err))
            return -1;
    }
    if (pack_settings(&cpio, cfg, err) || pack_script(&cpio, cfg, err) ||
        pack_args(&cpio, cfg, err) || pack_files(&cpio, cfg, err) || vmm_cpio_end(&cpio, err))
        return -1;
    *size += cpio.size;
    return 0;
}

/* Appends a ready image. The kernel skips zeros between archives, which must start on 4. */
static int append_image(int to, const char *path, uint64_t *size, struct vmm_err *err)
{
    int from = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t done;

    if (from < 0)
        return vmm_fail(err, "rig: cannot read '%.200s': %s", path, strerror(errno));
    do {
        done = sendfile(to, from, NULL, 1u << 30);
        if (done > 0)
            *size += (uint64_t)done;
    } while (done > 0 || (done < 0 && errno == EINTR));
    close(from);
    if (done < 0)
        return vmm_fail(err, "rig: cannot copy '%.200s': %s", path, strerror(errno));
    *size = (*size + 3) & ~3ull;
    if (ftruncate(to, (off_t)*size) || lseek(to, 0, SEEK_END) < 0)
        return vmm_fail(err, "rig: cannot build the initramfs: %s", strerror(errno));
    return 0;
}

int vmm_rig_pack(const struct vmm_rig_config *cfg, const struct vmm_rig_host *host, uint64_t *size,
                 struct vmm_err *err)
{
    int fd = memfd_create("vapic-rig-initramfs", 0);

    if (fd < 0)
        return vmm_fail(err, "rig: cannot create the initramfs: %s", strerror(errno));
    *size = 0;
    if (append_image(fd, host->base, size, err) || append_image(fd, host->modules, size, err) ||
        pack_command(fd, cfg, size, err)) {
        close(fd);
        return -1;
    }
    return fd;
}
