/* SPDX-License-Identifier: MIT */
/*
 * The deterministic machine: runs a few actors over the real code and decides, at each access to
 * shared memory, who goes on.
 *
 * The library and the model of the hardware are built for this room a second time: the same
 * sources, compiled with the compiler's thread-sanitizer instrumentation, which calls a run-time
 * (runtime.c) at every access, plain ones included. Here that run-time is ours. An actor is a
 * coroutine; it is switched where an access of its own meets memory that others can reach, so that
 * one schedule is one sequence of such accesses and nothing else: no clock, no thread, no chance.
 *
 *      runtime.c    what the instrumented code calls; redirect.h: copies and fills, too
 *      steps.c      an actor's accesses, waits and choices as steps of a run
 *      machine.c    actors, one run of a scenario from its snapshot under a driver's decisions
 *      arena.c      the scenario's memory; coroutine.c: the actors' stacks; shadow.c: who
 *                   reaches which byte
 *      search.c     the driver that goes through all schedules, up to a preemption bound
 *      sample.c     the one that takes them at random
 *      replay.c     the one that follows a line of text; shrink.c: the shortest such line
 *      tso.c        x86-TSO store buffers
 *      c11.c        the memory of C11 with stale reads; data races
 *      mutation.c   bugs that are switched on
 *      symbols.c    names for addresses and places in the code
 *      engine.c     engine.h: explorations from options to results
 *      world*.c     a hypervisor, its devices and guests, for scenarios to put together
 *      scenarios_*.c   the scenarios
 *
 * What code of this room keeps in the scenario's memory by plain accesses of its own is invisible:
 * neither a point nor part of a state (search.c). It must be each actor's own, or such that the
 * order of two actors' changes does not matter; anything else goes through the functions below.
 *
 * The words here are the explorer's interface to scenarios and to world.c; engine.h is its
 * interface to the command.
 */
#ifndef VAPIC_EXPLORE_H
#define VAPIC_EXPLORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EX_MAX_ACTORS 6u

/* ---- Scenarios ---- */

/* What a scenario is about: `vapic check --list` prints it, and races of a list are ticked off. */
struct ex_scenario {
    const void *data;  /* setup's: the tables of world.h */
    const char *name;  /* lower case, words joined by '-'; unique */
    const char *text;  /* one line: who does what, what must hold */
    const char *races; /* races of docs/races.md it stands for, "I7 I9 A3"; NULL: none */
    uint32_t modes;    /* EX_MODE() of each --accel it makes sense for */
    uint32_t bound; /* preemptions to explore; EX_COMPLETE: all interleavings, as two actors want */
    /* Builds the world in `memory` (zero, page aligned), registers actors and names. Runs once per
     * exploration, before the snapshot that every schedule starts from: must not keep anything
     * outside `memory`. */
    void (*setup)(const struct ex_scenario *scenario, void *memory, uint32_t mode);
    /* After every actor has ended or sleeps for good: the properties that a scenario states itself,
     * by ex_fail(). For scenarios of world.h this is world_check(), which checks what must hold in
     * every scenario first. */
    void (*check)(const struct ex_scenario *scenario, void *memory);
};

#define EX_COMPLETE UINT32_MAX

/* The values of --accel, in the order of the command's help. */
enum ex_mode { EX_NONE, EX_AVIC, EX_AVIC_NOIPIV, EX_X2AVIC, EX_APICV, EX_APICV_IPIV, EX_MODES };
#define EX_MODE(m) (1u << (m))

/* Bytes of memory of a scenario: everything its actors share lies in there. */
#define EX_MEMORY ((size_t)1 << 20)

/* ---- In setup ---- */

/* A new actor, which will run `run(arg)`. `name` is the column of the timeline: "vCPU 0",
 * "device". Its number is the order of registration. */
uint32_t ex_actor(const char *name, void (*run)(void *arg), void *arg);

/* Memory that only one actor ever touches (checked: another's access is an error of the scenario):
 * its accesses are no scheduling points. For everything else there is no need to say anything. */
void ex_private(const void *start, size_t size, uint32_t actor);

/* A name for memory, for timelines: "v0.IRR" with `stride` 0x10 and `count` 8 prints as
 * v0.IRR[3]. The text must live as long as the scenario (ex_text() makes one). */
void ex_name(const void *start, size_t size, const char *name);
void ex_name_array(const void *start, size_t size, size_t stride, const char *name);
const char *ex_text(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- In actors. Code of this room is not instrumented: it says what it does ---- */

/* The actor that runs; EX_MAX_ACTORS outside of actors (setup, check). */
uint32_t ex_self(void);

/* Accesses to shared memory of the room's own. Each is one scheduling point, sequentially
 * consistent (a host is assumed to get its own locking right). `what` is for the timeline. */
uint32_t ex_read(const uint32_t *word, const char *what);
void ex_write(uint32_t *word, uint32_t value, const char *what);
/* The same as a store with release order, which a store buffer may hold back. */
void ex_release(uint32_t *word, uint32_t value, const char *what);
uint32_t ex_add(uint32_t *word, uint32_t value, const char *what); /* the old value */
uint32_t ex_swap(uint32_t *word, uint32_t value, const char *what);
/* One write of `size` bytes (at most 64), indivisible: a CMPXCHG16B, a cache line from a device. */
void ex_write_block(void *to, const void *from, size_t size, const char *what);

/* Stops the actor until `ready(arg)` is true; then goes on in one step with the evaluation that
 * said so. `ready` reads shared memory by the functions above or by calling instrumented code, and
 * changes nothing: what it reads decides when it is asked again. An actor that waits for ever is
 * not an error by itself: see ex_may_end(). */
void ex_wait(bool (*ready)(void *arg), void *arg, const char *what);

/* While the actor waits inside ex_wait(), the run may end there: a vCPU that sleeps for good. In
 * any other wait, an end of the run is a deadlock. */
void ex_may_end(bool may);

/* A mutex of the host: a full barrier both ways. */
void ex_lock(uint32_t *word, const char *what);
void ex_unlock(uint32_t *word, const char *what);

/* A choice of the scenario's environment, explored like a schedule: 0 <= result < count. */
uint32_t ex_choose(uint32_t count, const char *what);

/* A line in the actor's column of the timeline: no scheduling point, no shared access. */
void ex_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The barrier of the processor at VM entry, VM exit, an interrupt or an IPI sent: drains the
 * actor's store buffer. [SDM3 9.3] */
void ex_barrier(const char *what);

/* A broken property: ends the run, does not return. `property` is one of the names that
 * `vapic check --list-properties` prints: properties.h. */
void ex_fail(const char *property, const char *format, ...)
    __attribute__((format(printf, 2, 3), noreturn));

/* ---- Mutations that the host's side carries (the library's own are in src/mutant.h) ---- */

/* True: this notification (a kick, a doorbell, a wake-up, a request) is dropped in this run. Each
 * call site with its own `what` is one mechanical mutation. */
bool ex_dropped(const char *what);

/* The scenarios of this build, in the order of --list. */
extern const struct ex_scenario *const ex_scenarios[];
extern const size_t ex_scenario_count;

#endif
