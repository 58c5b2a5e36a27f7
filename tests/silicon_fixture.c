/* SPDX-License-Identifier: MIT */
/* The bench of the AMD half; see silicon_fixture.h. */
#include "silicon_fixture.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- The host's callbacks ---- */

static void *host_memory(void *ctx, uint64_t hpa, size_t size)
{
    struct sf *sf = ctx;

    return hpa < SF_MEMORY && size <= SF_MEMORY - hpa ? sf->memory + hpa : NULL;
}

static bool host_walk(void *ctx, struct vapic_sil_cpu *cpu, uint64_t gpa,
                      struct vapic_sil_page *page)
{
    struct sf *sf = ctx;

    (void)cpu;
    vapic_add32(&sf->walks, 1, VAPIC_RELAXED);
    if (gpa == APIC_DEFAULT_BASE) {
        *page = sf->apic_page;
        return true;
    }
    if (gpa < SF_RAM || gpa >= SF_MEMORY)
        return false;
    *page = (struct vapic_sil_page){.hpa = gpa, .present = true, .writable = !sf->ram_read_only};
    return true;
}

static void host_signal(void *ctx, struct vapic_sil_cpu *cpu)
{
    struct sf *sf = ctx;

    vapic_add32(&sf->signals[cpu->apic_id], 1, VAPIC_SEQ_CST);
    if (sf->on_signal)
        sf->on_signal(sf, cpu);
}

static void host_point(void *ctx, struct vapic_sil_cpu *cpu, enum vapic_sil_point point)
{
    struct sf *sf = ctx;

    if (sf->on_point)
        sf->on_point(sf, cpu, point);
}

static const struct vapic_sil_host host = {
    .size = sizeof(host),
    .memory = host_memory,
    .walk = host_walk,
    .signal = host_signal,
    .point = host_point,
};

/* ---- Making and ending ---- */

static void fill_page(struct sf *sf, uint32_t n, bool x2)
{
    sf_set_reg(sf, n, APIC_ID, x2 ? n : n << 24);
    sf_set_reg(sf, n, APIC_LVR, 0x80050010);
    sf_set_reg(sf, n, APIC_SVR, 0x1FF);
    sf_set_reg(sf, n, APIC_DFR, APIC_DFR_FLAT);
    if (x2)
        sf_set_reg(sf, n, APIC_LDR, (n >> 4) << 16 | 1u << (n & 15));
    else if (n < 8)
        sf_set_reg(sf, n, APIC_LDR, 1u << (24 + n));
}

static void fill_vmcb(struct sf *sf, uint32_t n, bool x2)
{
    sf_set_vmcb32(sf, n, VMCB_INTERCEPT3, VMCB_I3_INTR | VMCB_I3_MSR);
    sf_set_vmcb32(sf, n, VMCB_INTERCEPT4, VMCB_I4_VMRUN);
    sf_set_vmcb32(sf, n, VMCB_ASID, n + 1);
    sf_set_vmcb(sf, n, VMCB_MSRPM_BASE, SF_MSRPM + n * SVM_MSRPM_SIZE);
    sf_int_ctl(sf, n, VMCB_V_INTR_MASKING | VMCB_V_AVIC | (x2 ? VMCB_V_X2AVIC : 0), 0);
    sf_set_vmcb(sf, n, VMCB_NP_ENABLE, VMCB_NP_ENABLED);
    sf_set_vmcb(sf, n, VMCB_AVIC_BAR, APIC_DEFAULT_BASE);
    sf_set_vmcb(sf, n, VMCB_AVIC_BACKING, SF_BACKING + n * 0x1000);
    sf_set_vmcb(sf, n, VMCB_AVIC_LOGICAL, SF_LOGICAL);
    sf_set_vmcb(sf, n, VMCB_AVIC_PHYSICAL, SF_PHYSICAL | (SF_CPUS - 1));
    sf_set_vmcb(sf, n, VMCB_RFLAGS, VMCB_RFLAGS_IF | 2);
    sf_set_vmcb(sf, n, VMCB_RIP, SF_RIP);
}

