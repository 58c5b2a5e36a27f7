/* SPDX-License-Identifier: MIT */
/*
 * Scripted disturbances of a machine with modelled acceleration: threads of their own that set and
 * clear reasons of the inhibition, or send vCPUs to other modelled processors, while the guest
 * runs. Started and stopped by the machine's thread.
 */
#ifndef VMM_ACCEL_DISTURB_H
#define VMM_ACCEL_DISTURB_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "vapic/accel.h"

struct vmm_machine;
struct vmm_disturb;

#define VMM_INHIBITS_MAX 8u

/* A reason that is set for half of each period, and clear for the other half. */
struct vmm_inhibit_script {
    enum vapic_inhibit reason;
    uint64_t period_ns;
};

struct vmm_disturb_config {
    struct vmm_inhibit_script inhibit[VMM_INHIBITS_MAX];
    unsigned inhibits;
    uint64_t pause_ns; /* one vCPU after the other moves, each this long after the last; 0: none */
};

/* What became of one script. */
struct vmm_inhibit_result {
    struct vmm_inhibit_script script;
    uint64_t requested; /* changes that were due while the guest ran */
    uint64_t happened;  /* of these, those that were made, and left the reason not as before */
};

#define VMM_PERIOD_MIN_NS 100000u        /* 100 us */
#define VMM_PERIOD_MAX_NS 3600000000000u /* an hour */

/* "10ms", "500us", "2s"; without a unit, milliseconds. `option` is for the message. */
int vmm_period_parse(const char *option, const char *text, uint64_t *ns, struct vmm_err *err);

/* "BLOCKIRQ@10ms": adds to the configuration. */
int vmm_inhibit_parse(const char *text, struct vmm_disturb_config *config, struct vmm_err *err);

/*
 * When a step is made that is due at `due`. A late one is made up for at once; but a script that is
 * later than this cannot keep up at all, and would leave the vCPUs no time between two changes: it
 * pauses between them.
 */
#define VMM_DISTURB_LATE_NS 1000000000u
uint64_t vmm_disturb_time(uint64_t due, uint64_t now, uint64_t every_ns);

/* Processors beyond the number of vCPUs that the scripts need. `config` may be NULL. */
unsigned vmm_disturb_spare(const struct vmm_disturb_config *config);

/* Starts the scripts of m->config.disturb, if any, and sets m->disturb. */
int vmm_disturb_start(struct vmm_machine *m, struct vmm_err *err);
/* Ends them; every reason that they set is clear again. */
void vmm_disturb_stop(struct vmm_machine *m);
/* The reasons that scripts have set now. Any thread. */
uint32_t vmm_disturb_held(const struct vmm_machine *m);
/* After the stop. Returns the number of results, at most VMM_INHIBITS_MAX. */
unsigned vmm_disturb_results(const struct vmm_machine *m,
                             struct vmm_inhibit_result results[VMM_INHIBITS_MAX]);
void vmm_disturb_free(struct vmm_machine *m);

#endif
