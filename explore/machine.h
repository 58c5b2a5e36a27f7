/* SPDX-License-Identifier: MIT */
/*
 * The engine's own interface: what its files tell each other. explore.h has the picture.
 *
 * A step is one access of an actor to the scenario's memory, a wait that ended or a choice; runs
 * are counted in steps and schedules are written in them. A point is a moment before a step at
 * which somebody else might go on; the strategy in charge (search.c, sample.c, replay.c) is asked
 * at points only, by the two functions of struct machine_driver.
 */
#ifndef VAPIC_EXPLORE_MACHINE_H
#define VAPIC_EXPLORE_MACHINE_H

#include "engine.h"
#include "entry.h"

/* ---- Where things are: the same in every process, so that every run of it is the same ---- */

#define MACHINE_BASE    ((uintptr_t)0x200000000000)
#define MACHINE_STACKS  (MACHINE_BASE + 2 * EX_MEMORY)
#define MACHINE_STACK   ((size_t)1 << 20) /* libdw wants much of it, when a failure is named */
#define MACHINE_STRIDE  ((size_t)2 << 20) /* from stack to stack: guard pages between */
#define MACHINE_ENGINES (MACHINE_STACKS + EX_MAX_ACTORS * MACHINE_STRIDE) /* the engine's own */
#define MACHINE_SCRUB   ((size_t)16384) /* of stacks, so that what is left there is nothing */
#define MACHINE_NOBODY  EX_MAX_ACTORS
#define MACHINE_PLAIN   0xFF /* the order of an access that is no atomic operation */
#define MACHINE_LARGEST 64u  /* bytes that one store moves at most; longer ones are split */

/* ---- One access ---- */

enum machine_kind {
    MACHINE_LOAD,
    MACHINE_STORE,
    MACHINE_RMW,   /* an operation that always writes */
    MACHINE_CAS,   /* one that may */
    MACHINE_FENCE, /* of an order; has no address */
};

enum machine_op {
    MACHINE_XCHG,
    MACHINE_ADD,
    MACHINE_SUB,
    MACHINE_AND,
    MACHINE_OR,
    MACHINE_XOR,
    MACHINE_NAND
};

/* Every access that instrumented code or the room's own functions make is one of these. */
struct machine_access {
    uintptr_t address;
    uintptr_t pc; /* 0: code of this room */
    size_t size;
    enum machine_kind kind;
    enum machine_op op; /* of MACHINE_RMW */
    uint8_t order;      /* __ATOMIC_ value or MACHINE_PLAIN */
    uint8_t failure;    /* order of a failed MACHINE_CAS */
    bool failed;        /* out: a CAS that did not write */
    uint64_t operand;   /* what is stored, or combined with memory */
    uint64_t expected;  /* of MACHINE_CAS */
    uint64_t value;     /* out: read (before the operation, if it is one) */
    uint64_t aside;     /* what else the caller of the engine has in hand */
    const char *what;   /* timeline; NULL */
};

/* ---- Actors ---- */

enum machine_status {
    MACHINE_READY,   /* not yet started, or before a step */
    MACHINE_WAITING, /* in ex_wait() or ex_lock(): may go on when its condition holds */
    MACHINE_ENDED,
};

struct machine_actor {
    const char *name;
    void (*run)(void *arg);
    void *arg;
    void *stack_pointer;
    struct caller stands; /* where it came into the engine, if it may have been left since */
    uint64_t local;       /* a hash of its own state, as it stands; 0: not looked at */
    enum machine_status status;
    bool may_end;
    bool (*ready)(void *arg);
    void *ready_arg;
    const char *waits_for;
    uint64_t ready_epoch; /* machine.epoch for which `is_ready` was found */
    uint64_t ready_hash;
    bool is_ready;
    uint64_t history;              /* hash of all that it has read that others write */
    uint32_t steps;                /* that it had made when it was left last */
    struct machine_access pending; /* the step before which it stands */
    /* The last atomic access, for finding out that it is made again and again. */
    struct {
        uintptr_t pc, address;
        uint64_t value, local; /* read; the actor's own state, 0 if it was not looked at */
    } last;
    /* A store that a mutation holds back until the actor has made another. */
    bool has_delayed, delays_plain;
    struct machine_access delayed;
    /* A store of plain code that is about to be made, or was: its value is in memory only at the
     * actor's next call of the run-time. */
    bool unsettled;
    uintptr_t unsettled_at;
    size_t unsettled_size;
    size_t unsettled_step; /* of the trace */
};

/* ---- Moves ---- */

/* A move is an actor's number, or a drain of the oldest stores in an actor's buffer. */
#define MACHINE_DRAIN     0x40u
#define MACHINE_STOP      0xFFu /* a driver's: this run leads nowhere new */
#define MACHINE_MAX_MOVES (2 * EX_MAX_ACTORS)