struct sf *sf_new(const struct vapic_sil_config *config, bool x2)
{
    struct sf *sf = calloc(1, sizeof(*sf));

    assert_non_null(sf);
    if (config)
        sf->config = *config;
    else
        sf->config.x2avic = true;
    sf->allocated = calloc(1, SF_MEMORY + 0x1000); /* most pages are never touched */
    assert_non_null(sf->allocated);
    sf->memory = sf->allocated + (0x1000 - (uintptr_t)sf->allocated % 0x1000);
    sf->apic_page = (struct vapic_sil_page){.hpa = SF_SCRATCH, .present = true, .writable = true};
    assert_true(vapic_sil_init(&sf->machine, &sf->config, &host, sf, sf->table, SF_CPUS));
    for (uint32_t n = 0; n < SF_CPUS; n++) {
        assert_true(vapic_sil_cpu_init(&sf->cpu[n], &sf->machine, n));
        fill_page(sf, n, x2);
        fill_vmcb(sf, n, x2);
        *sf_entry(sf, n) = sf_legal_entry(n, true);
        if (n < 8)
            *sf_logical(sf, n) = AVIC_LOGICAL_VALID | n;
    }
    return sf;
}

void sf_free(struct sf *sf)
{
    free(sf->allocated);
    free(sf);
}

/* ---- Memory ---- */

void *sf_memory(struct sf *sf, uint64_t hpa)
{
    assert_true(hpa < SF_MEMORY);
    return sf->memory + hpa;
}

static void *vmcb_at(struct sf *sf, uint32_t n, uint32_t offset)
{
    return sf_memory(sf, SF_VMCB + n * 0x1000 + offset);
}

uint64_t sf_vmcb(struct sf *sf, uint32_t n, uint32_t offset)
{
    return *(uint64_t *)vmcb_at(sf, n, offset);
}

void sf_set_vmcb(struct sf *sf, uint32_t n, uint32_t offset, uint64_t value)
{
    *(uint64_t *)vmcb_at(sf, n, offset) = value;
}

uint32_t sf_vmcb32(struct sf *sf, uint32_t n, uint32_t offset)
{
    return *(uint32_t *)vmcb_at(sf, n, offset);
}

void sf_set_vmcb32(struct sf *sf, uint32_t n, uint32_t offset, uint32_t value)
{
    *(uint32_t *)vmcb_at(sf, n, offset) = value;
}

void sf_int_ctl(struct sf *sf, uint32_t n, uint64_t set, uint64_t clear)
{
    sf_set_vmcb(sf, n, VMCB_INT_CTL, (sf_vmcb(sf, n, VMCB_INT_CTL) & ~clear) | set);
}

static uint32_t *reg_at(struct sf *sf, uint32_t n, uint32_t offset)
{
    return sf_memory(sf, SF_BACKING + n * 0x1000 + offset);
}

uint32_t sf_reg(struct sf *sf, uint32_t n, uint32_t offset)
{
    return vapic_load32(reg_at(sf, n, offset), VAPIC_SEQ_CST);
}

void sf_set_reg(struct sf *sf, uint32_t n, uint32_t offset, uint32_t value)
{
    vapic_store32(reg_at(sf, n, offset), value, VAPIC_SEQ_CST);
}

bool sf_bit(struct sf *sf, uint32_t n, uint32_t base, uint8_t vector)
{
    return sf_reg(sf, n, base + 0x10 * (vector / 32u)) >> (vector % 32) & 1;
}

void sf_set_bit(struct sf *sf, uint32_t n, uint32_t base, uint8_t vector, bool value)
{
    uint32_t *word = reg_at(sf, n, base + 0x10 * (vector / 32u));

    if (value)
        vapic_or32(word, 1u << (vector % 32), VAPIC_SEQ_CST);
    else
        vapic_and32(word, ~(1u << (vector % 32)), VAPIC_SEQ_CST);
}

uint64_t *sf_entry(struct sf *sf, uint32_t index)
{
    return sf_memory(sf, SF_PHYSICAL + 8ull * index);
}

uint32_t *sf_logical(struct sf *sf, uint32_t slot)
{
    return sf_memory(sf, SF_LOGICAL + 4ull * slot);
}

