/* SPDX-License-Identifier: MIT */
/*
 * What modelled acceleration did for a guest, as rows of the statistics (stats.h), as a paragraph
 * under them, and as JSON; and several runs of one guest side by side. After the run, one thread.
 */
#ifndef VMM_ACCEL_REPORT_H
#define VMM_ACCEL_REPORT_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

#include "accel_counts.h"
#include "accel_disturb.h"
#include "accel_timeline.h"

struct vmm_vcpu_stats;
struct vmm_stats;

/* One machine's, beside the counters of its vCPUs. Points into the machine. */
struct vmm_accel_report {
    const char *mode;
    uint32_t inhibits;   /* at the end */
    bool page_withdrawn; /* nothing inhibits, and the APIC access page is gone all the same */
    const uint32_t *boot_masks; /* after each reboot */
    unsigned reboots;
    const struct vmm_timeline *timeline;
    struct vmm_inhibit_result script[VMM_INHIBITS_MAX];
    unsigned scripts;
    uint64_t pause_ns;
};

/* A row of counters: its name, and the counter's place in struct vmm_accel_counts. */
struct vmm_accel_row {
    char name[32];
    unsigned word;
};

#define VMM_ACCEL_ROWS_MAX (sizeof(struct vmm_accel_counts) / sizeof(uint64_t))

/* The rows that are worth a line: registers and IPI failures only where `sum` has some. */
unsigned vmm_accel_rows(const struct vmm_accel_counts *sum,
                        struct vmm_accel_row rows[VMM_ACCEL_ROWS_MAX]);
uint64_t vmm_accel_word(const struct vmm_accel_counts *counts, unsigned word);

/* Accesses to registers that ended like this; all of them, for VMM_ACCEL_END_COUNT. */
uint64_t vmm_accel_accesses(const struct vmm_accel_counts *counts, enum vmm_accel_end end);

/* "TPR"; `text` is for those that have to be put together. */
const char *vmm_accel_reg_name(unsigned row, char *text, size_t size);

void vmm_accel_report_text(const struct vmm_accel_report *report,
                           const struct vmm_accel_counts *sum, FILE *to);
json_t *vmm_accel_report_json(const struct vmm_accel_report *report);
json_t *vmm_accel_counts_json(const struct vmm_accel_counts *counts);

/* ---- Side by side ---- */

#define VMM_COMPARE_MAX 8u

/* What is kept of one run. */
struct vmm_compare_run {
    const char *mode;
    bool modelled;              /* else its exits are KVM's */
    struct vmm_vcpu_stats *sum; /* malloc()ed */
    double seconds;
    uint64_t boots;
    double inhibited; /* part of the time, 0 to 1 */
    int status;       /* exit status of the run */
};

struct vmm_compare {
    struct vmm_compare_run run[VMM_COMPARE_MAX];
    unsigned count;
};

/* Adds a run; `stats` is NULL if it did not come about. False: no memory, or no room. */
bool vmm_compare_add(struct vmm_compare *compare, const char *mode, int status,
                     const struct vmm_stats *stats);
void vmm_compare_free(struct vmm_compare *compare);
void vmm_compare_text(const struct vmm_compare *compare, FILE *to);
/* Returns -1 when the text cannot be written. */
int vmm_compare_json(const struct vmm_compare *compare, FILE *to);

#endif