struct machine_point {
    uint32_t step;    /* steps done so far, by all */
    uint32_t current; /* who stands before a step; MACHINE_NOBODY: it cannot go on */
    bool fresh;       /* it was just switched to: only drains are worth a thought */
    uint32_t count;   /* of moves; the first is the default */
    uint8_t moves[MACHINE_MAX_MOVES];
};

struct machine_driver {
    /* True: the run still follows decisions made before, and *move is the one for this point
     * (`current`, if none was). Asked from step machine.consult_from on, and whenever nobody can
     * go on (`current` is MACHINE_NOBODY). */
    bool (*recorded)(uint32_t step, uint32_t current, uint8_t *move);
    /* A move of point->moves, or MACHINE_STOP. */
    uint8_t (*decide)(const struct machine_point *point);
    /* An answer to a choice of the environment or of the memory model. */
    uint32_t (*choose)(uint32_t step, uint32_t count);
};

/* The "property" of a run that did not do again what it did before: not of the code under test. */
#define MACHINE_ASTRAY "astray"

enum machine_outcome { MACHINE_DONE, MACHINE_CUT, MACHINE_FAILED };

/* A schedule as it is run: who makes how many steps. */
struct machine_segment {
    uint8_t move;
    bool forced;    /* nobody could go on before it */
    uint32_t start; /* machine.step when it began */
};

struct machine {
    bool active;        /* an actor runs; otherwise the run-time looks on */
    uint8_t evaluating; /* 1 + the actor whose condition is being asked */
    uint32_t current;
    uint32_t actor_count;
    struct machine_actor actors[EX_MAX_ACTORS];
    uint32_t step, max_steps;
    uint32_t resumed;      /* the step at which the current actor went on */
    uint32_t consult_from; /* points before this step need no driver */
    bool watchful;         /* each access is looked at; not only those of shared memory */
    bool every_step;       /* each step is a point, and each drain a move, conflict or not */
    uint32_t preemptions;
    enum ex_memory_model memory;
    const struct machine_driver *driver;
    bool single_drains;  /* a drain is of one store, for brute force */
    uint64_t epoch;      /* grows with every write */
    uint64_t ready_hash; /* of what the condition being asked has read */
    bool grown;          /* memory became shared that was not: points were passed over */
    enum machine_outcome outcome;
    const char *property;
    char message[256];
    struct machine_segment *segments;
    size_t segment_count, segment_room;
    uint32_t *choices;
    size_t choice_count, choice_room;
    bool tracing;
    struct ex_step *trace;
    size_t trace_count, trace_room;
};

extern struct machine machine;

/* The actor goes on where it came into the engine. */
static inline void machine_back_in(uint32_t actor)
{
    caller = machine.actors[actor].stands;
    caller.stack = MACHINE_ENGINES + actor * MACHINE_STRIDE + MACHINE_STACK - 8;
}

/* Steps made in a segment of the last run. */
static inline uint32_t machine_segment_steps(size_t i)
{
    bool last = i + 1 == machine.segment_count;

    return (last ? machine.step : machine.segments[i + 1].start) - machine.segments[i].start;
}

/* ---- machine.c ---- */

/* Sets the scenario up and takes the snapshot; 0, or -1 if the setup failed a property. */
int machine_load(const struct ex_scenario *scenario, uint32_t mode);
/* One run from the snapshot, with machine.driver, .memory, .max_steps, .tracing set. */
void machine_run(const struct ex_scenario *scenario);
/* One that goes on where a checkpoint was taken. */
struct checkpoint;
void machine_resume(const struct ex_scenario *scenario, const struct checkpoint *checkpoint);
/* The current actor stands before its pending step: somebody else may go on here. */
void machine_point(void);
/* The current actor goes on when the condition holds; its next action belongs to the same step. */
void machine_await(bool (*ready)(void *arg), void *arg, const char *what);
_Noreturn void machine_fail(const char *property, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
_Noreturn void machine_failed(const char *property); /* machine.message is set */
/* Whether the actor can make a step. */
bool machine_enabled(uint32_t actor);

/* ---- state.c ---- */

/* Hash of all that decides how the run goes on. */
uint64_t machine_key(uint32_t current);

/* ---- steps.c: called by the run-time ---- */

void machine_plain(uintptr_t address, size_t size, bool write, uintptr_t pc, uint64_t aside);
uint64_t machine_atomic(struct machine_access *access); /* returns access->value */
void machine_settle(struct machine_actor *actor);
/* An answer of the driver that becomes part of the schedule: 0 <= result < count. */
uint32_t machine_choose(uint32_t count);

#endif
