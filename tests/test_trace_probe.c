/* SPDX-License-Identifier: MIT */
/*
 * The USDT probes: that tracers find one for each event in the binary, and that a VM is traced
 * while, and only while, somebody listens. The test counts the semaphores up as the kernel does.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "trace_probe.h"

#define STAPSDT_TYPE 3u

/* ---- This program's notes ---- */

struct probe {
    const char *provider;
    const char *name;
    const char *args;
    uint64_t where[3]; /* place, base, semaphore */
};

static const uint8_t *image;

static const Elf64_Shdr *section(const char *name)
{
    const Elf64_Ehdr *head = (const Elf64_Ehdr *)image;
    const Elf64_Shdr *all = (const Elf64_Shdr *)(image + head->e_shoff);
    const char *names = (const char *)image + all[head->e_shstrndx].sh_offset;

    for (unsigned n = 0; n < head->e_shnum; n++) {
        if (strcmp(names + all[n].sh_name, name) == 0) {
            return &all[n];
        }
    }
    return NULL;
}

/* Takes apart the note at *at and moves it on. False: it is no probe. */
static bool next_probe(const uint8_t **at, struct probe *probe)
{
    const Elf64_Nhdr *note = (const Elf64_Nhdr *)*at;
    const char *owner = (const char *)(note + 1);
    const uint8_t *desc = (const uint8_t *)owner + ((note->n_namesz + 3) & ~3u);

    *at = desc + ((note->n_descsz + 3) & ~3u);
    memcpy(probe->where, desc, sizeof(probe->where));
    probe->provider = (const char *)desc + sizeof(probe->where);
    probe->name = probe->provider + strlen(probe->provider) + 1;
    probe->args = probe->name + strlen(probe->name) + 1;
    return note->n_type == STAPSDT_TYPE && strcmp(owner, "stapsdt") == 0;
}

static int map_image(void **state)
{
    int fd = open("/proc/self/exe", O_RDONLY);
    struct stat st;
    (void)state;

    if (fd < 0 || fstat(fd, &st) != 0) {
        return -1;
    }
    image = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    return image != MAP_FAILED ? 0 : -1;
}

static unsigned words_in(const char *args)
{
    unsigned count = *args != '\0';

    for (; *args != '\0'; args++) {
        count += *args == ' ';
    }
    return count;
}

static void one_probe_for_each_event(void **state)
{
    const Elf64_Shdr *notes = section(".note.stapsdt");
    unsigned seen[VAPIC_EVENT_COUNT] = {0};
    struct probe probe;
    (void)state;

    assert_non_null(notes);
    for (const uint8_t *at = image + notes->sh_offset, *end = at + notes->sh_size; at < end;) {
        if (!next_probe(&at, &probe) || strcmp(probe.provider, "vapic") != 0) {
            continue;
        }
        for (uint32_t kind = 0; kind < VAPIC_EVENT_COUNT; kind++) {
            seen[kind] += strcmp(probe.name, vapic_event_name(kind)) == 0;
        }
        assert_int_equal(words_in(probe.args), 5);
        assert_memory_equal(probe.args, "4@", 2);
    }
    for (uint32_t kind = 0; kind < VAPIC_EVENT_COUNT; kind++) {
        assert_int_equal(seen[kind], 1);
    }
}

/* Each has a semaphore of its own, and a place in the text that is a nop. */
static void places_and_semaphores(void **state)
{
    const Elf64_Shdr *notes = section(".note.stapsdt");
    const Elf64_Shdr *code = section(".text");
    const Elf64_Shdr *words = section(".probes");
    const uint8_t *at = image + notes->sh_offset;
    uint64_t used = 0;
    struct probe probe;
    (void)state;

    assert_non_null(words);
    while (at < image + notes->sh_offset + notes->sh_size) {
        uint64_t place, word;

        if (!next_probe(&at, &probe) || strcmp(probe.provider, "vapic") != 0) {
            continue;
        }
        place = probe.where[0] - code->sh_addr;
        word = (probe.where[2] - words->sh_addr) / 2;
        assert_true(place < code->sh_size);
        assert_int_equal(image[code->sh_offset + place], 0x90);
        assert_true(word < words->sh_size / 2);
        assert_false(used >> word & 1);
        used |= 1ull << word;
    }
    assert_true(used != 0);
}

