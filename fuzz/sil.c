/* SPDX-License-Identifier: MIT */
/* See sil.h. */
#include "sil.h"

#define PAGE 4096u
#define OPS  200u /* of one input */

/* ---- The model's host ---- */

static void *host_memory(void *ctx, uint64_t hpa, size_t size)
{
    struct fuzz_sil *s = ctx;

    fuzz_check(size > 0 && size <= PAGE && (hpa % PAGE) + size <= PAGE,
               "%zu bytes of memory at %#llx cross a page", size, (unsigned long long)hpa);
    return hpa < FUZZ_SIL_MEMORY ? s->memory + hpa : NULL;
}

static bool host_walk(void *ctx, struct vapic_sil_cpu *cpu, uint64_t gpa,
                      struct vapic_sil_page *page)
{
    struct fuzz_sil *s = ctx;

    fuzz_check(cpu >= s->cpu && cpu < s->cpu + FUZZ_SIL_CPUS && gpa % PAGE == 0, "a walk for %#llx",
               (unsigned long long)gpa);
    if (gpa == APIC_DEFAULT_BASE) {
        *page = s->apic_page;
        return true;
    }
    if (gpa < FUZZ_SIL_RAM || gpa >= FUZZ_SIL_MEMORY)
        return false;
    *page = (struct vapic_sil_page){gpa, true, gpa < FUZZ_SIL_RAM + PAGE};
    return true;
}

static void host_signal(void *ctx, struct vapic_sil_cpu *cpu)
{
    struct fuzz_sil *s = ctx;

    fuzz_check(cpu >= s->cpu && cpu < s->cpu + FUZZ_SIL_CPUS, "a signal to no processor");
    s->signals++;
}

static const struct vapic_sil_host host = {
    .size = sizeof(host),
    .memory = host_memory,
    .walk = host_walk,
    .signal = host_signal,
};

void fuzz_sil_init(struct fuzz_sil *s, const uint8_t image[FUZZ_SIL_MEMORY],
                   const struct vapic_sil_config *config)
{
    memcpy(s->memory, image, FUZZ_SIL_MEMORY);
    memset(s->table, 0, sizeof(s->table));
    memset(s->cpu, 0, sizeof(s->cpu));
    s->apic_page = (struct vapic_sil_page){0xE000, true, true};
    fuzz_check(vapic_sil_init(&s->machine, config, &host, s, s->table, FUZZ_SIL_IDS), "machine");
    for (uint32_t n = 0; n < FUZZ_SIL_CPUS; n++)
        fuzz_check(vapic_sil_cpu_init(&s->cpu[n], &s->machine, n + 1), "processor");
}

void *fuzz_sil_at(struct fuzz_sil *s, uint64_t hpa, uint32_t size)
{
    return s->memory + (hpa % FUZZ_SIL_MEMORY & ~(uint64_t)(size - 1));
}

/* ---- Operations ---- */

void fuzz_sil_run(struct fuzz_sil *s, struct fuzz_input *in, const fuzz_sil_op *ops, uint32_t count)
{
    s->high = 0;
    for (uint32_t i = 0; i < OPS && fuzz_next(in, &s->op); i++) {
        s->n = s->op.who & 1;
        s->now = &s->cpu[s->n];
        ops[s->op.kind % count](s);
    }
}

void fuzz_sil_poke(struct fuzz_sil *s)
{
    memcpy(fuzz_sil_at(s, s->op.where, 4), &s->op.value, 4);
}

void fuzz_sil_high(struct fuzz_sil *s)
{
    s->high = s->op.value;
}

void fuzz_sil_leave(struct fuzz_sil *s)
{
    vapic_sil_leave(s->now, s->op.where, s->op.value, s->high);
    fuzz_check(!s->now->in_guest, "an exit by force that did not leave the guest");
}

/* ---- The guest ---- */