uint64_t sf_legal_entry(uint32_t index, bool running)
{
    return AVIC_PHYSICAL_VALID | (running ? AVIC_PHYSICAL_RUNNING : 0) |
           (SF_BACKING + index * 0x1000ull) | index;
}

void sf_intercept_msr(struct sf *sf, uint32_t n, uint32_t msr, bool read, bool write)
{
    uint32_t bit = (uint32_t)svm_msrpm_bit(msr);
    uint8_t *byte = sf_memory(sf, SF_MSRPM + n * SVM_MSRPM_SIZE + bit / 8);

    *byte &= (uint8_t) ~(3u << (bit % 8));
    *byte |= (uint8_t)((unsigned)read << (bit % 8) | (unsigned)write << (bit % 8 + 1));
}

/* ---- The guest ---- */

void sf_run(struct sf *sf, uint32_t n)
{
    assert_int_equal(vapic_sil_vmrun(&sf->cpu[n], SF_VMCB + n * 0x1000), VAPIC_SIL_DONE);
}

enum vapic_sil_result sf_read(struct sf *sf, uint32_t n, uint32_t offset, uint32_t *value)
{
    struct vapic_sil_access access = {
        .gpa = APIC_DEFAULT_BASE + offset, .kind = VAPIC_SIL_READ, .size = 4, .length = 3};
    enum vapic_sil_result result = vapic_sil_access(&sf->cpu[n], &access);

    if (result == VAPIC_SIL_DONE)
        *value = (uint32_t)access.value;
    return result;
}

enum vapic_sil_result sf_write(struct sf *sf, uint32_t n, uint32_t offset, uint32_t value)
{
    struct vapic_sil_access access = {.gpa = APIC_DEFAULT_BASE + offset,
                                      .kind = VAPIC_SIL_WRITE,
                                      .size = 4,
                                      .length = 3,
                                      .value = value};

    return vapic_sil_access(&sf->cpu[n], &access);
}

enum vapic_sil_result sf_icr(struct sf *sf, uint32_t n, uint32_t low, uint32_t dest)
{
    if (sf->cpu[n].svm.int_ctl & VMCB_V_X2AVIC)
        return vapic_sil_wrmsr(&sf->cpu[n], 0x830, (uint64_t)dest << 32 | low);
    assert_int_equal(sf_write(sf, n, APIC_ICR2, dest << 24), VAPIC_SIL_DONE);
    return sf_write(sf, n, APIC_ICR, low);
}

int sf_take(struct sf *sf, uint32_t n)
{
    uint8_t vector = 0;

    switch (vapic_sil_boundary(&sf->cpu[n], &vector)) {
    case VAPIC_SIL_DELIVER:
        return vector;
    case VAPIC_SIL_NOTHING:
        return -1;
    default:
        return -2;
    }
}

/* ---- Checks ---- */

void sf_equal_at(uint64_t actual, uint64_t expected, const char *file, int line, const char *format,
                 ...)
{
    va_list arguments;
    char what[256];

    if (actual == expected)
        return;
    va_start(arguments, format);
    vsnprintf(what, sizeof(what), format, arguments);
    va_end(arguments);
    print_error("%s: 0x%llx, expected 0x%llx\n", what, (unsigned long long)actual,
                (unsigned long long)expected);
    _fail(file, line);
}

void sf_exit_at(struct sf *sf, uint32_t n, uint64_t code, uint64_t info1, uint64_t info2,
                const char *file, int line)
{
    sf_equal_at(sf->cpu[n].in_guest, false, file, line, "vCPU %u is in the guest", n);
    sf_equal_at(sf_vmcb(sf, n, VMCB_EXITCODE), code, file, line, "EXITCODE");
    sf_equal_at(sf_vmcb(sf, n, VMCB_EXITINFO1), info1, file, line, "EXITINFO1 of %llxh",
                (unsigned long long)code);
    sf_equal_at(sf_vmcb(sf, n, VMCB_EXITINFO2), info2, file, line, "EXITINFO2 of %llxh",
                (unsigned long long)code);
}