/* ---- Listening ---- */

extern volatile unsigned short vapic_kvm_eoi_semaphore;
extern volatile unsigned short vapic_kvm_pv_eoi_semaphore;

static uint64_t now;

static uint64_t mono(void *ctx)
{
    (void)ctx;
    return now;
}

/* What the machine does: calls the listener's probe, and here counts. */
static void count(void *ctx, const struct vapic_event *event)
{
    vmm_trace_probe(event);
    ++*(unsigned *)ctx;
}

static void an_event(struct vapic_vm *vm)
{
    if (vm->trace != NULL) {
        vm->trace(vm->trace_ctx, &(struct vapic_event){.kind = VAPIC_EVENT_PV_EOI});
    }
}

static void pass_a_second(struct vmm_evloop *loop)
{
    uint64_t next = vmm_evloop_next(loop);

    assert_true(next <= now + VMM_NS_PER_SEC);
    now = next;
    assert_int_equal(vmm_evloop_run_due(loop), 1);
}

static void a_vm_is_traced_while_somebody_listens(void **state)
{
    static const struct vmm_clock clock = {NULL, mono, NULL};
    struct vmm_probes probes;
    struct vapic_vm vm = {0};
    struct vmm_evloop loop;
    unsigned heard = 0;
    (void)state;

    assert_int_equal(vmm_evloop_init(&loop, &clock), 0);
    vmm_probes_init(&probes, &vm, count, &heard, false);
    assert_int_equal(vmm_probes_watch(&probes, &loop), 0);
    an_event(&vm);
    assert_int_equal(heard, 0);
    vapic_kvm_pv_eoi_semaphore = 1;
    pass_a_second(&loop);
    an_event(&vm);
    assert_int_equal(heard, 1);
    pass_a_second(&loop);
    an_event(&vm);
    assert_int_equal(heard, 2);
    vapic_kvm_pv_eoi_semaphore = 0;
    pass_a_second(&loop);
    an_event(&vm);
    assert_int_equal(heard, 2);
    vmm_probes_fini(&probes);
    assert_int_equal(vmm_evloop_next(&loop), VMM_TIME_NEVER);
    vmm_evloop_fini(&loop);
}

/* Who listens before the start hears the start, before there is an event loop. */
static void listeners_before_the_start(void **state)
{
    struct vmm_probes probes;
    struct vapic_vm vm = {0};
    unsigned heard = 0;
    (void)state;

    vapic_kvm_eoi_semaphore = 2;
    vmm_probes_init(&probes, &vm, count, &heard, false);
    vapic_kvm_eoi_semaphore = 0;
    an_event(&vm);
    assert_int_equal(heard, 1);
    vmm_probes_fini(&probes);
}

/* With a file everything is traced always, and no timer runs. */
static void with_a_file(void **state)
{
    struct vmm_probes probes;
    struct vapic_vm vm = {0};
    struct vmm_evloop loop;
    unsigned heard = 0;
    (void)state;

    assert_int_equal(vmm_evloop_init(&loop, &vmm_clock_host), 0);
    vmm_probes_init(&probes, &vm, count, &heard, true);
    an_event(&vm);
    assert_int_equal(vmm_probes_watch(&probes, &loop), 0);
    an_event(&vm);
    assert_int_equal(heard, 2);
    assert_int_equal(vmm_evloop_next(&loop), VMM_TIME_NEVER);
    vmm_probes_fini(&probes);
    vmm_evloop_fini(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_probe_for_each_event),
        cmocka_unit_test(places_and_semaphores),
        cmocka_unit_test(a_vm_is_traced_while_somebody_listens),
        cmocka_unit_test(listeners_before_the_start),
        cmocka_unit_test(with_a_file),
    };

    return cmocka_run_group_tests_name("trace probe", tests, map_image, NULL);
}