static void check(const struct vapic_sil_cpu *cpu, bool was_inside, enum vapic_sil_result result)
{
    switch (result) {
    case VAPIC_SIL_DONE:
    case VAPIC_SIL_GP:
    case VAPIC_SIL_NATIVE:
    case VAPIC_SIL_DELIVER:
        fuzz_check(was_inside && cpu->in_guest, "result %d in host mode", (int)result);
        break;
    case VAPIC_SIL_NOTHING:
        fuzz_check(was_inside == cpu->in_guest, "nothing happened, but the processor moved");
        break;
    case VAPIC_SIL_EXIT:
        fuzz_check(was_inside && !cpu->in_guest, "an exit that did not leave the guest");
        break;
    case VAPIC_SIL_INVALID:
        fuzz_check(was_inside == cpu->in_guest, "refused, but the processor moved");
        break;
    default:
        fuzz_check(false, "result %d", (int)result);
    }
}

void fuzz_sil_access(struct fuzz_sil *s)
{
    bool inside = s->now->in_guest;
    struct vapic_sil_access access = {
        .gpa = APIC_DEFAULT_BASE + (s->op.where & 0xFFF),
        .kind = (enum vapic_sil_access_kind)((s->op.where >> 12 & 7) % 6),
        .size = (uint8_t)(1u << (s->op.who >> 2 & 7)),
        .length = s->op.value & 15,
        .more = s->op.who & 0x20,
        .modify = s->op.who & 0x40,
        .value = s->op.value,
    };
    enum vapic_sil_result result;

    if (s->op.where & 0x8000)
        access.gpa = FUZZ_SIL_RAM + (s->op.where & 0x1FFF);
    if (s->op.who & 0x80)
        access.length = 3;
    result = vapic_sil_access(s->now, &access);
    check(s->now, inside, result);
}

void fuzz_sil_msr(struct fuzz_sil *s)
{
    uint32_t msr = s->op.who & 0x80 ? s->op.where | (s->op.who & 0x40 ? 0xC0010000u : 0)
                                    : MSR_X2APIC_FIRST + (s->op.where & 0xFF);
    uint64_t value = (uint64_t)s->high << 32 | s->op.value;
    bool inside = s->now->in_guest;

    check(s->now, inside,
          s->op.where & 0x8000 ? vapic_sil_rdmsr(s->now, msr & 0xFFFF7FFF, &value)
                               : vapic_sil_wrmsr(s->now, msr, value));
}

void fuzz_sil_cr8(struct fuzz_sil *s)
{
    bool inside = s->now->in_guest;
    uint64_t value = s->op.value;
    enum vapic_sil_result result =
        s->op.where & 1 ? vapic_sil_write_cr8(s->now, value) : vapic_sil_read_cr8(s->now, &value);

    check(s->now, inside, result);
    if (!(s->op.where & 1) && result == VAPIC_SIL_DONE)
        fuzz_check(value <= 15, "CR8 reads %#llx", (unsigned long long)value);
}

bool fuzz_sil_boundary(struct fuzz_sil *s, uint8_t *vector)
{
    bool inside = s->now->in_guest;
    enum vapic_sil_result result;

    if (!inside)
        return false;
    result = vapic_sil_boundary(s->now, vector);
    check(s->now, inside, result);
    return result == VAPIC_SIL_DELIVER;
}

void fuzz_sil_flags(struct fuzz_sil *s)
{
    if (!s->now->in_guest)
        return;
    s->now->guest.interrupt_flag = s->op.value & 1;
    s->now->guest.shadow = s->op.value & 2;
    s->now->guest.gif = s->op.value & 4;
    s->now->guest.nmi_masked = s->op.value & 8;
    s->now->guest.cpl = s->op.value >> 4 & 3;
    vapic_sil_waiting(s->now);
}

void fuzz_sil_hlt(struct fuzz_sil *s)
{
    bool inside = s->now->in_guest;

    check(s->now, inside, vapic_sil_hlt(s->now));
}

void fuzz_sil_host(struct fuzz_sil *s)
{
    int vector;

    switch (s->op.where & 3) {
    case 0:
        vapic_sil_doorbell(&s->machine, s->op.value);
        break;
    case 1:
        vapic_sil_interrupt(&s->machine, s->op.value >> 8 & 15, (uint8_t)s->op.value);
        break;
    case 2:
        vector = s->now->in_guest ? -1 : vapic_sil_take_interrupt(s->now);
        fuzz_check(vector >= -1 && vector <= 255, "interrupt %d", vector);
        break;
    default:
        if (!s->now->in_guest)
            vapic_sil_flush(s->now, s->op.value & 1 ? APIC_DEFAULT_BASE : s->op.value);
        break;
    }
}
