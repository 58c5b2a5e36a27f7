/* SPDX-License-Identifier: MIT */
/*
 * The scenario's memory. A run dirties few of its pages, mostly the same ones: they are found by
 * write protection, once in the life of a snapshot each, and only they are copied back.
 *
 * The same signal tells when the code under test goes wild: that ends the run, not the process.
 */
#include "arena.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "machine.h"

#define PAGE  ARENA_PAGE
#define PAGES (EX_MEMORY / PAGE)

static uint8_t *snapshot;
static bool dirty[PAGES];
static uint16_t dirty_list[PAGES];
static size_t dirty_count;
static bool protected;
static uint8_t signal_stack[64 << 10];
static uint8_t crash_stack[64 << 10] __attribute__((aligned(16)));
static struct {
    uintptr_t pc, address;
} crash;

void (*arena_crash)(uintptr_t pc, uintptr_t address);

static _Noreturn void die(const char *what)
{
    perror(what);
    abort();
}

static void crashed(void)
{
    arena_crash(crash.pc, crash.address);
    abort();
}

/* Goes on in crashed(), on a stack that is surely good. */
static void divert(ucontext_t *context, uintptr_t address)
{
    crash.pc = (uintptr_t)context->uc_mcontext.gregs[REG_RIP];
    crash.address = address;
    context->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)crashed;
    context->uc_mcontext.gregs[REG_RSP] = (greg_t)(uintptr_t)(crash_stack + sizeof crash_stack - 8);
}

static void on_fault(int number, siginfo_t *info, void *context)
{
    uintptr_t address = (uintptr_t)info->si_addr;
    size_t page = (address - MACHINE_BASE) / PAGE;

    if (number == SIGSEGV && protected && address >= MACHINE_BASE && page < PAGES && !dirty[page]) {
        dirty[page] = true;
        dirty_list[dirty_count++] = (uint16_t)page;
        mprotect((void *)(MACHINE_BASE + page * PAGE), PAGE, PROT_READ | PROT_WRITE);
    } else if (machine.active) {
        divert(context, address);
    } else {
        signal(number, SIG_DFL); /* our own bug: the access is made again and ends the process */
    }
}

static void handle_faults(void)
{
    stack_t stack = {.ss_sp = signal_stack, .ss_size = sizeof signal_stack};
    struct sigaction action = {.sa_sigaction = on_fault,
                               .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};

    if (sigaltstack(&stack, NULL) != 0 || sigaction(SIGSEGV, &action, NULL) != 0 ||
        sigaction(SIGBUS, &action, NULL) != 0 || sigaction(SIGILL, &action, NULL) != 0 ||
        sigaction(SIGFPE, &action, NULL) != 0)
        die("vapic-check: signals");
}

static void map(uintptr_t at, size_t size)
{
    void *got = mmap((void *)at, size, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

    if (got != (void *)at)
        die("vapic-check: memory at a fixed address");
}

static void map_all(void)
{
    map(MACHINE_BASE, EX_MEMORY);
    for (uint32_t i = 0; i < EX_MAX_ACTORS; i++) {
        map(MACHINE_STACKS + i * MACHINE_STRIDE, MACHINE_STACK);
        map(MACHINE_ENGINES + i * MACHINE_STRIDE, MACHINE_STACK);
    }
    snapshot = malloc(EX_MEMORY);
    if (snapshot == NULL)
        die("vapic-check");
}

void arena_open(void)
{
    if (snapshot == NULL)
        map_all();
    handle_faults(); /* each time: test frameworks have handlers of their own */
    mprotect((void *)MACHINE_BASE, EX_MEMORY, PROT_READ | PROT_WRITE);
    memset((void *)MACHINE_BASE, 0, EX_MEMORY);
    memset(dirty, 0, sizeof dirty);
    dirty_count = 0;
    protected = false;
}

void arena_snapshot(void)
{
    memcpy(snapshot, (void *)MACHINE_BASE, EX_MEMORY);
    mprotect((void *)MACHINE_BASE, EX_MEMORY, PROT_READ);
    protected = true;
}

size_t arena_pages(void)
{
    return dirty_count;
}

void *arena_page(size_t i)
{
    return i < dirty_count ? (uint8_t *)MACHINE_BASE + dirty_list[i] * PAGE : NULL;
}

bool arena_page_differs(size_t i)
{
    return memcmp(arena_page(i), snapshot + dirty_list[i] * PAGE, PAGE) != 0;
}

void arena_restore_page(size_t i)
{
    memcpy(arena_page(i), snapshot + dirty_list[i] * PAGE, PAGE);
}

void arena_restore(void)
{
    for (size_t i = 0; i < dirty_count; i++)
        arena_restore_page(i);
}
