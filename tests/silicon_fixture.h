/* SPDX-License-Identifier: MIT */
/*
 * A bench for the AMD half of the silicon model: some processors, each with a VMCB, a backing page
 * and a permission map, the two tables, and four megabytes of memory.
 *
 * sf_new() makes everything so that sf_run() succeeds and IPIs reach everybody: V_INTR_MASKING and
 * AVIC on, every entry of the physical table valid and running, a flat logical ID for the first
 * eight, nothing intercepted, IF = 1. A test then changes what it is about. Processor n runs vCPU n
 * unless it says otherwise.
 */
#ifndef VAPIC_TESTS_SILICON_FIXTURE_H
#define VAPIC_TESTS_SILICON_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "vapic/arch/apic.h"
#include "vapic/arch/atomic.h"
#include "vapic/silicon.h"

/* Host-physical memory. Guest RAM is mapped one to one; the APIC page to SF_SCRATCH. */
enum {
    SF_CPUS = 16,
    SF_VMCB = 0x10000,
    SF_BACKING = 0x30000,
    SF_PHYSICAL = 0x100000, /* 8 pages */
    SF_LOGICAL = 0x110000,
    SF_MSRPM = 0x120000,
    SF_SCRATCH = 0x150000,
    SF_RAM = 0x200000,
    SF_MEMORY = 0x400000,
    SF_RIP = 0x1000 /* where each guest starts */
};

struct sf {
    struct vapic_sil machine;
    struct vapic_sil_config config;
    struct vapic_sil_cpu cpu[SF_CPUS];
    struct vapic_sil_cpu *table[SF_CPUS];
    uint8_t *memory, *allocated;
    struct vapic_sil_page apic_page; /* what the nested tables say about FEE00000h */
    bool ram_read_only;
    uint32_t walks;            /* atomic */
    uint32_t signals[SF_CPUS]; /* atomic */
    /* NULL: nothing. */
    void (*on_point)(struct sf *sf, struct vapic_sil_cpu *cpu, enum vapic_sil_point point);
    void (*on_signal)(struct sf *sf, struct vapic_sil_cpu *cpu);
    void *user;
};

/* The processors: SF_CPUS. `x2`: every vCPU starts in x2AVIC. NULL config: AVIC, x2AVIC. */
struct sf *sf_new(const struct vapic_sil_config *config, bool x2);
void sf_free(struct sf *sf);

/* ---- Memory ---- */

void *sf_memory(struct sf *sf, uint64_t hpa);
uint64_t sf_vmcb(struct sf *sf, uint32_t n, uint32_t offset); /* 64 bits */
void sf_set_vmcb(struct sf *sf, uint32_t n, uint32_t offset, uint64_t value);
uint32_t sf_vmcb32(struct sf *sf, uint32_t n, uint32_t offset);
void sf_set_vmcb32(struct sf *sf, uint32_t n, uint32_t offset, uint32_t value);
/* Sets and clears bits of int_ctl. */
void sf_int_ctl(struct sf *sf, uint32_t n, uint64_t set, uint64_t clear);
uint32_t sf_reg(struct sf *sf, uint32_t n, uint32_t offset);
void sf_set_reg(struct sf *sf, uint32_t n, uint32_t offset, uint32_t value);
bool sf_bit(struct sf *sf, uint32_t n, uint32_t base, uint8_t vector);
void sf_set_bit(struct sf *sf, uint32_t n, uint32_t base, uint8_t vector, bool value);
uint64_t *sf_entry(struct sf *sf, uint32_t index);     /* physical table */
uint32_t *sf_logical(struct sf *sf, uint32_t slot);    /* logical table */
uint64_t sf_legal_entry(uint32_t index, bool running); /* for vCPU `index` on processor `index` */
void sf_intercept_msr(struct sf *sf, uint32_t n, uint32_t msr, bool read, bool write);

/* ---- The guest of processor n ---- */

void sf_run(struct sf *sf, uint32_t n); /* VMRUN, which must succeed, with all clean bits zero */
/* Instructions of length 3. */
enum vapic_sil_result sf_read(struct sf *sf, uint32_t n, uint32_t offset, uint32_t *value);
enum vapic_sil_result sf_write(struct sf *sf, uint32_t n, uint32_t offset, uint32_t value);
/* By ICR in the mode of `n`; `dest` right aligned. */
enum vapic_sil_result sf_icr(struct sf *sf, uint32_t n, uint32_t low, uint32_t dest);
/* The vector that the next boundary delivers, -1: nothing, -2: exit. IF stays as it is. */
int sf_take(struct sf *sf, uint32_t n);

/* ---- Checks; the text names the row of a table ---- */

void sf_equal_at(uint64_t actual, uint64_t expected, const char *file, int line, const char *format,
                 ...) __attribute__((format(printf, 5, 6)));
#define sf_equal(actual, expected, ...)                                                            \
    sf_equal_at((uint64_t)(actual), (uint64_t)(expected), __FILE__, __LINE__, __VA_ARGS__)

/* The exit that VMCB n shows. */
void sf_exit_at(struct sf *sf, uint32_t n, uint64_t code, uint64_t info1, uint64_t info2,
                const char *file, int line);
#define sf_exit(sf, n, code, info1, info2) sf_exit_at(sf, n, code, info1, info2, __FILE__, __LINE__)

#endif
